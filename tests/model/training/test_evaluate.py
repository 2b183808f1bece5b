"""Evaluation: metrics.json as its readers expect it, baselines in closed form, honest nulls."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.config import ModelConfig
from model.evaluate import (
    EvaluateConfig,
    GeneratedClip,
    evaluate,
    mean_frame,
    mean_rows,
    trained_beside,
    with_truth,
)
from model.figures import Metrics, MetricsConfig
from model.metrics import masked_psnr
from model.pipeline import ManiVideoPipeline, build_pipeline
from model.training_config import ValidationConfig
from model.validation import chosen_row
from storage.config import load_config
from storage.dataset import Dataset
from storage.errors import InputError
from storage.manifest import ClipRow, Manifest
from storage.store import Store
from tests.model.training.conftest import write_clip

CONFIG = EvaluateConfig(num_frames=4, num_inference_steps=2)
QUICK = MetricsConfig(fid_frames=0)


@pytest.fixture
def pipeline(model_yaml: str) -> ManiVideoPipeline:
    pipeline = build_pipeline(load_config(ModelConfig, model_yaml))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_metrics_have_every_figure_or_say_why_not(pipeline: ManiVideoPipeline, dataset: Dataset) -> None:
    pictures: list[GeneratedClip] = []
    measures = Metrics(MetricsConfig(fid_frames=2))
    result = evaluate(pipeline, dataset, dataset.rows("test"), CONFIG, pictures.append, measures)
    metrics = json.loads(json.dumps(result.metrics, allow_nan=False))
    assert [clip["id"] for clip in metrics["clips"]] == ["held0/cam0", "held1/cam0"]
    assert metrics["psnr"] == pytest.approx(np.mean([clip["psnr"] for clip in metrics["clips"]]))
    assert set(metrics["baselines"]) == {"first_frame", "mean_frame"}
    for name in ("psnr", "ssim"):
        assert isinstance(metrics[name], float)
        assert all(isinstance(baseline[name], float) for baseline in metrics["baselines"].values())
    for name in ("lpips", "mpjpe"):
        assert metrics[name] is None
        assert metrics["notes"][name].startswith("not computed")
    assert isinstance(metrics["fid"], float)
    assert metrics["fid_pictures"] == 4
    assert not metrics["calibrated"]["fid"]
    assert "uncalibrated: Inception v3" in metrics["notes"]["fid"]
    assert "n = 4 is too small" in metrics["notes"]["fid"]
    assert all(metrics["calibrated"][name] for name in ("psnr", "ssim", "flicker", "mpjpe", "miss_rate"))
    for clip, figures in zip(pictures, metrics["clips"], strict=True):
        assert clip.generated.shape == clip.truth.shape == (4, 16, 16, 3)
        assert clip.generated.dtype == np.uint8
        assert masked_psnr(clip.generated, clip.truth, clip.area) == pytest.approx(figures["psnr"])


def test_the_same_seed_generates_the_same_clip(pipeline: ManiVideoPipeline, dataset: Dataset) -> None:
    rows = dataset.rows("test")[:1]
    once, again = (evaluate(pipeline, dataset, rows, CONFIG, None, Metrics(QUICK)).metrics for _ in range(2))
    seeded = CONFIG.model_copy(update={"seed": 1})
    other = evaluate(pipeline, dataset, rows, seeded, None, Metrics(QUICK)).metrics
    assert once == again
    assert once["psnr"] != other["psnr"]


def test_the_baselines_are_the_true_first_frame_and_the_mean_training_frame(
    pipeline: ManiVideoPipeline, dataset: Dataset
) -> None:
    row = dataset.rows("test")[0]
    figures = evaluate(pipeline, dataset, [row], CONFIG, None, Metrics(QUICK)).metrics["baselines"]
    window = dataset.read(row, 0, 4)
    first = np.repeat(window.frames[:1], 3, axis=0)
    of_others = masked_psnr(first, window.frames[1:], window.mask[1:])
    assert figures["first_frame"]["psnr"] == pytest.approx(of_others)
    assert figures["mean_frame"]["psnr"] == pytest.approx(psnr_of_mean(dataset, ["hoi0", "hoi1"], row))
    assert figures["first_frame"]["flicker"] > 0


def test_the_mean_frame_has_no_object_that_is_under_test(
    pipeline: ManiVideoPipeline, dataset: Dataset
) -> None:
    rows = [replace(row, object_split="test" if row.session == "hoi1" else "train") for row in dataset.rows()]
    by_object = Dataset(dataset.store, Manifest("toy", tuple(rows)))
    (row,) = by_object.rows("object:test")
    config = CONFIG.model_copy(update={"train_split": trained_beside("object:test")})
    result = evaluate(pipeline, by_object, [row], config, None, Metrics(QUICK))
    trained_on = ["held0", "held1", "hoi0"]
    psnr = result.metrics["baselines"]["mean_frame"]["psnr"]
    assert psnr == pytest.approx(psnr_of_mean(dataset, trained_on, row))


def test_a_clip_of_another_size_than_the_mean_frame_is_refused_before_any_is_generated(
    pipeline: ManiVideoPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    trained_on = write_clip(store, "small", "hoi", split="train", seed=0)
    tested = [write_clip(store, f"s{size}", "hoi", split="test", seed=size, size=size) for size in (16, 24)]
    mixed = Dataset(store, Manifest("mixed", (trained_on, *tested)))
    monkeypatch.setattr("model.evaluate.generate", lambda *_, **__: pytest.fail("generated"))
    found = r"16 by 16 \(s16/cam0 of mixed\), 24 by 24 \(s24/cam0 of mixed\)"
    with pytest.raises(InputError, match=f"size: found {found}, wanted one size"):
        evaluate(pipeline, mixed, tested, CONFIG, None, Metrics(QUICK))


def test_the_mean_frame_is_of_clips_with_hands_and_object_alone(dataset: Dataset) -> None:
    rows = mean_rows(dataset, "train", 2)
    assert [row.id for row in rows] == ["hoi0/cam0", "hoi1/cam0"]
    (one,) = mean_rows(dataset, "train", 1)
    assert one in rows
    assert mean_frame(dataset, [], frames_per_clip=3) is None


@pytest.mark.parametrize(
    ("frames_per_clip", "spread"), [(1, [0]), (2, [0, 5]), (4, [0, 1, 2, 3]), (9, range(6))]
)
def test_the_mean_frame_is_of_frames_that_are_spread_evenly(
    dataset: Dataset, frames_per_clip: int, spread: Sequence[int]
) -> None:
    row = dataset.row("hoi0/cam0")
    frames = dataset.read(row, 0, 6).frames[list(spread)]
    mean = mean_frame(dataset, [row], frames_per_clip)
    np.testing.assert_array_equal(mean, np.rint(frames.mean(axis=0)).astype(np.uint8))


def test_a_clip_without_an_area_is_generated_but_has_no_figures(
    pipeline: ManiVideoPipeline, dataset: Dataset
) -> None:
    rows = [dataset.row("human0/cam0"), dataset.rows("test")[0]]
    metrics = evaluate(pipeline, dataset, rows, CONFIG, None, Metrics(QUICK)).metrics
    assert metrics["clips"][0]["psnr"] is None
    assert metrics["psnr"] == metrics["clips"][1]["psnr"]
    assert "human0/cam0" in metrics["notes"]["psnr"]


def test_motion_alone_is_left_out_and_counted(dataset: Dataset) -> None:
    filmed, other = dataset.rows("test")
    alone = replace(other, frames_key=None)
    notes: dict[str, str] = {}
    assert with_truth([alone, filmed], "toy", notes) == [filmed]
    assert notes == {"clips of toy": f"1 of 2 left out, as motion alone has no truth: ['{alone.id}']"}
    with pytest.raises(InputError, match=rf"no.* with true frames; motion alone: \['{alone.id}'\]"):
        with_truth([alone], "toy", notes)


def test_motion_alone_cannot_be_watched_while_training(dataset: Dataset) -> None:
    alone = replace(dataset.rows("test")[0], frames_key=None)
    watched = Dataset(dataset.store, Manifest("toy", (alone,)))
    for config in (ValidationConfig(clip=alone.id), ValidationConfig()):
        with pytest.raises(InputError, match=f"toy has no pictures of .*'{config.clip or 'test'}'"):
            chosen_row(watched, config)


def test_no_clips_is_an_error_and_a_perfect_copy_has_no_psnr() -> None:
    with pytest.raises(InputError, match="toy: clips to evaluate: found none"):
        with_truth([], "toy", {})
    frames, area = np.zeros((2, 16, 16, 3), np.uint8), np.ones((2, 16, 16), bool)
    perfect = Metrics(MetricsConfig()).compare(frames, frames, area)
    assert perfect == {"psnr": None, "ssim": pytest.approx(1.0), "lpips": None, "flicker": 0.0}


def test_without_training_clips_the_mean_frame_is_said_to_be_missing(
    pipeline: ManiVideoPipeline, dataset: Dataset
) -> None:
    config = CONFIG.model_copy(update={"train_split": "val"})
    metrics = evaluate(pipeline, dataset, dataset.rows("test")[:1], config, None, Metrics(QUICK)).metrics
    assert "no training clips" in metrics["notes"]["baselines.mean_frame"]
    assert metrics["baselines"]["mean_frame"]["psnr"] is None


def psnr_of_mean(dataset: Dataset, sessions: list[str], row: ClipRow) -> float:
    """PSNR of the mean of all frames of some sessions on the part of a clip that is evaluated."""
    frames = [dataset.read(dataset.row(f"{session}/cam0"), 0, 6).frames for session in sessions]
    mean = np.rint(np.concatenate(frames).mean(axis=0)).astype(np.uint8)
    window = dataset.read(row, 0, 4)
    return masked_psnr(np.repeat(mean[None], 4, axis=0), window.frames, window.mask)
