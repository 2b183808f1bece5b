"""Evaluation: generate held-out clips and compare them with their true frames (paper, Sec. 4.1 to 4.3).

All figures are of the hand-object area. Two baselines need no network: the clip's true first frame, repeated,
and the mean of the frames that were trained on. A model that beats neither has learnt nothing.
Letters: T frames, H rows, W columns.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from model.clip_tensors import conditions_from_window
from model.figures import JOINT_FIGURES, PICTURE_FIGURES, Figures, Metrics, MetricsConfig
from model.pipeline import ManiVideoPipeline
from model.sampling import SamplingConfig
from model.schedule import seeded_generator
from storage.dataset import ClipWindow, Dataset
from storage.digests import digest_bytes
from storage.errors import InputError
from storage.manifest import ClipRow

logger = logging.getLogger(__name__)


class EvaluateConfig(SamplingConfig, frozen=True, extra="forbid"):
    """What is generated of each clip, and how (SamplingConfig)."""

    num_frames: int | None = Field(default=24, ge=1)
    """Frames of each clip, from its first on; null: all."""
    stride: int = Field(default=1, ge=1)
    """Frames of the clip between generated ones."""
    first_object: bool = False
    """Give f_8, the object as seen in the true first frame."""
    seed: int = Field(default=0, ge=0)
    """Seeds each clip's noise, together with the clip's name: no noise is that of all clips."""
    train_split: str | None = None
    """Rows whose frames make the mean-frame baseline; null: train, and where a split is evaluated, those to
    train on beside it, as object:train beside object:test."""
    mean_clips: int = Field(default=256, ge=1)
    """Training clips, at most, whose frames enter the mean frame; of more they are drawn by their names."""
    mean_frames_per_clip: int = Field(default=8, ge=1)
    """Frames of each of them, evenly spaced."""


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
    metrics: Metrics | None = None,
) -> EvaluationResult:
    """Generate each row's clip and compare; `on_clip` takes the pictures, which are not kept.

    rows: one or more, all `with_truth`: motion alone has nothing to be compared with.
    metrics: measures the clips; None: as MetricsConfig says by default.
    InputError where the mean training frame is of another size than a clip.
    """
    assert rows
    assert all(row.frames_key is not None for row in rows)
    metrics = metrics or Metrics(MetricsConfig(), pipeline._execution_device)
    averaged = mean_rows(dataset, config.train_split or "train", config.mean_clips)
    if averaged:
        check_sizes((dataset, row) for row in (*averaged, *rows))
    mean = mean_frame(dataset, averaged, config.mean_frames_per_clip)
    figures = []
    for number, row in enumerate(rows):
        window = read_clip(dataset, row, config)
        generated = generate(pipeline, window, config, row.id)
        px_per_m = dataset.joint_px_per_m(row, 0, len(generated), config.stride)
        clip = measure(metrics, row, window, generated, px_per_m, mean)
        logger.info("%d of %d: %s: PSNR %s dB", number + 1, len(rows), row.id, clip.figures["psnr"])
        if on_clip is not None:
            on_clip(clip)
        figures.append(clip.figures)
    summary = metrics.summarize(figures)
    summary["notes"]["baselines.first_frame"] = "its figures are of the frames after it"
    if mean is None:
        summary["notes"]["baselines.mean_frame"] = "not computed: no training clips with hands and object"
    return EvaluationResult(summary)


def with_truth(rows: Sequence[ClipRow], name: str, notes: dict[str, str]) -> list[ClipRow]:
    """Those of a dataset's rows that have true frames; `notes` names the others, InputError if all are."""
    compared = [row for row in rows if row.frames_key is not None]
    left_out = [row.id for row in rows if row.frames_key is None]
    if not compared:
        found = f"none with true frames; motion alone: {left_out}" if left_out else "none"
        raise InputError(f"dataset {name}: clips to evaluate: found {found}", code="no-clips")
    if left_out:
        counted = f"{len(left_out)} of {len(rows)}"
        notes[f"clips of {name}"] = f"{counted} left out, as motion alone has no truth: {left_out}"
    return compared


def read_clip(dataset: Dataset, row: ClipRow, config: EvaluateConfig) -> ClipWindow:
    """The part of a clip that is evaluated."""
    available = (row.num_frames - 1) // config.stride + 1
    return dataset.read(row, 0, min(config.num_frames or available, available), config.stride)


