"""Evaluating a model on a dataset's split: metrics.json, videos, a contact sheet and report.html.

Everything below the output folder, a folder for each clip:

    metrics.json, contact_sheet.png (of the worst clips), report.html
    clips/<clip>/generated.mp4, comparison.mp4 (layers | generated | truth)
"""

import json
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field

from flows import lineage, pictures, report, sheets, sprites
from flows.generate import Precision, load_pipeline
from flows.lineage import clips_trained_on, read_runs
from flows.pictures import (
    Picture,
    column,
    comparison_frames,
    confidence_picture,
    file_name,
    labelled,
    resized,
    row,
    save_png,
)
from flows.report import MOST_CLIPS, Report, write_report
from flows.sheets import views_row
from flows.sprites import ClipSprites, clip_sprites
from flows.stamps import changes, remove_stamp, write_stamp
from flows.train import STAMP as TRAINING_STAMP
from flows.train import code_digest
from model.evaluate import EvaluateConfig, GeneratedClip, evaluate, read_clip, trained_beside, with_truth
from model.figures import Metrics, MetricsConfig, available
from model.run import held
from storage import likeness, splits
from storage.dataset import ClipWindow, Dataset
from storage.digests import digest_file
from storage.durable import write_text
from storage.errors import InputError
from storage.manifest import Manifest
from storage.store import Store
from storage.video import write_video

STAMP = "evaluated-from.json"
PAGES = ("contact_sheet.png", "metrics.json", "report.html")  # of all clips
VIDEOS = ("generated.mp4", "comparison.mp4")  # of each clip
CODE = code_digest(
    *(sys.modules[__name__], lineage, likeness, pictures, report, sheets, splits, sprites), files=report.PARTS
)
PANEL_HEIGHT = 256  # pixels
SHEET_FRAMES = 4  # of each clip


class EvaluationConfig(BaseModel, frozen=True, extra="forbid"):
    """Which clips are evaluated, and how."""

    dataset: str = "captures"
    """Name of the dataset."""
    split: str = "test"
    """Its clips of this split are evaluated."""
    max_clips: int | None = Field(default=None, ge=1)
    """At most so many of them, of those that have true frames; null: all."""
    sampling: EvaluateConfig = EvaluateConfig()
    """What is generated of each clip."""
    precision: Precision = "float32"
    """Arithmetic and weights of the network; the codec stays float32."""
    metrics: MetricsConfig = MetricsConfig()
    """What is measured of it."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation wrote."""

    metrics: dict[str, Any]  # metrics.json
    clips: dict[str, Path]  # clip → its folder
    report: Path


def evaluate_model(model_dir: Path, config: EvaluationConfig, store: Store, out_dir: Path) -> Evaluation:
    """Generate and compare the clips of a split, and write what people look at.

    InputError where there is nothing to evaluate, or another process is at work in the folder.
    """
    pipeline = load_pipeline(model_dir, config.precision)
    dataset = Dataset.open(store, config.dataset, layers=pipeline.network.settings.num_layers)
    rows = dataset.rows(config.split)
    if not rows:
        known = ", ".join(dataset.splits()) or "none"
        message = f"dataset {config.dataset}: no clips of split {config.split!r} (there are: {known})"
        raise InputError(message, code="no-clips")
    available(config.metrics)  # weights that are broken are told before the first clip
    clips = ClipPictures(out_dir, Dataset.open(store, config.dataset), config.sampling)
    measures = Metrics(config.metrics, pipeline._execution_device)
    rows = with_truth(rows, config.dataset, measures.notes)[: config.max_clips]
    runs = read_runs(model_dir)
    measures.notes |= clips_trained_on(rows, config.dataset, config.split, runs, store)
    sampling = config.sampling.model_copy(
        update={"train_split": config.sampling.train_split or trained_beside(config.split)}
    )
    with held(out_dir):
        try:
            metrics = evaluate(pipeline, dataset, rows, sampling, clips.add, measures).metrics
        except KeyboardInterrupt:
            raise KeyboardInterrupt("stopped; an evaluation begins with its first clip again") from None
        write_text(out_dir / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False) + "\n")
        save_png(column(list(clips.sheets.values())), out_dir / "contact_sheet.png")
        write_report(_report(config, metrics, clips, runs), out_dir / "report.html")
    return Evaluation(metrics, clips.folders, out_dir / "report.html")


