"""What one run of the ablation comes to: figures of every test clip, on four areas, and some frames.

The hand-object area is that of every evaluation. The hidden-finger area is where a finger lies behind the
visible surface, as the thirteen layers tell, widened by a margin: there, what is seen depends on what is not.
Elsewhere is the rest of the hand-object area, where no finger is hidden. The object area is where the object
is what one sees. FID and MPJPE are of the hand-object area alone.
What no network is needed for is measured once for all runs, as rows that have the same form as a run's.
Letters: T frames, H rows, W columns.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.ablate import AREAS, AblateConfig, AblationRun, AblationTest, Area, stage_settings
from flows.generate import fastest_device, load_pipeline
from flows.lineage import not_held_out, of_dataset
from flows.pictures import Picture, composite_picture, file_name, save_png
from flows.stamps import changes, remove_stamp, write_stamp
from flows.train import STAMP as TRAINING_STAMP
from flows.train import code_digest, stamped_settings
from model.evaluate import (
    after_first,
    baselines,
    check_sizes,
    generate,
    mean_frame,
    mean_rows,
    read_clip,
    with_truth,
)
from model.figures import Figures, Metrics, available
from model.pipeline import ManiVideoPipeline
from render import occlusion
from render.occlusion import hidden_fingers, visible_object
from storage.config import read_json
from storage.dataset import ClipWindow, Dataset, dilate
from storage.digests import digest_file
from storage.durable import write_text
from storage.errors import InputError
from storage.manifest import ClipRow, Manifest
from storage.store import Store

FIGURES, STAMP, PICTURES = "figures.json", "measured-from.json", "pictures"
TRUTH = "truth"  # folder of what no network is needed for
FEATURES = "fid-{}.npy"  # of a test's true frames [n, 2048], in that folder
CODE = code_digest(sys.modules[__name__], occlusion)
MEASURED_BY = {"tests", "sampling", "metrics", "hidden_margin_px", "shown"}  # of the settings
BESIDE = ("layers", "truth")  # pictures that are no variant's


@dataclass(frozen=True)
class MeasuredClip:
    """A clip of a test, as it is measured."""

    row: ClipRow
    window: ClipWindow  # seven layers
    areas: dict[Area, NDArray[np.bool_]]  # [T, H, W]
    px_per_m: NDArray[np.float32]  # f / z [T, 2, 21]

    @property
    def shown_frame(self) -> int:
        """The frame of the comparison: the one with the most hidden finger pixels, or the most pixels."""
        hidden = self.areas["hidden_fingers"]
        most = hidden if hidden.any() else self.window.mask
        return int(most.sum(axis=(1, 2)).argmax())

    def picture(self, test: str) -> str:
        """Name of the file that shows it."""
        return f"{test}-{file_name(self.row.id)}.png"

    @property
    def measured(self) -> slice:
        """Every frame but the first, so that its repetition can be measured beside the others."""
        return after_first(len(self.window.frames))

    def measure(self, metrics: Metrics, frames: NDArray[np.uint8]) -> dict[str, Any]:
        """Return an entry of "clips" in figures.json: figures of frames [T, H, W, 3] on each area."""
        areas: dict[Area, Figures] = {name: self._compare(metrics, frames, name) for name in AREAS}
        there = self.measured
        joints = metrics.joints(frames[there], self.window.joints_2d[there], self.px_per_m[there])
        areas["hand_object"] |= joints
        shows = self.row.object_keys[0] if self.row.object_keys else self.row.session
        return {"id": self.row.id, "shows": shows, "areas": areas}

    def _compare(self, metrics: Metrics, frames: NDArray[np.uint8], name: Area) -> Figures:
        """Figures on an area, with its pixels; None where one is undefined."""
        area, truth = self.areas[name][self.measured], self.window.frames[self.measured]
        return {**metrics.compare(frames[self.measured], truth, area), "pixels": int(area.sum())}

    def fid_features(self, metrics: Metrics, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return what FID looks at of frames [T, H, W, 3]."""
        shown = np.ascontiguousarray(frames[self.measured])
        return metrics.fid_features(shown, self.areas["hand_object"][self.measured])


def clips_of(test: AblationTest, store: Store, notes: dict[str, str]) -> list[ClipRow]:
    """Return a test's clips that have true frames; `notes` names those that have none."""
    rows = [
        row for row in Dataset.open(store, test.dataset).rows("test") if row.has_hands == (test.of == "hands")
    ]
    return with_truth(rows, test.dataset, notes)