def measure(
    metrics: Metrics,
    row: ClipRow,
    window: ClipWindow,
    generated: NDArray[np.uint8],
    px_per_m: NDArray[np.float32],
    mean: NDArray[np.uint8] | None,
) -> GeneratedClip:
    """Compute a clip's figures.

    generated: [T, H, W, 3]; px_per_m: f / z [T, 2, 21]; mean: the mean training frame [H, W, 3], if any.
    """
    truth, area = window.frames, window.mask
    figures: dict[str, Any] = {"id": row.id, **dict.fromkeys((*PICTURE_FIGURES, *JOINT_FIGURES))}
    figures |= {"joints_on_truth": dict.fromkeys(JOINT_FIGURES), "baselines": {}}
    if area.any():
        figures |= metrics.compare(generated, truth, area)
        figures |= metrics.joints(generated, window.joints_2d, px_per_m)
        figures["joints_on_truth"] = metrics.joints(truth, window.joints_2d, px_per_m)
        figures["baselines"] = compare_baselines(metrics, truth, area, mean)
        metrics.add_to_fid(generated, truth, area)
    return GeneratedClip(row, generated, truth, area, figures)


def compare_baselines(
    metrics: Metrics, truth: NDArray[np.uint8], area: NDArray[np.bool_], mean: NDArray[np.uint8] | None
) -> dict[str, Figures]:
    """Figures of each baseline; the first frame's are of those after it, as of itself it is no guess.

    truth: [T, H, W, 3]; area: [T, H, W]; mean: the mean training frame [H, W, 3], if any.
    """
    found: dict[str, Figures] = {}
    for name, shown in baselines(truth, mean).items():
        measured = after_first(len(truth)) if name == "first_frame" else slice(None)
        found[name] = metrics.compare(shown[measured], truth[measured], area[measured])
    return found


def after_first(num_frames: int) -> slice:
    """Every frame but the first, so that its repetition can be measured; of one frame alone, that."""
    return slice(min(1, num_frames - 1), None)


def baselines(truth: NDArray[np.uint8], mean: NDArray[np.uint8] | None) -> dict[str, NDArray[np.uint8]]:
    """What needs no network, as frames [T, H, W, 3]: the true first one and the mean [H, W, 3], repeated."""
    stills = {"first_frame": truth[0], "mean_frame": mean}
    return {name: np.broadcast_to(still, truth.shape) for name, still in stills.items() if still is not None}


def generate(
    pipeline: ManiVideoPipeline,
    window: ClipWindow,
    config: EvaluateConfig,
    clip: str,
    first_object: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] generated from a window's conditions; `first_object` [h, w, 3] is f_8's picture.

    clip: its name, on which the noise depends.
    """
    conditions = conditions_from_window(
        window,
        pipeline.codec,
        pipeline.image_encoder,
        first_object=config.first_object if first_object is None else first_object,
        device=pipeline._execution_device,
    )
    output = pipeline(conditions, config, noise_of(clip, config.seed))
    return np.rint(output.frames[0] * 255.0).astype(np.uint8)


def noise_of(clip: str, seed: int) -> torch.Generator:
    """A generator for each clip, on the CPU: the same for any model and device."""
    return seeded_generator([seed, *clip.encode()])


def mean_rows(dataset: Dataset, split: str, most: int) -> list[ClipRow]:
    """Rows of a split whose frames make the mean frame: at most so many of those with hands and object."""
    rows = [row for row in dataset.rows(split) if row.has_hands and row.has_object]
    return sorted(rows, key=lambda row: digest_bytes(row.id.encode()))[:most] if len(rows) > most else rows


def mean_frame(dataset: Dataset, rows: Sequence[ClipRow], frames_per_clip: int) -> NDArray[np.uint8] | None:
    """Mean [H, W, 3] of evenly spaced frames of `mean_rows`; None where there are none."""
    total, count = np.zeros(()), 0
    for row in rows:
        frames = dataset.read_pictures(row, 0, *row.spaced(frames_per_clip))
        total, count = total + frames.sum(axis=0, dtype=np.float64), count + len(frames)
    return np.rint(total / count).astype(np.uint8) if count else None


def check_sizes(clips: Iterable[tuple[Dataset, ClipRow]]) -> None:
    """Raise InputError where clips differ in size: one mean frame is held against all of them."""
    sizes = {dataset.size(row): f"{row.id} of {dataset.manifest.name}" for dataset, row in clips}
    if len(sizes) > 1:
        found = ", ".join(f"{h} by {w} ({clip})" for (h, w), clip in sorted(sizes.items()))
        raise InputError(f"size: found {found}, wanted one size for all clips", code="frame-size")


def trained_beside(split: str) -> str:
    """Name of the split to train on where `split` is evaluated, both by sequence, object or participant."""
    by, colon, _ = split.rpartition(":")
    return f"{by}{colon}train"
