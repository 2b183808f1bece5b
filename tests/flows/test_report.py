"""The page stands alone and says what it was given."""

import re
from pathlib import Path

import numpy as np
import pytest

from flows.pictures import save_png
from flows.report import Report, write_report


@pytest.fixture
def page(tmp_path: Path) -> str:
    picture = tmp_path / "sheet.png"
    save_png(np.full((8, 8, 3), 128, np.uint8), picture)
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"not read, only embedded")
    metrics = {
        "psnr": 21.5,
        "fid": None,
        "baselines": {"first_frame": {"psnr": 18.25}},
        "clips": [{"id": "a<b", "psnr": 21.5, "baselines": {"first_frame": {"psnr": 9.25}}}],
        "calibrated": {"lpips": False},
        "notes": {"fid": "needs two clips"},
    }
    losses = {"image": [1.0 / (step + 1) for step in range(500)]}
    report = Report(
        "A run", "One line.", metrics, {"video": video}, {"sheet": picture}, losses, "stage: image\n"
    )
    write_report(report, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in page


def test_figures_and_their_notes_are_shown(page: str) -> None:
    assert "21.5" in page
    assert "baselines.first_frame.psnr" in page
    assert "needs two clips" in page
    assert "9.25" in page
    assert "{&#39;" not in page  # nested figures are cells of their own


def test_names_are_escaped(page: str) -> None:
    assert "a&lt;b" in page
    assert "a<b" not in page


def test_a_falling_loss_falls_in_the_picture(page: str) -> None:
    points = re.search(r'points="([^"]*)"', page)
    assert points
    heights = [float(point.split(",")[1]) for point in points[1].split()]
    assert heights == sorted(heights)  # svg's y grows downwards
    assert "step 500" in page
