"""Synthetic capture sessions as folders, which `ingest` reads as it reads any other.

A session that is there already, made of the same object, hands and settings, is left as it is.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, model_validator

from flows.batches import map_items
from flows.outcome import set_aside
from flows.sources import load_hands, procedural_folder
from flows.stamps import changes, write_stamp
from render.frames import FramesConfig, render_frames
from render.hands.model import HandModel
from render.hands.skin import glove_colors, skin_colors
from render.scene import Clip
from render.synthesis import SynthesisConfig, SyntheticObject, SyntheticSession, synthesize_clip
from render.trajectories import seed_generator
from storage.manifest import Quarantined
from storage.sources.glb import GlbFolder
from storage.sources.session_writer import write_session

STAMP = "synthesis.json"


class SynthesizeConfig(BaseModel, frozen=True, extra="forbid"):
    """How many sessions to make, and of what."""

    sessions: int = Field(default=1, ge=1)
    """Number of sessions; the objects take turns."""
    held_out: int = Field(default=0, ge=0)
    """The last so many sessions are marked for testing."""
    seed: int = 0
    """Seeds everything; a session's own seed is this and its number."""
    objects: Path | None = None
    """Folder of .glb and .gltf files; null: procedural objects."""
    procedural: int = Field(default=8, ge=1)
    """Number of procedural objects, where no folder is given."""
    cameras: tuple[str, ...] | None = None
    """Cameras kept of those on the arc (camera0, camera1, …); null: all."""
    held_out_cameras: tuple[str, ...] | None = None
    """The same for the sessions that are held out."""
    mano: Path | None = None
    """Folder of MANO_LEFT.pkl and MANO_RIGHT.pkl; null: the procedural hand."""
    synthesis: SynthesisConfig = SynthesisConfig()
    """Motion and cameras."""
    frames: FramesConfig = FramesConfig()
    """Drawing of the videos; each session has its own light."""
    workers: int = Field(default=2, ge=1)
    """Sessions in work at the same time."""

    @model_validator(mode="after")
    def _cameras_are_on_the_arc(self) -> Self:
        known = [f"camera{index}" for index in range(self.synthesis.num_cameras)]
        for name in (*(self.cameras or ()), *(self.held_out_cameras or ())):
            if name not in known:
                raise ValueError(f"no camera {name!r} on the arc: there are {', '.join(known)}")
        return self


@dataclass(frozen=True)
class SynthesizeJob:
    """What making one session needs beside its number."""

    config: SynthesizeConfig
    out_dir: Path
    source: GlbFolder
    hands: Mapping[str, HandModel]
    hand_model: str  # digest


@dataclass(frozen=True)
class Synthesized:
    """Folders of sessions, those among them that were made just now, and objects that no hand could hold."""

    folders: tuple[Path, ...] = ()
    made: tuple[Path, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "sessions": [str(folder) for folder in self.folders],
            "built": {"session": len(self.made)},
            "cached": {"session": len(self.folders) - len(self.made)},
            "quarantined": [asdict(entry) for entry in self.quarantined],
            "seconds": round(seconds, 2),
        }


def synthesize_sessions(numbers: list[int], config: SynthesizeConfig, out_dir: Path) -> Synthesized:
    """Make the sessions of some numbers below `out_dir`, where they are missing or outdated."""
    procedural = out_dir / ".procedural"  # hidden: all that is seen in a folder of sessions is one
    folder = config.objects or procedural_folder(procedural, config.procedural, config.seed)
    hands = load_hands(config.mano)
    job = SynthesizeJob(config, out_dir, GlbFolder(folder), hands.models, hands.digest)
    results = map_items(
        lambda number: synthesize_session(number, job),
        numbers,
        workers=config.workers,
        description="synthetic sessions",
    )
    return join(results)


def join(results: Sequence[Synthesized]) -> Synthesized:
    """Add results up."""
    return Synthesized(
        folders=tuple(folder for result in results for folder in result.folders),
        made=tuple(folder for result in results for folder in result.made),
        quarantined=tuple(entry for result in results for entry in result.quarantined),
    )


