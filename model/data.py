"""What one training step draws: clips in equal shares of the sources, then frames (paper, Sec. 3.3, 4.1).

A draw is a function of (seed, step, slot) alone. A resumed run therefore sees what an uninterrupted one would
have seen, and a batch of one clip still takes every source in its turn.
Letters: b clips, t frames.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from threading import Lock
from typing import Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field, NonNegativeFloat
from torch import Tensor

from model.clip_tensors import FrameTensors, ReferenceTensors, join, move, num_bytes, stack
from model.conditions import FIRST_OBJECT_SLOT
from model.latents import StoredLatents
from storage.dataset import Dataset
from storage.errors import InputError
from storage.manifest import ClipRow

logger = logging.getLogger(__name__)


class BatchConfig(BaseModel, frozen=True, extra="forbid"):
    """What one training step draws."""

    clips: int = Field(default=4, ge=1)
    """Clips b of a step, those of all processes together."""
    frames: int = Field(default=1, ge=1)
    """Frames t of each clip; AppearanceNet runs once a clip, so more frames are cheap."""
    pick: Literal["scattered", "window"] = "scattered"
    """Frames anywhere in the clip (image stage), or in a row (temporal stage)."""
    stride: int = Field(default=1, ge=1)
    """Frames of the clip between neighbours of a window; smaller where the clip is too short for it."""
    shares: dict[str, NonNegativeFloat] | None = None
    """Relative share of each source, which must have clips where it is above 0; null: equal shares of the
    sources that the dataset has, as in the paper."""
    condition_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability that all conditions of a clip are zero (classifier-free guidance)."""
    motion_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a clip's layers and skeleton alone are zero, so that motion can have a guidance scale
    of its own."""
    first_object: float = Field(default=0.5, ge=0, le=1)
    """Probability that f_8, the object in the clip's first frame, is given."""


@dataclass(frozen=True)
class Draw:
    """One slot of a step."""

    row: ClipRow
    frames: NDArray[np.int64]  # [t] ascending positions in the clip
    dropped: bool  # all conditions are zero
    first_object: bool  # f_8 is given
    motion_dropped: bool  # layers and skeleton are zero


@dataclass(frozen=True)
class Batch:
    """Tensors of one step."""

    ids: tuple[str, ...]  # b clips
    sources: tuple[str, ...]  # of each
    clips: FrameTensors  # [b, t, …]
    references: ReferenceTensors  # [b, …]
    dropped: Tensor  # bool [b] whose conditions are all zero
    motion_dropped: Tensor  # bool [b] whose layers and skeleton are zero

    def to(self, device: torch.device) -> "Batch":
        """Move every tensor."""
        return Batch(
            self.ids,
            self.sources,
            move(self.clips, device),
            move(self.references, device),
            self.dropped.to(device),
            self.motion_dropped.to(device),
        )


