"""Which reader a path is for: a capture session, a DexYCB sequence or a video of a person."""

from pathlib import Path
from typing import Protocol

from flows.seen import files_below
from flows.sources import Hands
from render.scene import Clip
from storage.errors import InputError
from storage.sources.dexycb import DexYcbSequence, find_sequences, sequence_id
from storage.sources.dexycb_splits import Setup
from storage.sources.human_video import HumanVideo, find_videos, video_id
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
    """Return the recordings that a path stands for: itself, a DexYCB's sequences, or a folder's videos."""
    if not path.is_dir() or (path / "session.yaml").is_file() or is_dexycb(path):
        return [path]
    return find_sequences(path) or find_videos(path) or [path]


def is_dexycb(path: Path) -> bool:
    """Tell whether a path is a sequence of DexYCB."""
    return (path / "meta.yml").is_file()


def session_files(path: Path) -> list[Path]:
    """Return every file and folder that a recording consists of, for telling whether it has changed."""
    if not is_dexycb(path):
        return files_below(path)
    root = path.parents[1]
    return [file for folder in (path, root / "calibration", root / "models") for file in files_below(folder)]


def session_name(path: Path) -> str:
    """Return the name to report a recording by before it is opened."""
    if path.is_file():
        return video_id(path)
    return sequence_id(path) if is_dexycb(path) else path.resolve().name


def open_session(path: Path, published: Hands | None, setup: Setup | None) -> ClipSource:
    """Open a recording; DexYCB's need MANO's files as published, and have official splits."""
    if path.is_file():
        return HumanVideo(path)
    if not is_dexycb(path):
        return SessionFolder(path)
    if published is None:
        raise InputError(
            f"{path}: DexYCB's hands are coefficients of MANO's own components: wanted --mano DIR",
            code="mano-missing",
        )
    return DexYcbSequence(path, published.arrays, setup)
