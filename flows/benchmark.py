"""The benchmark of the method: occlusion-heavy bimanual clips that anyone can make again (paper, Sec. 4.3).

Two datasets come of it. The first has object-only clips of many objects, and training sessions of a few of
them (data sets of hands have few, which is what object-only data is for) and new motions of these few; the
second has sessions of objects that nothing in the first shows, and object-only clips of these. How much of
the fingers is hidden is measured, and a digest of every array tells whether two copies are the same.
Letters: T frames, L = 13 layers.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, model_validator

from flows.batches import map_items
from flows.build import BuildConfig
from flows.ingest import IngestConfig
from flows.sources import procedural_folder
from flows.synthesize import SynthesizeConfig
from render.occlusion import count_hidden, hidden_shares
from storage.dataset import Dataset
from storage.digests import digest_arrays, digest_json
from storage.durable import write_text
from storage.errors import InputError
from storage.likeness import groups, shape_signature
from storage.manifest import ClipRow
from storage.sources.glb import load_glb
from storage.store import Store

UNSEEN = "-unseen"  # ends the name of the second dataset
SETS = ("train", "seen", "unseen")
RESULT = "benchmark.json"


class BenchmarkConfig(BaseModel, frozen=True, extra="forbid"):
    """Objects, sessions and records of the benchmark."""

    dataset: str = "benchmark"
    """Name of the dataset to train on and to test seen objects on; that of unseen ones is `<name>-unseen`."""
    procedural: int = Field(default=48, ge=2)
    """Number of procedural objects; those trained on alone are all but those like an unseen one."""
    seen: int = Field(default=18, ge=1)
    """The first so many are in the training sessions."""
    unseen: int = Field(default=6, ge=1)
    """The next so many are in the unseen-object test."""
    sessions: dict[str, PositiveInt] = {"train": 36, "seen": 6, "unseen": 6}
    """Sessions of each set; the set's objects take turns."""
    seed: NonNegativeInt = 0
    """Seeds objects and sessions."""
    build: BuildConfig = BuildConfig()
    """Object-only clips."""
    synthesize: SynthesizeConfig = SynthesizeConfig()
    """What all sessions share."""
    ingest: IngestConfig = IngestConfig()
    """Layers and frames of the sessions."""

    @model_validator(mode="after")
    def _enough_objects(self) -> Self:
        if self.seen + self.unseen > self.procedural:
            raise ValueError(f"{self.seen} seen and {self.unseen} unseen objects of {self.procedural}")
        if set(self.sessions) != set(SETS):
            raise ValueError(f"sessions: wanted {', '.join(SETS)}, found {', '.join(self.sessions)}")
        return self


@dataclass(frozen=True)
class BenchmarkPlan:
    """The steps that make the benchmark."""

    build: dict[str, BuildConfig]  # by dataset's name
    synthesize: dict[str, SynthesizeConfig]  # by set
    ingest: dict[str, IngestConfig]  # by dataset's name


def plan(config: BenchmarkConfig, out_dir: Path) -> BenchmarkPlan:
    """Write the objects below `out_dir`, those seen and unseen apart; return what is to be made of them."""
    everything = procedural_folder(out_dir / "objects", config.procedural, config.seed)
    files = sorted(everything.glob("*.glb"))
    sets = _object_sets(files, config)
    folders = {name: _copied(group, out_dir / "objects" / name) for name, group in sets.items()}
    synthesize = {}
    for number, name in enumerate(SETS):
        settings: dict[str, Any] = {
            "objects": folders["unseen" if name == "unseen" else "seen"],
            "sessions": config.sessions[name],
            "held_out": 0 if name == "train" else config.sessions[name],
            "seed": len(SETS) * config.seed + number,
        }
        synthesize[name] = config.synthesize.model_copy(update=settings)
    names = (config.dataset, config.dataset + UNSEEN)
    build = {
        name: config.build.model_copy(
            update={"objects": folders[group], "dataset": name, "seed": config.seed}
        )
        for name, group in zip(names, ("alone", "unseen"), strict=True)
    }
    build[names[1]] = build[names[1]].model_copy(update={"test_fraction": 1.0})
    return BenchmarkPlan(
        build,
        synthesize,
        {name: config.ingest.model_copy(update={"dataset": name, "prune": True}) for name in names},
    )


def _object_sets(files: Sequence[Path], config: BenchmarkConfig) -> dict[str, list[Path]]:
    """Choose objects for hands, unseen ones and those alone; nothing like an unseen one is trained on."""
    shape = groups({file.name: (shape_signature(load_glb(file)),) for file in files})
    seen = list(files[: config.seen])
    others = [file for file in files if shape[file.name] not in {shape[its.name] for its in seen}]
    unseen = others[: config.unseen]
    if len(unseen) < config.unseen:
        raise InputError.mismatch(
            "benchmark",
            "procedural",
            found=f"{len(others)} shapes unlike the {config.seen} seen ones",
            wanted=config.unseen,
            code="config",
        )
    held_out = {shape[file.name] for file in unseen}
    return {
        "seen": seen,
        "unseen": unseen,
        "alone": [file for file in files if shape[file.name] not in held_out],
    }


def describe(config: BenchmarkConfig, store: Store, out_dir: Path) -> dict[str, Any]:
    """Read every clip once; write and return benchmark.json: the digest, and what is in each set."""
    digests: dict[str, str] = {}
    sets: dict[str, Any] = {}
    for name, (dataset, rows) in _clips(config, store).items():
        measured = map_items(
            partial(_measure, dataset), rows, workers=config.ingest.workers, description=f"measuring {name}"
        )
        digests |= {row.id: digest for row, (digest, _) in zip(rows, measured, strict=True)}
        counts = sum((counter for _, counter in measured), Counter[str]())
        sets[name] = {
            "clips": len(rows),
            "sessions": len({row.session for row in rows}),
            "objects": len({key for row in rows for key in row.object_keys}),
            "frames": sum(row.num_frames for row in rows),
            "finger_pixels": {key: round(share, 4) for key, share in hidden_shares(counts).items()},
        }
    result = {"digest": digest_json(digests), "sets": sets}
    write_text(out_dir / RESULT, json.dumps(result, indent=2) + "\n")
    return result


def _measure(dataset: Dataset, row: ClipRow) -> tuple[str, Counter[str]]:
    """Return the digest of all that a clip gives a reader, and its counts of finger pixels."""
    window = dataset.read(row, 0, row.num_frames)
    parts = {field.name: getattr(window, field.name) for field in fields(window)}
    arrays = {name: part for name, part in parts.items() if part is not None}  # nobody's skeleton
    return digest_arrays(arrays), Counter(count_hidden(window.confidence))


def _clips(config: BenchmarkConfig, store: Store) -> dict[str, tuple[Dataset, list[ClipRow]]]:
    """Return the clips of each set, and those of objects alone."""
    seen, unseen = (
        Dataset.open(store, name, layers=13) for name in (config.dataset, config.dataset + UNSEEN)
    )
    hands = {split: [row for row in seen.rows(split) if row.has_hands] for split in ("train", "test")}
    return {
        "train": (seen, hands["train"]),
        "seen": (seen, hands["test"]),
        "unseen": (unseen, [row for row in unseen.rows("test") if row.has_hands]),
        "objects": (seen, [row for row in seen.rows() if not row.has_hands]),
        "unseen objects": (unseen, [row for row in unseen.rows("test") if not row.has_hands]),
    }


def _copied(files: Sequence[Path], folder: Path) -> Path:
    """Make a folder hold these files and no others; return it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in files:
        shutil.copy2(file, folder)
    return folder
