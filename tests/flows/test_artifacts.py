"""What a run shows in Prefect: pictures that are whole, counts, the quarantine, progress to its end."""

import base64
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from uuid import uuid4

import httpx
import numpy as np
import pytest
from PIL import Image
from prefect.client.orchestration import get_client

from flows import artifacts
from flows.artifacts import CHART_HEIGHT, CHART_POINTS, CHART_WIDTH, loss_chart
from flows.build import BuildConfig
from flows.data_dag import build_dataset
from flows.progress import listener
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


def test_a_server_that_does_not_answer_stops_nothing_and_is_left_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, asked_at = [0.0], list[float]()

    def answer(*_: object) -> None:
        asked_at.append(clock[0])
        if clock[0] < 1000:
            raise httpx.ConnectError("refused")

    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda *_, **__: uuid4())
    monkeypatch.setattr(artifacts, "update_progress_artifact", answer)
    monkeypatch.setattr("flows.artifacts.time.monotonic", lambda: clock[0])
    with artifacts.progress_shown("training"):
        tell = listener.get()
        assert tell is not None
        for clock[0] in (1, 3, 5, 600, 604, 1210, 1211, 1213):
            tell("image stage", 50)
    assert asked_at == [3, 604, 1210, 1213, 1213]  # the last: it is done
    assert caplog.text.count("Prefect's server cannot be told: refused") == 2


def test_one_loss_makes_a_chart() -> None:
    ET.fromstring(loss_chart([0.5]))