def _report(
    config: EvaluationConfig,
    metrics: dict[str, Any],
    clips: "ClipPictures",
    runs: Mapping[str, lineage.TrainingRun],
) -> Report:
    """Return the page about an evaluation of a model that went through `runs`."""
    return Report(
        title=f"Evaluation of {config.dataset}, split {config.split}",
        summary=f"{len(metrics['clips'])} clips; all figures are of the hand-object area alone.",
        metrics=metrics,
        sprites=clips.worst,
        losses={stage: run.losses for stage, run in runs.items()},
        configs={
            "evaluation": yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
            **{f"{stage} stage": run.text for stage, run in runs.items()},
        },
    )


class ClipPictures:
    """Writes each clip's videos as it is generated, and keeps what the pages show of it."""

    def __init__(self, out_dir: Path, folded: Dataset, sampling: EvaluateConfig) -> None:
        self.out_dir, self.sampling = out_dir, sampling
        self.dataset = folded  # seven layers, as pictures show them
        self.folders: dict[str, Path] = {}
        self.worst: dict[str, ClipSprites] = {}  # MOST_CLIPS of them
        self.sheets: dict[str, Picture] = {}  # of the same clips
        self._psnr: dict[str, float] = {}

    def add(self, clip: GeneratedClip) -> None:
        """Take a clip; with the first one an older result in the folder goes."""
        if not self.folders:
            remove_result(self.out_dir)
        name, fps = clip.row.id, clip.row.fps / self.sampling.stride
        window = read_clip(self.dataset, clip.row, self.sampling)
        self.folders[name] = clip_folder(self.out_dir, name)
        self.sheets[name] = write_clip(clip, window, self.folders[name], fps)
        self.worst[name] = clip_sprites(clip, window, fps)
        self._psnr[name] = math.inf if clip.figures["psnr"] is None else clip.figures["psnr"]
        if len(self.worst) > MOST_CLIPS:
            best = max(self.worst, key=self._psnr.__getitem__)
            del self.worst[best], self.sheets[best]


def evaluate_where_changed(
    model_dir: Path, config: EvaluationConfig, store: Store, out_dir: Path
) -> tuple[Evaluation, bool]:
    """Evaluate unless `out_dir` holds the result; return it and whether anything was evaluated."""
    inputs = {
        "model": digest_file(model_dir.parent / TRAINING_STAMP),
        "dataset": Manifest.read(store, config.dataset).version,
        "config": config.model_dump(mode="json"),
        "available": available(config.metrics),
        "code": CODE,
    }
    there = None if changes(out_dir / STAMP, inputs) else read_evaluation(out_dir)
    if there is not None:
        return there, False
    evaluation = evaluate_model(model_dir, config, store, out_dir)
    write_stamp(out_dir / STAMP, inputs)
    return evaluation, True


def read_evaluation(out_dir: Path) -> Evaluation | None:
    """Return what an earlier evaluation wrote; None where a file of it is gone."""
    if not all((out_dir / name).is_file() for name in PAGES):
        return None
    metrics = json.loads((out_dir / "metrics.json").read_text())
    folders = {clip["id"]: clip_folder(out_dir, clip["id"]) for clip in metrics["clips"]}
    if not all((folder / name).is_file() for folder in folders.values() for name in VIDEOS):
        return None
    return Evaluation(metrics, folders, out_dir / "report.html")


def remove_result(out_dir: Path) -> None:
    """Remove what an earlier evaluation wrote, so that nothing of it stands beside another's."""
    remove_stamp(out_dir / STAMP)
    for page in PAGES:
        (out_dir / page).unlink(missing_ok=True)
    for folder in (out_dir / "clips").glob("*"):
        for video in VIDEOS:
            (folder / video).unlink(missing_ok=True)
        with suppress(OSError):  # somebody put something else there
            folder.rmdir()


def clip_folder(out_dir: Path, clip: str) -> Path:
    """Return the folder of a clip's videos."""
    return out_dir / "clips" / file_name(clip)


def write_clip(clip: GeneratedClip, window: ClipWindow, folder: Path, fps: float) -> Picture:
    """Write a generated clip's videos; return a sheet of its object's six views and some of its frames."""
    folder.mkdir(parents=True, exist_ok=True)
    videos = {"generated": clip.generated, "truth": clip.truth}
    frames = list(comparison_frames(window.normals, window.confidence, videos, PANEL_HEIGHT))
    write_video(folder / "generated.mp4", clip.generated, fps)
    write_video(folder / "comparison.mp4", frames, fps)
    lines = [labelled(views_row(window.views), clip.row.id)]
    for index in range(0, len(frames), max(len(frames) // SHEET_FRAMES, 1))[:SHEET_FRAMES]:
        nearest = confidence_picture(window.confidence[index].max(axis=0))
        confidence = labelled(resized(nearest, PANEL_HEIGHT), "confidence of the nearest layer")
        lines.append(row([frames[index], confidence]))
    return column(lines)