def synthesize_session(number: int, job: SynthesizeJob) -> Synthesized:
    """Make one session with the first object, from its turn on, that a hand can hold."""
    names = job.source.ids()
    turn = number % len(names)
    folder = job.out_dir / f"synthetic-{_seed(number, job.config)}"
    quarantined: list[Quarantined] = []
    for name in [*names[turn:], *names[:turn]]:
        try:
            inputs = _inputs(number, name, job)
            if is_current(folder, inputs):
                return Synthesized((folder,), (), tuple(quarantined))
            session = _simulate(number, name, inputs["object"], job)
        except ValueError as error:  # the file cannot be read, or no hand can hold what is in it
            quarantined += set_aside(name, error).quarantined
        else:
            write(folder, session, inputs, job)
            return Synthesized((folder,), (folder,), tuple(quarantined))
    return Synthesized(quarantined=tuple(quarantined))


def is_current(folder: Path, inputs: Mapping[str, Any]) -> bool:
    """Tell whether a session was made of these inputs; refuse a folder that something else has made."""
    if not folder.exists():
        return False
    if not (folder / STAMP).is_file():
        raise FileExistsError(f"{folder} is there already and was not synthesized: move it away")
    return not changes(folder / STAMP, inputs)


def write(folder: Path, session: SyntheticSession, inputs: Mapping[str, Any], job: SynthesizeJob) -> None:
    """Render the videos of the cameras that are kept, and write the session in place of an outdated one."""
    names = inputs["cameras"] or tuple(session.clip.cameras)
    clip = replace(
        session.clip,
        cameras={name: session.clip.cameras[name] for name in names},
        backgrounds={name: session.clip.backgrounds[name] for name in names},
        split=inputs["split"],
    )
    config = job.config.frames.model_copy(update={"lighting": session.lighting})
    seed, gloves = f"skin:{clip.participant}", job.config.synthesis.gloves
    skin = {
        side: glove_colors(hand) if gloves else skin_colors(hand, seed_generator(seed))
        for side, hand in job.hands.items()
    }
    videos = {
        name: render_frames(clip, camera, job.hands, config, clip.backgrounds[name], skin)
        for name, camera in clip.cameras.items()
    }
    put_session(folder, clip, videos, inputs)


def put_session(
    folder: Path, clip: Clip, videos: Mapping[str, Iterable[NDArray[np.uint8]]], inputs: Mapping[str, Any]
) -> None:
    """Write a session, and the stamp of what it is made of, in place of an outdated one.

    Both appear at once: a run that is killed leaves nothing that the next would not know as made here.
    """
    fresh, outdated = (folder.with_name(f".{folder.name}.{state}") for state in ("new", "old"))
    for rubbish in (fresh, outdated):
        shutil.rmtree(rubbish, ignore_errors=True)
    write_session(fresh, clip, videos)
    write_stamp(fresh / STAMP, inputs)
    if folder.exists():
        folder.rename(outdated)
    fresh.rename(folder)
    shutil.rmtree(outdated, ignore_errors=True)


def _simulate(number: int, name: str, digest: str, job: SynthesizeJob) -> SyntheticSession:
    mesh, provenance = job.source.load(name)
    item = SyntheticObject("object", mesh, digest, provenance)
    return synthesize_clip(item, job.hands, _seed(number, job.config), job.config.synthesis)


def _seed(number: int, config: SynthesizeConfig) -> str:
    return f"{config.seed}-{number}"


def _inputs(number: int, name: str, job: SynthesizeJob) -> dict[str, Any]:
    """Return all that decides a session."""
    config = job.config
    held_out = number >= config.sessions - config.held_out
    return {
        "object": job.source.digest(name),
        "hand_model": job.hand_model,
        "seed": config.seed,
        "number": number,
        "split": "test" if held_out else "train",
        "cameras": config.held_out_cameras if held_out else config.cameras,
        "synthesis": config.synthesis.model_dump(mode="json"),
        "frames": config.frames.model_dump(mode="json"),
    }
