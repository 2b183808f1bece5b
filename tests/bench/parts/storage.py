"""Times writing and reading clips beside PNG folders and webdataset tars, and says how large each is.

The clips are those of a synthetic session: its videos decoded, its layers rendered, as `manivideo ingest`
makes them. Peers get the same arrays, already in memory, and give them back as arrays of all layers.
Letters: T frames, L layers, H rows, W columns.
"""

import itertools
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import webdataset
from numpy.typing import NDArray
from PIL import Image

from flows.ingest import IngestConfig, finish, ingest_sessions, join
from flows.synthesize import SynthesizeConfig, synthesize_sessions
from render.layers import LayersConfig
from render.synthesis import SynthesisConfig
from storage.manifest import ClipRow, Manifest
from storage.recipe import Recipe
from storage.store import Store
from tests.bench.harness import Seconds, Table, ratio, take_turns

WINDOW = 24  # frames
NUM_FRAMES = 72  # of a clip
SIZE = 256
NAMES = ("normals", "depth", "rgb")
LEAST_READ = {"PNG folder": 5.0, "webdataset": 3.0}
MOST_SIZE = 1.3  # of the PNGs'

Arrays = dict[str, NDArray]  # normals u8 [T, L, H, W, 3], depth u16 [T, L, H, W], rgb u8 [T, H, W, 3]


def run(rounds: int, folder: Path) -> list[Table]:
    """Write and read clips in every way, and hold the ratios against what is aimed at."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        store, dataset = ingest_clips(Path(scratch))
        clips = [read_clip(store, row) for row in Manifest.read(store, dataset).rows]
        peers = [cls(Path(scratch) / cls.__name__) for cls in (Records, Pngs, Tars)]
        for peer, (number, clip) in itertools.product(peers, enumerate(clips)):
            peer.write(f"clip{number}", clip)
        check(peers, clips[0])
        reading = take_turns({peer.name: reader(peer, len(clips)) for peer in peers}, rounds)
        first = {name: values[:WINDOW] for name, values in clips[0].items()}
        writing = take_turns({peer.name: writer(peer, first) for peer in peers}, rounds)
        taken = {peer.name: used(peer, len(clips)) for peer in peers}
    return [_table(reading, writing, taken, len(clips))]


def ingest_clips(folder: Path) -> tuple[Store, str]:
    """Synthesize a session of two cameras and ingest it; return the store and the dataset's name."""
    motion = SynthesisConfig(num_frames=NUM_FRAMES, fps=24, width=320, height=240, num_cameras=3)
    config = SynthesizeConfig(cameras=("camera0", "camera1"), synthesis=motion)
    sessions = synthesize_sessions([0], config, folder / "sessions").folders
    store, ingest = Store(folder / "captures"), IngestConfig(layers=LayersConfig(size=SIZE))
    finish(join(ingest_sessions(list(sessions), ingest, store, dry_run=False)), ingest, store)
    return store, ingest.dataset


def read_clip(store: Store, row: ClipRow) -> Arrays:
    """Return a clip's arrays."""
    assert row.layers_key is not None
    assert row.frames_key is not None
    layers, frames = store.open("layers", row.layers_key), store.open("frames", row.frames_key)
    return {name: (frames if name == "rgb" else layers).read(name) for name in NAMES}


@dataclass
class Peer(ABC):
    """A way to keep clips in a folder."""

    folder: Path
    name = ""

    @abstractmethod
    def write(self, clip: str, arrays: Arrays) -> None:
        """Write a clip."""

    @abstractmethod
    def read(self, clip: str, start: int) -> Arrays:
        """Return WINDOW frames of a clip."""


class Records(Peer):
    """The project's own: a record of layers and one of frames, flushed to the disk."""

    name = "records"

    def write(self, clip: str, arrays: Arrays) -> None:
        store = Store(self.folder)
        layers = {name: arrays[name] for name in ("normals", "depth")}
        store.write(Recipe("layers", 0, {"clip": clip}, {}), layers, {})
        store.write(Recipe("frames", 0, {"clip": clip}, {}), {"rgb": arrays["rgb"]}, {})

    def read(self, clip: str, start: int) -> Arrays:
        store, frames = Store(self.folder), slice(start, start + WINDOW)
        recipes = {kind: Recipe(kind, 0, {"clip": clip}, {}) for kind in ("layers", "frames")}
        layers, pictures = (store.open(kind, recipe.key) for kind, recipe in recipes.items())
        return {name: (pictures if name == "rgb" else layers).read(name, frames) for name in NAMES}


