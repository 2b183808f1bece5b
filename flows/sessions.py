"""Which reader a path is for: a capture session, a DexYCB sequence or a video of a person."""

from pathlib import Path
from typing import Protocol

from flows.seen import files_below
from flows.sources import Hands
from render.scene import Clip
from storage.errors import InputError
from storage.sources.dexycb import DexYcbSequence, find_sequences, sequence_id
from storage.sources.dexycb_splits import Setup
from storage.sources.glb_limits import GlbLimits
from storage.sources.human_video import HumanVideo, find_videos, keypoints_file, video_id
from storage.sources.session import SessionFolder


class ClipSource(Protocol):
    """One recording."""

    @property
    def id(self) -> str:
        """Return its name."""
        ...

    def load(self) -> Clip:
        """Read everything but the videos' frames."""
        ...

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each part."""
        ...


def find_sessions(path: Path) -> list[Path]:
    """Return the recordings that a path stands for: itself, or those in it."""
    if not path.is_dir() or is_session(path):
        return [path]
    return sessions_in(path) or [path]


def sessions_in(folder: Path) -> list[Path]:
    """Return the recordings in a folder: a DexYCB's sequences, else capture sessions and videos of people.

    Where any folder in it is a session all of them are taken for such, so that a broken one is reported.
    """
    sequences = find_sequences(folder)
    if sequences:
        return sequences
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return (folders if any(is_session(path) for path in folders) else []) + find_videos(folder)


def is_session(path: Path) -> bool:
    """Tell whether a path is one recording, of which everything that makes it one is there."""
    return path.is_file() or (path / "session.yaml").is_file() or is_dexycb(path)


def is_dexycb(path: Path) -> bool:
    """Tell whether a path is a sequence of DexYCB."""
    return (path / "meta.yml").is_file()


def session_files(path: Path) -> list[Path]:
    """Return every file and folder that a recording may consist of, for telling whether it has changed."""
    if path.is_file():
        return [path, keypoints_file(path)]
    if not is_dexycb(path):
        return files_below(path)
    root = path.parents[1]
    return [file for folder in (path, root / "calibration", root / "models") for file in files_below(folder)]


def session_name(path: Path) -> str:
    """Return the name to report a recording by before it is opened."""
    if path.is_file():
        return video_id(path)
    return sequence_id(path) if is_dexycb(path) else path.resolve().name


def open_session(path: Path, published: Hands | None, setup: Setup | None, limits: GlbLimits) -> ClipSource:
    """Open a recording; DexYCB's need MANO's files as published, and have official splits."""
    if path.is_file():
        return HumanVideo(path)
    if not is_dexycb(path):
        return SessionFolder(path, limits)
    if published is None:
        raise InputError(
            f"{path}: DexYCB's hands are coefficients of MANO's own components: wanted --mano DIR",
            code="mano-missing",
        )
    return DexYcbSequence(path, published.arrays, setup)
