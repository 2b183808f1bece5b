"""What a run shows in Prefect: pictures that are whole, counts, the quarantine, progress to its end."""

import base64
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect.client.orchestration import get_client

from flows.artifacts import CHART_HEIGHT, CHART_POINTS, CHART_WIDTH, loss_chart
from flows.build import BuildConfig
from flows.data_dag import build_dataset
from render.layers import LayersConfig
from render.six_views import SixViewConfig


@pytest.mark.usefixtures("prefect_server")
def test_a_build_shows_counts_quarantine_progress_and_a_contact_sheet(objects: Path, tmp_path: Path) -> None:
    small = {"layers": LayersConfig(size=32), "six_views": SixViewConfig(size=32), "num_frames": 3}
    config = BuildConfig(objects=objects, dataset="My_Cups", **small)
    build_dataset(config, tmp_path / "store")
    with get_client(sync_client=True) as client:
        artifacts = {artifact.key or artifact.type: artifact for artifact in client.read_artifacts()}
    counts = [(kind, 2, 0) for kind in ("frames", "layers", "object")]
    assert [tuple(row.values()) for row in table(artifacts["my-cups-records"].data)] == counts
    assert [row["code"] for row in table(artifacts["my-cups-quarantine"].data)] == ["truncated"]
    assert artifacts["progress"].data == 100
    head, _, data = str(artifacts["my-cups-contact-sheet"].data).partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as sheet:
        sheet.load()


def table(data: object) -> list[dict[str, object]]:
    assert isinstance(data, str)
    rows: list[dict[str, object]] = json.loads(data)
    return rows


def test_the_chart_of_losses_falls_as_they_do_and_stays_inside() -> None:
    chart = ET.fromstring(loss_chart(list(np.linspace(2.0, 1.0, 1000))))
    (line,) = chart.iter("{http://www.w3.org/2000/svg}polyline")
    points = np.array([point.split(",") for point in line.attrib["points"].split()], float)
    assert len(points) == CHART_POINTS
    assert (np.diff(points, axis=0) > 0).all()  # rows count downwards
    assert (points >= 0).all()
    assert (points <= (CHART_WIDTH, CHART_HEIGHT)).all()


def test_one_loss_makes_a_chart() -> None:
    ET.fromstring(loss_chart([0.5]))
