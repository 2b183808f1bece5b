"""Evaluation: generate held-out clips and compare them with their true frames (paper, Sec. 4.1 to 4.3).

All figures are of the hand-object area. Two baselines need no network: the clip's true first frame, repeated,
and the mean of the frames that were trained on. A model that beats neither has learnt nothing.
Letters: T frames, H rows, W columns.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from model.clip_tensors import conditions_from_window
from model.metrics import flicker_error, masked_psnr, masked_ssim
from model.pipeline import ManiVideoPipeline
from model.sampling import SamplingConfig
from storage.dataset import ClipWindow, Dataset
from storage.errors import InputError
from storage.manifest import ClipRow

logger = logging.getLogger(__name__)

NOT_COMPUTED = {
    "lpips": "not computed: needs AlexNet weights, and no loader for them is installed",
    "fid": "not computed: needs InceptionV3 weights, and no loader for them is installed",
    "mpjpe": "not computed: needs a hand-joint detector, and none is installed",
}


class EvaluateConfig(SamplingConfig, frozen=True, extra="forbid"):
    """What is generated of each clip, and how (SamplingConfig)."""

    num_frames: int | None = Field(default=24, ge=1)
    """Frames of each clip, from its first on; null: all."""
    stride: int = Field(default=1, ge=1)
    """Frames of the clip between generated ones."""
    first_object: bool = False
    """Give f_8, the object as seen in the true first frame."""
    seed: int = Field(default=0, ge=0)
    """Seeds each clip's noise."""
    train_split: str = "train"
    """Rows whose frames make the mean-frame baseline."""
    mean_frames_per_clip: int = Field(default=8, ge=1)
    """Frames of each training clip, evenly spaced, that enter the mean frame."""


@dataclass(frozen=True)
class GeneratedClip:
    """One clip: what was generated, what is true, and the figures."""

    row: ClipRow
    generated: NDArray[np.uint8]  # [T, H, W, 3]
    truth: NDArray[np.uint8]  # [T, H, W, 3]
    area: NDArray[np.bool_]  # [T, H, W]
    figures: dict[str, Any]  # an entry of "clips" in metrics.json


@dataclass(frozen=True)
class EvaluationResult:
    """Figures of an evaluation; `metrics` is the content of metrics.json."""

    metrics: dict[str, Any]


def evaluate(
    pipeline: ManiVideoPipeline,
    dataset: Dataset,
    rows: Sequence[ClipRow],
    config: EvaluateConfig,
    on_clip: Callable[[GeneratedClip], None] | None = None,
) -> EvaluationResult:
    """Generate each row's clip and compare; `on_clip` takes the pictures, which are not kept."""
    if not rows:
        raise InputError(f"dataset {dataset.manifest.name}: no clips to evaluate", code="no-clips")
    mean = mean_frame(dataset, dataset.rows(config.train_split), config.mean_frames_per_clip)
    figures = []
    for number, row in enumerate(rows):
        clip = evaluate_clip(pipeline, read_clip(dataset, row, config), row, config, mean)
        logger.info("%d of %d: %s: PSNR %s dB", number + 1, len(rows), row.id, clip.figures["psnr"])
        if on_clip is not None:
            on_clip(clip)
        figures.append(clip.figures)
    return EvaluationResult(summarize(figures, has_mean=mean is not None))


def read_clip(dataset: Dataset, row: ClipRow, config: EvaluateConfig) -> ClipWindow:
    """The part of a clip that is evaluated."""
    available = (row.num_frames - 1) // config.stride + 1
    return dataset.read(row, 0, min(config.num_frames or available, available), config.stride)


def evaluate_clip(
    pipeline: ManiVideoPipeline,
    window: ClipWindow,
    row: ClipRow,
    config: EvaluateConfig,
    mean: NDArray[np.uint8] | None,
) -> GeneratedClip:
    """Generate one clip and compute its figures; `mean` is the mean training frame [H, W, 3]."""
    generated = generate(pipeline, window, config)
    truth, area = window.frames, window.mask
    if not area.any():
        figures: dict[str, Any] = {"psnr": None, "ssim": None, "flicker": None, "baselines": {}}
        return GeneratedClip(row, generated, truth, area, {"id": row.id, **figures})
    baselines = {"first_frame": compare(np.broadcast_to(truth[:1], truth.shape), truth, area)}
    if mean is not None:
        baselines["mean_frame"] = compare(np.broadcast_to(mean, truth.shape), truth, area)
    figures = {"id": row.id, **compare(generated, truth, area), "baselines": baselines}
    return GeneratedClip(row, generated, truth, area, figures)


def generate(
    pipeline: ManiVideoPipeline,
    window: ClipWindow,
    config: EvaluateConfig,
    first_object: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] generated from a window's conditions; `first_object` [h, w, 3] is f_8's picture."""
    conditions = conditions_from_window(
        window,
        pipeline.codec,
        pipeline.image_encoder,
        first_object=config.first_object if first_object is None else first_object,
        device=pipeline._execution_device,
    )
    output = pipeline(conditions, config, torch.Generator().manual_seed(config.seed))
    return np.rint(output.frames[0] * 255.0).astype(np.uint8)


def mean_frame(dataset: Dataset, rows: Sequence[ClipRow], frames_per_clip: int) -> NDArray[np.uint8] | None:
    """Mean [H, W, 3] of evenly spaced frames of the rows with hands and object; None where there are none."""
    total, count = np.zeros(()), 0
    for row in rows:
        if row.has_hands and row.has_object:
            stride = max(row.num_frames // frames_per_clip, 1)
            frames = dataset.read(row, 0, min(frames_per_clip, row.num_frames), stride).frames
            total, count = total + frames.sum(axis=0, dtype=np.float64), count + len(frames)
    return np.rint(total / count).astype(np.uint8) if count else None


def compare(
    generated: NDArray[np.uint8], truth: NDArray[np.uint8], area: NDArray[np.bool_]
) -> dict[str, float | None]:
    """Figures of frames [T, H, W, 3] on area [T, H, W]; None where one is infinite or undefined."""
    psnr = masked_psnr(generated, truth, area)
    return {
        "psnr": psnr if math.isfinite(psnr) else None,
        "ssim": masked_ssim(generated, truth, area),
        "flicker": flicker_error(generated, truth, area) if len(truth) > 1 else None,
    }


def summarize(clips: Sequence[Mapping[str, Any]], *, has_mean: bool) -> dict[str, Any]:
    """metrics.json: means over clips of what could be computed, and notes on what could not."""
    notes = dict(NOT_COMPUTED)
    if not has_mean:
        notes["baselines.mean_frame"] = "not computed: no training clips with hands and object"
    means = _means(clips)
    if left_out := [clip["id"] for clip in clips if clip["psnr"] is None]:
        notes["psnr"] = f"undefined for {left_out}: no hand-object area, or no error at all"
    baselines = {
        name: _means([clip["baselines"][name] for clip in clips if name in clip["baselines"]])
        for name in ("first_frame", "mean_frame")
    }
    return {
        **means,
        **dict.fromkeys(NOT_COMPUTED),
        "baselines": baselines,
        "clips": list(clips),
        "calibrated": dict.fromkeys(means, True),
        "notes": notes,
    }


def _means(clips: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Mean of each figure over the clips that have it."""
    means: dict[str, float | None] = {}
    for name in ("psnr", "ssim", "flicker"):
        values = [clip[name] for clip in clips if clip[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return means