def read_clips(
    test: AblationTest, config: AblateConfig, store: Store, notes: dict[str, str]
) -> Iterator[MeasuredClip]:
    """Read a test's clips, each with the areas that its figures are of."""
    folded, apart = (Dataset.open(store, test.dataset, layers=layers) for layers in (7, 13))
    for row in clips_of(test, store, notes):
        window, confidence = read_clip(folded, row, config.sampling), read_clip(apart, row, config.sampling)
        hidden = dilate(hidden_fingers(confidence.confidence), config.hidden_margin_px)
        areas: dict[Area, NDArray[np.bool_]] = {
            "hand_object": window.mask,
            "hidden_fingers": hidden,
            "elsewhere": window.mask & ~hidden,
            "object": visible_object(confidence.confidence),
        }
        px_per_m = folded.joint_px_per_m(row, 0, len(window.frames), config.sampling.stride)
        yield MeasuredClip(row, window, areas, px_per_m)


def check_tests(config: AblateConfig, store: Store) -> None:
    """Raise InputError where a test has no clips to be measured on, or one that is trained on, where pictures
    have several sizes, or public weights are broken."""
    trained: dict[str, list[ClipRow]] = {}
    clips: list[tuple[Dataset, ClipRow]] = []
    for stage in filter(None, (config.image, config.temporal)):
        dataset = Dataset.open(store, stage.dataset)
        drawn = dataset.rows(stage.split)
        place = f"{stage.stage}.split {stage.split} of {stage.dataset}"
        trained[place] = of_dataset(drawn, dataset.manifest.name)
        clips += [(dataset, row) for row in drawn]
    for name, test in config.tests.items():
        dataset = Dataset.open(store, test.dataset)
        rows = clips_of(test, store, notes={})
        for place, drawn in trained.items():
            if seen := not_held_out(of_dataset(rows, dataset.manifest.name), drawn):
                found = f"found {min(seen)}, or what is nearly it, in {place}"
                raise InputError(f"tests.{name}: {found}, wanted clips that are held out", code="config")
        clips += [(dataset, row) for row in rows]
    check_sizes(clips)
    available(config.metrics)


def measured_runs(runs: Sequence[AblationRun], out_dir: Path) -> tuple[list[AblationRun], list[AblationRun]]:
    """Return the runs that were measured as what needs no network was, and those with figures of before."""
    there = [run for run in runs if (run.folder / STAMP).is_file()]
    truth = out_dir / TRUTH / STAMP
    now = digest_file(truth) if truth.is_file() else None
    current = [run for run in there if read_json(run.folder / STAMP)["truth"] == now]
    return current, [run for run in there if run not in current]


def other_settings(runs: Sequence[AblationRun], config: AblateConfig, out_dir: Path) -> list[str]:
    """Return the settings, by dotted names, that truth or one of some runs was made with others of."""
    truth = read_json(out_dir / TRUTH / STAMP)["config"]
    found = set(_differences(truth, config.model_dump(mode="json", include=MEASURED_BY)))
    for run in runs:
        for stage, run_dir in stage_settings(run, config):
            if (run_dir / TRAINING_STAMP).is_file():
                made_from = read_json(run_dir / TRAINING_STAMP)["config"]
                found.update(_differences(made_from, stamped_settings(stage), f"{stage.stage}."))
    return sorted(found)


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the names that both have and whose values differ."""
    for key in then.keys() & now.keys():
        if isinstance(then[key], dict) and isinstance(now[key], dict):
            yield from _differences(then[key], now[key], f"{prefix}{key}.")
        elif then[key] != now[key]:
            yield prefix + key


def measure_where_changed(model_dir: Path, run: AblationRun, config: AblateConfig, store: Store) -> Path:
    """Measure a run's model on all tests unless that is done; return the file of its figures."""
    inputs = _measured_from(model_dir, run)
    if is_measured(model_dir, run):
        return run.folder / FIGURES
    truth = run.folder.parents[1] / TRUTH
    remove_stamp(run.folder / STAMP)
    shutil.rmtree(run.folder / PICTURES, ignore_errors=True)
    pipeline = load_pipeline(model_dir)
    metrics = Metrics(config.metrics, pipeline._execution_device)
    tests = {
        name: measure_test(
            pipeline, metrics, name, np.load(truth / FEATURES.format(name)), run, config, store
        )
        for name in config.tests
    }
    figures = {
        "parameters": pipeline.network.num_parameters(),
        "calibrated": metrics.calibrated,
        "notes": metrics.notes,
        "tests": tests,
    }
    return _finish(run.folder, figures, inputs)


def is_measured(model_dir: Path, run: AblationRun) -> bool:
    """Tell whether a run's figures are there, of this model and of the true frames as they are."""
    current = not changes(run.folder / STAMP, _measured_from(model_dir, run))
    return current and (run.folder / FIGURES).is_file()


def _measured_from(model_dir: Path, run: AblationRun) -> dict[str, str]:
    """Return all that decides a run's figures."""
    return {
        "model": digest_file(model_dir.parent / TRAINING_STAMP),
        "truth": digest_file(run.folder.parents[1] / TRUTH / STAMP),
    }


