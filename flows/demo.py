"""The demo: the whole job on one machine, from objects to a generated video of a held-out session."""

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from flows.build import BuildConfig
from flows.console import stderr
from flows.evaluate import PAGES, VIDEOS, Evaluation, EvaluationConfig
from flows.ingest import IngestConfig
from flows.sources import procedural_folder
from flows.synthesize import SynthesizeConfig
from model.training_config import TrainConfig
from storage.errors import InputError
from storage.manifest import ClipRow, Manifest, Quarantined
from storage.store import Store


class DemoConfig(BaseModel, frozen=True, extra="forbid"):
    """The settings of every stage."""

    objects: Path | None = None
    """Folder of .glb and .gltf files; null: procedural objects."""
    procedural: int = Field(default=8, ge=1)
    """Number of procedural objects, where no folder is given."""
    build: BuildConfig
    """Object-only clips; its objects are those above."""
    synthesize: SynthesizeConfig
    """Synthetic sessions; their objects are those above."""
    ingest: IngestConfig
    """Their layers and frames."""
    image: TrainConfig
    """The image stage."""
    temporal: TrainConfig
    """The temporal stage; starts from the image stage's result."""
    evaluate: EvaluationConfig
    """What is generated and compared."""


@dataclass
class Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Name and time what happens inside."""
        stderr.print(f"{name} …", highlight=False)
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


@dataclass(frozen=True)
class DemoResult:
    """What the demo made."""

    clip: str  # the held-out clip that was generated
    files: dict[str, Path]
    metrics: dict[str, Any]
    done: dict[str, str]  # stage → what was done
    seconds: dict[str, float]  # by stage
    quarantined: tuple[Quarantined, ...]  # each input that was set aside, once

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "clip": self.clip,
            "files": {name: str(path) for name, path in self.files.items()},
            "metrics": self.metrics,
            "done": self.done,
            "quarantined": [asdict(entry) for entry in self.quarantined],
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
        }


def placed(config: DemoConfig, out_dir: Path) -> DemoConfig:
    """Return the config with every stage's objects and starting point where they are in `out_dir`."""
    objects = config.objects
    if objects is None:
        objects = procedural_folder(out_dir / "objects", config.procedural, config.build.seed)
    return config.model_copy(
        update={
            "build": config.build.model_copy(update={"objects": objects}),
            "synthesize": config.synthesize.model_copy(update={"objects": objects}),
            "temporal": config.temporal.model_copy(update={"init_from": out_dir / "image" / "model"}),
        }
    )


def each_once(*groups: Iterable[Quarantined]) -> tuple[Quarantined, ...]:
    """Return the inputs set aside in all stages: one file is met by its build and by every session's turn."""
    return tuple({entry.reason: entry for group in groups for entry in group}.values())


def held_out_clip(rows: Sequence[ClipRow]) -> ClipRow:
    """Return a test session's clip, if possible of a camera that no training clip has."""
    trained = {row.camera for row in rows if row.split == "train"}
    tested = [row for row in rows if row.split == "test" and row.has_hands]
    if not tested:
        raise InputError("no session is held out for testing", code="no-clips")
    return min(tested, key=lambda row: (row.camera in trained, row.id))


def collect(
    config: DemoConfig, evaluation: Evaluation, store: Store, out_dir: Path
) -> tuple[str, dict[str, Path]]:
    """Put the held-out clip's videos at the top of `out_dir`; return the clip and the files to look at."""
    row = held_out_clip(Manifest.read(store, config.evaluate.dataset).rows)
    if row.id not in evaluation.clips:
        raise InputError(f"{row.id} is held out but was not evaluated", code="config")
    for name in VIDEOS:
        shutil.copy(evaluation.clips[row.id] / name, out_dir / name)
    return row.id, {name: out_dir / name for name in (*VIDEOS, *PAGES)}
