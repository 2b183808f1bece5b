"""Figures of clips and of the set: what is calibrated, what is missing and why, the detector's own error."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.evaluate import measure
from model.figures import Metrics, MetricsConfig
from storage.dataset import ClipWindow
from storage.manifest import ClipRow

T, SIZE = 4, 40
CONFIG = MetricsConfig(fid_frames=2)
TRUE = np.random.default_rng(0).uniform(2, 30, (T, 2, 21, 2)).astype(np.float32)
PX_PER_M = np.full((T, 2, 21), 500.0, np.float32)
ROW = ClipRow("a/cam", "a", "cam", "test", "hoi", (), None, None, True, True, T, 24.0)


class Shifted:
    """Finds true joints in true frames, and 3 pixels beside them in others; never any in frame 0."""

    def __init__(self, truth: NDArray[np.uint8]) -> None:
        self.truth = truth

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = TRUE + np.float32(0 if np.array_equal(frames, self.truth) else (3, 0))
        found[0] = np.nan
        return found


@pytest.fixture
def window() -> ClipWindow:
    rng = np.random.default_rng(1)
    mask = np.zeros((T, SIZE, SIZE), bool)
    mask[:, 5:30, 8:36] = True
    return ClipWindow(
        normal_steps=np.zeros((T, 7, SIZE, SIZE, 3), np.int8),
        confidence=np.zeros((T, 7, SIZE, SIZE), np.float32),
        frames=rng.integers(0, 256, (T, SIZE, SIZE, 3), dtype=np.uint8),
        mask=mask,
        background=np.zeros((SIZE, SIZE, 3), np.uint8),
        views=np.zeros((6, 8, 8, 4), np.uint8),
        points=np.zeros((5, 3), np.float32),
        joints_2d=TRUE,
    )


@pytest.fixture
def summary(window: ClipWindow, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    metrics = Metrics(CONFIG, detector=Shifted(window.frames))
    clips = [measure(metrics, ROW, window, 255 - window.frames, PX_PER_M, window.frames[0])]
    return metrics.summarize([clip.figures for clip in clips])


def test_every_figure_stands_in_the_clip_and_in_the_sum(summary: dict[str, Any]) -> None:
    (clip,) = summary["clips"]
    for name in ("psnr", "ssim", "lpips", "flicker", "mpjpe", "mpjpe_mm", "miss_rate"):
        assert isinstance(clip[name], float)
        assert summary[name] == clip[name]
    assert summary["fid"] > 0
    assert set(summary["baselines"]["mean_frame"]) == {"psnr", "ssim", "lpips", "flicker"}
    json.dumps(summary, allow_nan=False)


def test_means_of_fewer_clips_than_others_say_so(window: ClipWindow) -> None:
    metrics = Metrics(CONFIG, detector=Shifted(window.frames))
    still = replace(window, frames=np.repeat(window.frames[:1], T, axis=0))
    clips = [
        measure(metrics, ROW, each, 255 - each.frames, PX_PER_M, None).figures for each in (window, still)
    ]
    summary = metrics.summarize(clips)
    first = clips[0]["baselines"]["first_frame"]["psnr"]
    assert summary["baselines"]["first_frame"]["psnr"] == pytest.approx(first)
    told = "mean of 1 of 2 clips: it is undefined for the others"
    assert summary["notes"]["baselines.first_frame.psnr"] == told
    assert "psnr" not in summary["notes"]


def test_joints_are_off_by_the_shift_and_the_truth_shows_what_the_detector_misses(
    summary: dict[str, Any],
) -> None:
    assert summary["mpjpe"] == pytest.approx(3.0, rel=1e-5)
    assert summary["mpjpe_mm"] == pytest.approx(6.0, rel=1e-5)
    assert summary["miss_rate"] == 0.25
    assert summary["joints_on_truth"] == {"mpjpe": 0.0, "mpjpe_mm": 0.0, "miss_rate": 0.25}


def test_figures_through_random_weights_say_that_they_are_uncalibrated(summary: dict[str, Any]) -> None:
    assert {name for name, calibrated in summary["calibrated"].items() if not calibrated} == {"lpips", "fid"}
    assert summary["notes"]["lpips"].startswith("uncalibrated: AlexNet")
    assert summary["notes"]["fid"].startswith("uncalibrated: Inception v3")
    assert "n = 2 is too small" in summary["notes"]["fid"]


def test_without_a_detector_and_without_fid_the_notes_say_so(window: ClipWindow) -> None:
    metrics = Metrics(MetricsConfig(fid_frames=0, detector="none"))
    clip = measure(metrics, ROW, window, window.frames, PX_PER_M, None)
    summary = metrics.summarize([clip.figures])
    assert summary["mpjpe"] is None
    assert "manivideo[mediapipe]" in summary["notes"]["mpjpe"]
    assert summary["fid"] is None
    assert "fewer than two pictures" in summary["notes"]["fid"]
    assert "no error at all" in summary["notes"]["psnr"]