class Pngs(Peer):
    """A picture a frame and layer; depth with sixteen bits."""

    name = "PNG folder"

    def write(self, clip: str, arrays: Arrays) -> None:
        for frame, name in itertools.product(range(len(arrays["rgb"])), NAMES):
            pictures = _layers_first(arrays[name][frame])
            for layer, picture in enumerate(pictures):
                path = self._path(clip, frame, name, layer)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(path)

    def read(self, clip: str, start: int) -> Arrays:
        arrays = {}
        for name in NAMES:
            layers = range(1 if name == "rgb" else 13)
            paths = [
                [self._path(clip, start + frame, name, layer) for layer in layers] for frame in range(WINDOW)
            ]
            pictures = np.stack([np.stack([_read_png(path) for path in row]) for row in paths])
            arrays[name] = pictures[:, 0] if name == "rgb" else pictures
        return arrays

    def _path(self, clip: str, frame: int, name: str, layer: int) -> Path:
        return self.folder / clip / name / f"{frame:06d}_{layer:02d}.png"


class Tars(Peer):
    """A tar a clip, a sample a frame, in it a compressed npz; frames outside the window are not decoded."""

    name = "webdataset"

    def write(self, clip: str, arrays: Arrays) -> None:
        self.folder.mkdir(exist_ok=True)
        with webdataset.TarWriter(f"{self.folder}/{clip}.tar") as tar:
            for frame in range(len(arrays["rgb"])):
                sample = {name: arrays[name][frame] for name in NAMES}
                tar.write({"__key__": f"{frame:06d}", "npz": sample})

    def read(self, clip: str, start: int) -> Arrays:
        samples = webdataset.WebDataset(f"{self.folder}/{clip}.tar", shardshuffle=False, empty_check=False)
        window = [sample["npz"] for sample in samples.slice(start, start + WINDOW).decode()]
        return {name: np.stack([frame[name] for frame in window]) for name in NAMES}


def check(peers: list[Peer], clip: Arrays) -> None:
    """Raise AssertionError where a peer does not give back what it was given."""
    for peer in peers:
        read = peer.read("clip0", 7)
        for name in NAMES:
            assert np.array_equal(read[name], clip[name][7 : 7 + WINDOW]), f"{peer.name}: {name}"


def reader(peer: Peer, num_clips: int) -> Callable[[], object]:
    """Return a function that reads a window at random; every peer draws the same ones."""
    rng = np.random.default_rng(0)
    return lambda: peer.read(f"clip{rng.integers(num_clips)}", int(rng.integers(NUM_FRAMES - WINDOW + 1)))


def writer(peer: Peer, clip: Arrays) -> Callable[[], None]:
    """Return a function that writes a clip of WINDOW frames, each time another one."""
    names: Iterator[int] = itertools.count()
    aside = type(peer)(peer.folder.with_name(f"{peer.folder.name}-written"))
    return lambda: aside.write(f"{next(names)}", clip)


def used(peer: Peer, num_clips: int) -> tuple[float, float]:
    """Return the bytes and the files of a clip."""
    sizes = [path.stat().st_size for path in peer.folder.rglob("*") if path.is_file()]
    return sum(sizes) / num_clips, len(sizes) / num_clips


def _table(
    reading: Seconds, writing: Seconds, taken: Mapping[str, tuple[float, float]], num_clips: int
) -> Table:
    ours = Records.name
    rows = [
        (
            name,
            *_time(reading, name),
            *_time(writing, name),
            f"{num_bytes / 1e6:.2f}",
            f"{num_bytes / taken[ours][0]:.2f}",
            f"{files:.0f}",
        )
        for name, (num_bytes, files) in taken.items()
    ]
    slower = {name: ratio(reading.wall, name, ours) for name in LEAST_READ}
    size = taken[ours][0] / taken[Pngs.name][0]
    return Table(
        title=f"{num_clips} clips of 13 layers and rgb, {NUM_FRAMES} frames, {SIZE} pixels square",
        columns=("", "read, ms", "ratio", "write, ms", "ratio", "MB a clip", "ratio", "files a clip"),
        rows=rows,
        notes=[
            f"wall time of {WINDOW} frames, files in the page cache; records alone are flushed to the disk",
            *(
                f"{name}: reading takes {slower[name]:.1f} times as long (wanted {least:.0f} or more)"
                for name, least in LEAST_READ.items()
            ),
            f"a clip is {size:.2f} times as large as its PNGs (wanted at most {MOST_SIZE})",
        ],
        data={"reading": reading.wall, "writing": writing.wall, "bytes and files": dict(taken)},
    )


def _time(seconds: Seconds, name: str) -> tuple[str, str]:
    return f"{median(seconds.wall[name]) * 1e3:.0f}", f"{ratio(seconds.wall, name, Records.name):.1f}"


def _layers_first(frame: NDArray) -> NDArray:
    """Return a frame's pictures [L, H, W, …]: rgb is one."""
    return frame[None] if frame.shape[-1] == 3 and frame.ndim == 3 else frame


def _read_png(path: Path) -> NDArray:
    with Image.open(path) as picture:
        return np.asarray(picture)