def measure_test(
    pipeline: ManiVideoPipeline,
    metrics: Metrics,
    name: str,
    true_features: NDArray[np.float32],
    run: AblationRun,
    config: AblateConfig,
    store: Store,
) -> dict[str, Any]:
    """Generate and measure every clip of a test; keep a frame of the first few."""
    test = config.tests[name]
    given = Dataset.open(store, test.dataset, layers=pipeline.network.settings.num_layers)
    clips, features = [], []
    for number, clip in enumerate(read_clips(test, config, store, metrics.notes)):
        frames = generate(pipeline, read_clip(given, clip.row, config.sampling), config.sampling, clip.row.id)
        clips.append(clip.measure(metrics, frames))
        features.append(clip.fid_features(metrics, frames))
        if number < config.shown:
            _keep(frames[clip.shown_frame], run.folder / PICTURES, clip.picture(name))
    return {"clips": clips, "fid": metrics.fid(np.concatenate(features), true_features)}


def measure_truth(config: AblateConfig, store: Store, out_dir: Path) -> Path:
    """Measure what needs no network; return the file of its figures.

    The rows: the true first frame and the mean training frame, repeated, and the true frames themselves, of
    which only the joints say something. What FID compares with is kept, and the true pictures and layers.
    """
    folder = out_dir / TRUTH
    inputs = _truth_measured_from(config, store)
    remove_stamp(folder / STAMP)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    metrics = Metrics(config.metrics, fastest_device())
    trained_on = Dataset.open(store, config.image.dataset)
    averaged = mean_rows(
        trained_on, config.sampling.train_split or config.image.split, config.sampling.mean_clips
    )
    mean = mean_frame(trained_on, averaged, config.sampling.mean_frames_per_clip)
    rows: dict[str, dict[str, Any]] = {}
    for name in config.tests:
        found = _measure_truth_of(metrics, name, mean, folder, config, store)
        for row, figures in found.items():
            rows.setdefault(row, {"tests": {}})["tests"][name] = figures
    figures = {"calibrated": metrics.calibrated, "notes": metrics.notes, "rows": rows}
    return _finish(folder, figures, inputs)


def is_truth_measured(config: AblateConfig, store: Store, out_dir: Path) -> bool:
    """Tell whether the figures are there that need no network, as settings, data and code say now."""
    current = not changes(out_dir / TRUTH / STAMP, _truth_measured_from(config, store))
    return current and (out_dir / TRUTH / FIGURES).is_file()


def _truth_measured_from(config: AblateConfig, store: Store) -> dict[str, Any]:
    """Return all that decides the figures that need no network, and with the model those of a run."""
    return {
        "datasets": {
            name: Manifest.read(store, name).version
            for name in (config.image.dataset, *(test.dataset for test in config.tests.values()))
        },
        "config": config.model_dump(mode="json", include=MEASURED_BY),
        "averaged": config.image.split,  # where sampling.train_split names no other
        "available": available(config.metrics),
        "code": CODE,
    }


def _measure_truth_of(
    metrics: Metrics,
    name: str,
    mean: Picture | None,
    folder: Path,
    config: AblateConfig,
    store: Store,
) -> dict[str, dict[str, Any]]:
    """Return a test's figures by row, each in the form of a run's; mean: the mean training frame, if any."""
    clips: dict[str, list[dict[str, Any]]] = {}
    features: dict[str, list[NDArray[np.float32]]] = {}
    for number, clip in enumerate(read_clips(config.tests[name], config, store, metrics.notes)):
        truth = clip.window.frames
        for shown, frames in {**baselines(truth, mean), TRUTH: truth}.items():
            clips.setdefault(shown, []).append(clip.measure(metrics, frames))
            features.setdefault(shown, []).append(clip.fid_features(metrics, frames))
        if number < config.shown:
            frame = clip.shown_frame
            _keep(truth[frame], folder / PICTURES / "truth", clip.picture(name))
            layers = composite_picture(clip.window.normals[frame], clip.window.confidence[frame])
            _keep(layers, folder / PICTURES / "layers", clip.picture(name))
    seen = {shown: np.concatenate(each) for shown, each in features.items()}
    np.save(folder / FEATURES.format(name), seen[TRUTH])
    return {shown: {"clips": clips[shown], "fid": metrics.fid(seen[shown], seen[TRUTH])} for shown in clips}


def _finish(folder: Path, figures: Mapping[str, Any], inputs: Mapping[str, Any]) -> Path:
    """Write figures, then the stamp that says what they were made from."""
    path = folder / FIGURES
    write_text(path, json.dumps(figures, indent=2, allow_nan=False) + "\n")
    write_stamp(folder / STAMP, inputs)
    return path


def _keep(picture: Picture, folder: Path, name: str) -> None:
    """Write a frame for the comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    save_png(picture, folder / name)