class Draws:
    """Which clips and frames each step takes."""

    def __init__(self, rows: Sequence[ClipRow], config: BatchConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        there: dict[str, list[ClipRow]] = {}
        for row in usable(rows, config.frames):
            there.setdefault(row.source, []).append(row)
        shares = config.shares or dict.fromkeys(there, 1.0)
        unknown = sorted(set(there) - set(shares))
        if unknown:
            raise InputError(f"batch.shares: no share for source {', '.join(unknown)}", code="config")
        self.by_source = {source: clips for source, clips in there.items() if shares[source] > 0}
        self.rows = [row for clips in self.by_source.values() for row in clips]  # those that may be drawn
        lacking = sorted(name for name, share in shares.items() if share > 0 and name not in there)
        if lacking or not self.by_source:
            found = {source: len(clips) for source, clips in there.items()}
            wanted = f"clips of {', '.join(lacking)}" if lacking else "a share above 0 of one of them"
            raise InputError(f"batch.shares: found clips {found}, wanted {wanted}", code="config")
        of_each = np.array([shares[source] for source in self.by_source])
        self.probabilities = of_each / of_each.sum()
        self.longest = (config.frames - 1) * config.stride + 1 if config.pick == "window" else config.frames

    def __call__(self, step: int, slot: int) -> Draw:
        """Draw one slot of one step."""
        rng = np.random.default_rng([self.seed, step, slot])
        source = list(self.by_source)[rng.choice(len(self.by_source), p=self.probabilities)]
        row = self.by_source[source][rng.integers(len(self.by_source[source]))]
        frames = self._frames(row.num_frames, rng)
        dropped = bool(rng.random() < self.config.condition_dropout)
        first_object = bool(rng.random() < self.config.first_object)
        motion_dropped = bool(rng.random() < self.config.motion_dropout)
        return Draw(row, frames, dropped, first_object, motion_dropped)

    def rows_of(self, iterations: int) -> list[ClipRow]:
        """Return the clips that a run of so many steps takes, each once, in the order of its first draw."""
        slots = product(range(iterations), range(self.config.clips))
        return list({row.id: row for step, slot in slots for row in [self(step, slot).row]}.values())

    def _frames(self, num_frames: int, rng: np.random.Generator) -> NDArray[np.int64]:
        count = self.config.frames
        if self.config.pick == "scattered":
            return np.sort(rng.choice(num_frames, count, replace=False))
        stride = min(self.config.stride, (num_frames - 1) // max(count - 1, 1)) or 1
        start = rng.integers(num_frames - (count - 1) * stride)
        return start + stride * np.arange(count)


def usable(rows: Sequence[ClipRow], count: int) -> list[ClipRow]:
    """Rows with pictures of at least `count` frames; logs the others, InputError when none is left."""
    kept = [row for row in rows if row.num_frames >= count and row.frames_key is not None]
    left_out = sorted({row.id for row in rows} - {row.id for row in kept})
    if not kept:
        raise InputError(
            f"no pictures of {count} frames among {len(rows)} clips of the split", code="no-clips"
        )
    if left_out:
        logger.warning(
            "%d of %d clips have no pictures of %d frames and are left out, the first %s",
            *(len(left_out), len(rows), count, left_out[0]),
        )
    return kept


class ClipCache:
    """Frames and references of a dataset's clips.

    A dataset that fits in memory is read from the store once, each clip when it is first drawn (by each
    thread that draws it then); of a larger one only what is drawn is read. References stay in memory, the
    longest unused leaving first.
    """

    def __init__(
        self, dataset: Dataset, rows: Sequence[ClipRow], max_bytes: int, latents: StoredLatents | None = None
    ) -> None:
        """latents: read these in place of pictures."""
        self.dataset, self.latents, self.count = dataset, latents, len(rows)
        first = FrameTensors.from_window(dataset.read(rows[0], 0, 1, pictures=latents is None))
        self.height, self.width = first.area.shape[1:]
        self.frame_bytes = num_bytes(first) + (latents.num_bytes(self.height, self.width) if latents else 0)
        needed = self.frame_bytes * sum(row.num_frames for row in rows)
        self.holds_clips = needed <= max_bytes
        self.clips: dict[str, FrameTensors] = {}
        self.by_clip = LeastRecent[ReferenceTensors](max_bytes // 4, num_bytes)
        self.reference_bytes = num_bytes(self.references(rows[0]))
        references = min(max_bytes // 4, self.reference_bytes * len(rows))
        self.most_bytes = references + (needed if self.holds_clips else 0)  # about what will be kept

    def frames(self, row: ClipRow, positions: NDArray[np.int64]) -> FrameTensors:
        """The frames of a clip at ascending positions [t]."""
        if self.holds_clips:
            if row.id not in self.clips:
                self.clips[row.id] = self._read(row, 0, row.num_frames)
            return self.clips[row.id].at(positions)
        steps = np.unique(np.diff(positions))
        if len(steps) == 1:
            return self._read(row, int(positions[0]), len(positions), int(steps[0]))
        return join([self._read(row, int(k), 1) for k in positions])

    def _read(self, row: ClipRow, start: int, count: int, stride: int = 1) -> FrameTensors:
        """Read frames, with their pictures or the latents in place of them; InputError if of another size."""
        window = self.dataset.read(row, start, count, stride, pictures=self.latents is None)
        if (found := window.mask.shape[1:]) != (self.height, self.width):
            raise InputError.mismatch(
                f"clip {row.id} of dataset {self.dataset.manifest.name}",
                "size",
                found=f"{found[0]} by {found[1]}",
                wanted=f"{self.height} by {self.width}, as of the others",
                code="frame-size",
            )
        if self.latents is None:
            return FrameTensors.from_window(window)
        stop = start + (count - 1) * stride + 1
        return FrameTensors.from_window(window, self.latents.read(row, slice(start, stop, stride)))

    def references(self, row: ClipRow) -> ReferenceTensors:
        """References of a clip; f_8 as seen in its first frame."""
        return self.by_clip.get(row.id, lambda: ReferenceTensors.from_window(self.dataset.read(row, 0, 1)))


class StepBatches:
    """The batch of each step, by its number; of several processes each takes some of its slots."""

    def __init__(
        self,
        dataset: Dataset,
        draws: Draws,
        max_bytes: int,
        slots: Sequence[int] | None = None,
        latents: StoredLatents | None = None,
    ) -> None:
        self.draws, self.cache = draws, ClipCache(dataset, draws.rows, max_bytes, latents)
        self.slots = range(draws.config.clips) if slots is None else slots

    def num_bytes(self) -> int:
        """Memory of one batch."""
        of_clip = self.draws.config.frames * self.cache.frame_bytes + self.cache.reference_bytes
        return len(self.slots) * of_clip

    def __call__(self, step: int) -> Batch:
        """Draw and read one step's batch."""
        drawn = [self.draws(step, slot) for slot in self.slots]
        references = stack([self.cache.references(draw.row) for draw in drawn])
        references.present[:, FIRST_OBJECT_SLOT] &= torch.tensor([draw.first_object for draw in drawn])
        return Batch(
            ids=tuple(draw.row.id for draw in drawn),
            sources=tuple(draw.row.source for draw in drawn),
            clips=stack([self.cache.frames(draw.row, draw.frames) for draw in drawn]),
            references=references,
            dropped=torch.tensor([draw.dropped for draw in drawn]),
            motion_dropped=torch.tensor([draw.motion_dropped for draw in drawn]),
        )


def read_steps(
    batches: Callable[[int], Batch], start: int, stop: int, ahead: int, threads: int = 1
) -> Iterator[Batch]:
    """Batches of steps [start, stop), in order; up to `ahead` of them are read before they are asked for."""
    readers = ThreadPoolExecutor(max_workers=threads)
    try:
        pending = deque(readers.submit(batches, step) for step in range(start, min(start + ahead, stop)))
        for step in range(start + ahead, stop + ahead):
            if step < stop:
                pending.append(readers.submit(batches, step))
            yield pending.popleft().result()
    finally:
        readers.shutdown(cancel_futures=True)


Value = TypeVar("Value")


class LeastRecent(Generic[Value]):
    """Values kept up to a number of bytes; the longest unused leave first. Threads may share it."""

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self.max_bytes, self.size_of = max_bytes, size_of
        self.values: OrderedDict[str, Value] = OrderedDict()
        self.bytes = 0
        self.lock = Lock()

    def __reduce__(self) -> tuple[object, ...]:
        return LeastRecent, (self.max_bytes, self.size_of)  # another process has values of its own

    def get(self, key: str, make: Callable[[], Value]) -> Value:
        """The value of a key, made if it is not there; by each of the threads that want it meanwhile."""
        with self.lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key]
        made = make()
        with self.lock:
            if key in self.values:
                return self.values[key]
            self.values[key] = made
            self.bytes += self.size_of(made)
            while self.bytes > self.max_bytes and len(self.values) > 1:
                _, oldest = self.values.popitem(last=False)
                self.bytes -= self.size_of(oldest)
        return made
