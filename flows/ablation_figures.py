"""What one run of the ablation comes to: figures of every test clip, on three areas, and some frames.

The hand-object area is that of every evaluation. The hidden-finger area is where a finger lies behind the
visible surface, as the thirteen layers tell, widened by a margin: there, what is seen depends on what is not.
The object area is where the object is what one sees.
Letters: T frames, H rows, W columns.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.ablate import AblateConfig, AblationRun, Area
from flows.generate import load_pipeline
from flows.pictures import Picture, composite_picture, save_png
from flows.stamps import changes, write_stamp
from flows.train import STAMP as TRAINING_STAMP
from flows.train import code_digest
from model.evaluate import baselines, generate, mean_frame, read_clip, with_truth
from model.figures import PICTURE_FIGURES, Figures, Metrics
from model.metrics_weights import ALEXNET, locate
from model.pipeline import ManiVideoPipeline
from render import occlusion
from render.occlusion import hidden_fingers, visible_object
from storage import dataset
from storage.dataset import ClipWindow, Dataset, dilate
from storage.digests import digest_file
from storage.errors import InputError
from storage.manifest import ClipRow, Manifest
from storage.store import Store

FIGURES, STAMP, PICTURES = "figures.json", "measured-from.json", "pictures"
MEASURED_BY = {"tests", "sampling", "metrics", "hidden_margin_px", "shown"}  # of the settings
BESIDE = ("layers", "truth")  # pictures that are no variant's
GENERATED = "generated"  # what a clip's figures are of, beside the baselines


def measure_where_changed(model_dir: Path, run: AblationRun, config: AblateConfig, store: Store) -> Path:
    """Measure a run's model on all tests unless that is done; return the file of its figures."""
    inputs = {
        "model": digest_file(model_dir.parent / TRAINING_STAMP),
        "datasets": {name: Manifest.read(store, name).version for name in config.tests.values()},
        "config": config.model_dump(mode="json", include=MEASURED_BY),
        "calibrated": locate(ALEXNET, config.metrics.weights) is not None,
        "code": code_digest(sys.modules[__name__], occlusion, dataset),
    }
    path = run.folder / FIGURES
    if path.is_file() and not changes(run.folder / STAMP, inputs):
        return path
    shutil.rmtree(run.folder / PICTURES, ignore_errors=True)
    pipeline = load_pipeline(model_dir)
    metrics = Metrics(config.metrics, pipeline._execution_device)
    trained_on = Dataset.open(store, config.image.dataset)
    mean = mean_frame(trained_on, trained_on.rows(config.image.split), config.sampling.mean_frames_per_clip)
    tests = {test: measure_test(pipeline, metrics, test, mean, run, config, store) for test in config.tests}
    figures = {
        "parameters": pipeline.network.num_parameters(),
        "calibrated": metrics.calibrated,
        "notes": metrics.notes,
        "tests": tests,
    }
    path.write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    write_stamp(run.folder / STAMP, inputs)
    return path


def check_tests(config: AblateConfig, store: Store) -> None:
    """Raise InputError where a test has no clips to be measured on, or public weights are broken.

    All pictures have one size: the mean training frame is held against every test's.
    """
    trained_on = Dataset.open(store, config.image.dataset)
    sizes = {trained_on.size(row) for row in trained_on.rows(config.image.split)}
    for name in config.tests.values():
        dataset = Dataset.open(store, name)
        sizes |= {dataset.size(row) for row in clips_of_hands(dataset, notes={})}
    if len(sizes) > 1:
        names = ", ".join({config.image.dataset: None} | dict.fromkeys(config.tests.values()))
        raise InputError(f"datasets {names}: sizes: found {sorted(sizes)}, wanted one", code="frame-size")
    locate(ALEXNET, config.metrics.weights)


def clips_of_hands(dataset: Dataset, notes: dict[str, str]) -> list[ClipRow]:
    """Return the clips of hands of a test that have true frames; `notes` names those that have none."""
    rows = [row for row in dataset.rows("test") if row.has_hands]
    return with_truth(rows, dataset.manifest.name, notes)


def measure_test(
    pipeline: ManiVideoPipeline,
    metrics: Metrics,
    test: str,
    mean: Picture | None,
    run: AblationRun,
    config: AblateConfig,
    store: Store,
) -> list[dict[str, Any]]:
    """Generate and measure every clip of a test, and the baselines beside it; keep a frame of the first few.

    mean: the mean training frame, if any.
    """
    name = config.tests[test]
    given = Dataset.open(store, name, layers=pipeline.network.settings.num_layers)
    folded, apart = Dataset.open(store, name), Dataset.open(store, name, layers=13)
    rows = clips_of_hands(given, metrics.notes)
    measured = []
    for number, row in enumerate(rows):
        window = read_clip(given, row, config.sampling)
        confidence = read_clip(apart, row, config.sampling).confidence
        hidden = dilate(hidden_fingers(confidence), config.hidden_margin_px)
        generated = generate(pipeline, window, config.sampling)
        areas: dict[Area, NDArray[np.bool_]] = {
            "hand_object": window.mask,
            "hidden_fingers": hidden,
            "object": visible_object(confidence),
        }
        shown = {GENERATED: generated, **baselines(window.frames, mean)}
        measured.append(
            {"id": row.id, "shows": row.object_keys[0] if row.object_keys else row.session}
            | {
                name: {
                    area: compare(metrics, frames, window.frames, inside) for area, inside in areas.items()
                }
                for name, frames in shown.items()
            }
        )
        if number < config.shown:
            frame = int(hidden.sum(axis=(1, 2)).argmax())
            keep(generated[frame], run.folder / PICTURES, test, row)
            beside = run.folder.parents[1] / PICTURES
            keep(window.frames[frame], beside / "truth", test, row)
            keep(_composite(read_clip(folded, row, config.sampling), frame), beside / "layers", test, row)
    return measured


def compare(
    metrics: Metrics, generated: NDArray[np.uint8], truth: NDArray[np.uint8], area: NDArray[np.bool_]
) -> Figures:
    """Figures of frames [T, H, W, 3] on area [T, H, W], with its pixels; None where one is undefined."""
    found = metrics.compare(generated, truth, area) if area.any() else dict.fromkeys(PICTURE_FIGURES)
    return {**found, "pixels": int(area.sum())}


def keep(picture: Picture, folder: Path, test: str, row: ClipRow) -> None:
    """Write a frame for the comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    save_png(picture, folder / f"{test}-{row.id.replace('/', '-')}.png")


def _composite(window: ClipWindow, frame: int) -> Picture:
    return composite_picture(window.normals[frame], window.confidence[frame])
