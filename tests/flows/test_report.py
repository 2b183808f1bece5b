"""The page stands alone and says what it was given."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.pictures import Picture
from flows.report import Report, write_report
from flows.sprites import MOST_FRAMES, Sprite, clip_sprites, sprite
from model.evaluate import GeneratedClip
from storage.dataset import ClipWindow
from storage.manifest import ClipRow

FIGURES = {"psnr": 21.5, "ssim": 0.5, "lpips": 0.25, "flicker": 3.0, "mpjpe": None, "miss_rate": None}
METRICS: dict[str, Any] = {
    **FIGURES,
    "fid": None,
    "baselines": {"first_frame": {"psnr": 18.25}},
    "joints_on_truth": {"mpjpe": None, "mpjpe_mm": None, "miss_rate": None},
    "clips": [{"id": "a</script><b", **FIGURES, "baselines": {"first_frame": {"psnr": 9.25}}}],
    "calibrated": {"psnr": True, "lpips": False},
    "notes": {"fid": "needs two clips"},
}


@pytest.fixture
def page(tmp_path: Path) -> str:
    losses = {"image": [1.0 / (step + 1) for step in range(500)]}
    report = Report("A run", "One line.", METRICS, {}, losses, {"image stage": "stage: image\n"})
    write_report(report, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in page


def test_figures_and_their_notes_are_shown(page: str) -> None:
    for text in ("21.5", "18.25", "lpips*", "<strong>*: uncalibrated</strong>", "needs two clips"):
        assert text in page
    assert "psnr*" not in page
    assert "true frames" not in page  # nothing was detected in them
    assert "stage: image" in page


def test_the_page_s_script_is_given_every_clip_whatever_its_name(page: str) -> None:
    (text,) = re.findall(r'id="clips">(.*?)</script>', page)
    (clip,) = json.loads(text)
    assert clip["figures"] == {
        "id": "a</script><b",
        **{name: value for name, value in FIGURES.items() if value is not None},
        "first_frame.psnr": 9.25,
    }
    assert clip["sprites"] is None
    assert "a</script>" not in page


def test_a_falling_loss_falls_in_the_picture(page: str) -> None:
    points = re.search(r'points="([^"]*)"', page)
    assert points
    heights = [float(point.split(",")[1]) for point in points[1].split()]
    assert heights == sorted(heights)  # svg's y grows downwards
    assert "500 steps" in page


def test_a_sprite_is_about_square_whatever_its_frames_are() -> None:
    sheet = sprite([np.full((20, 40, 3), level, np.uint8) for level in range(0, 240, 20)])
    assert (sheet.columns, sheet.width, sheet.height) == (3, 40, 20)  # 120 by 80
    assert sheet.webp[8:12] == b"WEBP"


def test_a_long_or_large_clip_is_thinned_and_shrunk() -> None:
    t, levels = 200, np.arange(200)
    frames = np.broadcast_to(levels.astype(np.uint8)[:, None, None, None], (t, 300, 300, 3))
    nearness = (levels / 255).astype(np.float32)[:, None, None, None]
    window = ClipWindow(
        normal_steps=np.zeros((t, 7, 8, 8, 3), np.int8),
        confidence=np.broadcast_to(nearness, (t, 7, 8, 8)),
        frames=frames,
        mask=np.ones((t, 300, 300), bool),
        background=frames[0],
        views=np.zeros((6, 8, 8, 4), np.uint8),
        points=np.zeros((5, 3), np.float32),
        joints_2d=np.zeros((t, 2, 21, 2), np.float32),
    )
    row = ClipRow("a/c", "a", "c", "test", "hoi", (), None, None, True, True, t, 20.0)
    shown = clip_sprites(GeneratedClip(row, frames, frames, window.mask, {}), window, 20.0)
    assert len(shown.numbers) == MOST_FRAMES
    assert (shown.numbers[0], shown.numbers[-1]) == (0, 199)
    assert shown.fps == pytest.approx(20.0 * MOST_FRAMES / 200)
    assert shown.videos["truth"].height == 256
    for part in (
        *shown.videos.values(),
        shown.panels["confidence"],
    ):  # each shows the frames that are numbered
        found = [frame[20, 20, 0] for frame in frames_of(part, MOST_FRAMES)]
        assert np.abs(np.subtract(found, shown.numbers)).max() <= 2
    (still,) = frames_of(shown.still, 1)
    assert np.abs(still[20, 20] - 127.0).max() <= 2  # where the object is not, whatever colour stands there


def frames_of(part: Sprite, count: int) -> list[Picture]:
    """Take a sprite apart."""
    sheet = np.asarray(Image.open(io.BytesIO(part.webp)).convert("RGB"))
    rows = [np.split(row, part.columns, axis=1) for row in np.split(sheet, len(sheet) // part.height)]
    return [frame for row in rows for frame in row][:count]
