"""Reading datasets: windows of clips as numpy arrays, ready for the model.

Letters: t frames of a window, L layers (7, hands folded; or 13, as stored), H rows, W columns, P points.
What a clip lacks (no hands, no object, no motion) is zero, as the model's conditions are.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from render.mlo import NORMAL_STEPS, confidence, decode_depth, fold_hands, normal_steps
from render.scene import NUM_POINTS
from render.skeleton import draw_skeletons
from storage.errors import InputError
from storage.manifest import ClipRow, Manifest
from storage.store import Store

_OPEN_RECORDS = 1024  # kept open
_REFERENCES = 64  # clips whose references stay in memory
# Fields of a row, by what they hold apart beside a sequence.
SPLITS = {"": "split", "object": "object_split", "participant": "participant_split"}


@dataclass(frozen=True)
class ClipWindow:
    """Some frames of a clip with their conditions."""

    normal_steps: NDArray[np.int8]  # [t, L, H, W, 3] components in steps of 1/127, zeros where empty
    confidence: NDArray[np.float32]  # [t, L, H, W] D of Sec. 3.1.1: nearer is higher, 0 where empty
    frames: NDArray[np.uint8]  # [t, H, W, 3] sRGB; t = 0 for a clip of motion alone
    mask: NDArray[np.bool_]  # [t, H, W] the hand-object area: all layers together, dilated
    background: NDArray[np.uint8]  # [H, W, 3] the plate, else the first frame without its hand-object area
    views: NDArray[np.uint8]  # [6, H', W', 4] of the first object
    points: NDArray[np.float32]  # [P, 3] of the first object
    joints_2d: NDArray[np.float32]  # [t, 2, 21, 2] pixels, left then right hand; nan where invalid
    skeleton: NDArray[np.uint8] | None = None  # [t, H, W, 3] of a person; None: there is none

    @cached_property
    def normals(self) -> NDArray[np.float32]:
        """[t, L, H, W, 3] in [-1, 1], zeros where empty."""
        return np.divide(self.normal_steps, NORMAL_STEPS, dtype=np.float32)


@dataclass(frozen=True)
class _References:
    """The part of a window that is the same for all of a clip."""

    background: NDArray[np.uint8]  # [H, W, 3]
    views: NDArray[np.uint8]  # [6, H', W', 4]
    points: NDArray[np.float32]  # [P, 3]


@dataclass(frozen=True)
class _Layers:
    """The part of a window that the layers record gives."""

    normal_steps: NDArray[np.int8]  # [t, L, H, W, 3]
    confidence: NDArray[np.float32]  # [t, L, H, W]
    mask: NDArray[np.bool_]  # [t, H, W]
    joints_2d: NDArray[np.float32]  # [t, 2, 21, 2]


class Dataset:
    """The clips of a manifest."""

    def __init__(
        self, store: Store, manifest: Manifest, *, layers: Literal[7, 13] = 7, mask_margin_px: int = 4
    ) -> None:
        self.store, self.manifest = store, manifest
        self.layers = layers
        self.mask_margin_px = mask_margin_px
        self._open = lru_cache(_OPEN_RECORDS)(store.open)
        self._references = lru_cache(_REFERENCES)(self._read_references)

    @classmethod
    def open(cls, store: Store, name: str, *, layers: Literal[7, 13] = 7, mask_margin_px: int = 4) -> Self:
        """Open a dataset of a store by name.

        layers: 7 with the hands folded (the paper's), or all 13 stored ones.
        mask_margin_px: how far the hand-object area reaches beyond hands and object.
        """
        return cls(store, Manifest.read(store, name), layers=layers, mask_margin_px=mask_margin_px)

    def __reduce__(self) -> tuple[object, ...]:
        # Another process (a DataLoader's worker) opens the records anew.
        opened = partial(Dataset, layers=self.layers, mask_margin_px=self.mask_margin_px)
        return opened, (self.store, self.manifest)

    def rows(self, split: str | None = None) -> list[ClipRow]:
        """Return the clips of a split, or all of them, by id.

        split: train, val or test of the split by sequence; object:train or object:test of that by object;
        participant:train or participant:test of that by participant, which leaves out who is not known.
        """
        by, _, name = (split or "").rpartition(":")
        if by not in SPLITS:
            message = f"split {split!r}: wanted NAME, object:NAME or participant:NAME"
            raise InputError(message, code="config")
        if split is None:
            return list(self.manifest.rows)
        return [row for row in self.manifest.rows if getattr(row, SPLITS[by]) == name]

    def splits(self) -> list[str]:
        """Return the splits that have clips, as `rows` takes them."""
        named = {(by, getattr(row, field)) for row in self.manifest.rows for by, field in SPLITS.items()}
        return [f"{by}:{name}" if by else name for by, name in sorted(named) if name]

    def row(self, clip_id: str) -> ClipRow:
        """Return a clip by id."""
        for row in self.manifest.rows:
            if row.id == clip_id:
                return row
        raise InputError(f"dataset {self.manifest.name}: no clip {clip_id!r}", code="no-clip")

    def read(
        self, row: ClipRow, start: int, count: int, stride: int = 1, *, pictures: bool = True
    ) -> ClipWindow:
        """Read `count` frames from `start`, every `stride`-th of them; without `pictures` only conditions."""
        frames = _slice_of(row, start, count, stride)
        rgb = self._read_rgb(row, frames) if pictures else np.zeros((0, *self.size(row), 3), np.uint8)
        layers = self._read_layers(row, frames)
        references = self._references(row)
        return ClipWindow(
            normal_steps=layers.normal_steps,
            confidence=layers.confidence,
            frames=rgb,
            mask=layers.mask,
            background=references.background,
            views=references.views,
            points=references.points,
            joints_2d=layers.joints_2d,
            skeleton=self._read_skeleton(row, frames),
        )

    def read_pictures(self, row: ClipRow, start: int, count: int, stride: int = 1) -> NDArray[np.uint8]:
        """Read the true frames [t, H, W, 3] alone, those that `read` gives; t = 0 where there are none."""
        return self._read_rgb(row, _slice_of(row, start, count, stride))

    def joint_px_per_m(self, row: ClipRow, start: int, count: int, stride: int = 1) -> NDArray[np.float32]:
        """Return the pixels of a metre at each joint's depth, f / z [t, 2, 21], in frames as `read` takes."""
        if row.layers_key is None:
            return np.full((count, 2, 21), np.nan, np.float32)
        record = self._open("layers", row.layers_key)
        joints = record.read("joints_3d", slice(start, start + (count - 1) * stride + 1, stride))
        return (record.read("intrinsics")[0, 0] / joints[..., 2]).astype(np.float32)

    def size(self, row: ClipRow) -> tuple[int, int]:
        """Return H and W of a clip's frames and layers."""
        if row.frames_key is not None:
            _, height, width, _ = self._open("frames", row.frames_key)["rgb"].shape
        else:
            assert row.layers_key is not None  # a clip has at least one of the two
            _, _, height, width = self._open("layers", row.layers_key)["depth"].shape
        return height, width

    def _read_rgb(self, row: ClipRow, frames: slice) -> NDArray[np.uint8]:
        if row.frames_key is None:
            return np.zeros((0, *self.size(row), 3), np.uint8)
        return self._open("frames", row.frames_key).read("rgb", frames)

    def _read_skeleton(self, row: ClipRow, frames: slice) -> NDArray[np.uint8] | None:
        if row.skeleton_key is None:
            return None
        keypoints = self._open("skeleton", row.skeleton_key).read("keypoints", frames)
        return draw_skeletons(keypoints, self.size(row))

    def _read_layers(self, row: ClipRow, frames: slice) -> _Layers:
        if row.layers_key is None:
            t, size = len(range(frames.start, frames.stop, frames.step)), self.size(row)
            return _Layers(
                normal_steps=np.zeros((t, self.layers, *size, 3), np.int8),
                confidence=np.zeros((t, self.layers, *size), np.float32),
                mask=np.zeros((t, *size), np.bool_),
                joints_2d=np.full((t, 2, 21, 2), np.nan, np.float32),
            )
        record = self._open("layers", row.layers_key)
        normals, depth = record.read("normals", frames), record.read("depth", frames)
        if self.layers == 7:
            normals, depth = fold_hands(normals, depth)
        near_m, far_m = record.attrs["near_m"], record.attrs["far_m"]
        drawn, nearness = depth > 0, np.zeros(depth.shape, np.float32)
        nearness[drawn] = confidence(decode_depth(depth[drawn], near_m, far_m), near_m, far_m)
        return _Layers(
            normal_steps=normal_steps(normals),
            confidence=nearness,
            mask=dilate(np.any(drawn, axis=1), self.mask_margin_px),
            joints_2d=record.read("joints_2d", frames),
        )

    def _read_references(self, row: ClipRow) -> _References:
        if row.object_keys:
            record = self._open("object", row.object_keys[0])
            views, points = record.read("views"), record.read("points")
        else:
            views = np.zeros((6, *self.size(row), 4), np.uint8)
            points = np.zeros((NUM_POINTS, 3), np.float32)
        return _References(self._read_background(row), views, points)

    def _read_background(self, row: ClipRow) -> NDArray[np.uint8]:
        """Return the clean plate, else the first frame with its hand-object area black."""
        if row.frames_key is None:
            return np.zeros((*self.size(row), 3), np.uint8)
        record = self._open("frames", row.frames_key)
        if record.attrs["has_plate"]:
            return record.read("background")
        first = slice(0, 1, 1)
        mask = self._read_layers(row, first).mask[0]
        return np.where(mask[..., None], np.uint8(0), self._read_rgb(row, first)[0])


def _slice_of(row: ClipRow, start: int, count: int, stride: int) -> slice:
    """Return `count` positions from `start`, every `stride`-th; ValueError where a clip lacks some."""
    stop = start + (count - 1) * stride + 1
    if min(count, stride) < 1 or not 0 <= start < stop <= row.num_frames:
        raise ValueError(f"{row.id}: frames {start} to {stop - 1} of {row.num_frames}")
    return slice(start, stop, stride)


def dilate(mask: NDArray[np.bool_], margin_px: int) -> NDArray[np.bool_]:
    """Widen the true areas of [t, H, W] by a margin, along rows and columns alike."""
    side = 2 * margin_px + 1
    return maximum_filter(mask, size=(1, side, side), mode="constant")
