"""The one square crop of a clip: where hands and objects are seen, or the picture's centre.

Letters: T frames, V vertices, P points.  Frame: pixels of the uncropped camera.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from render.camera import Crop, project
from render.scene import Camera, Clip
from render.transforms import transform

if TYPE_CHECKING:  # importing torch takes seconds
    from render.hands.model import HandModel

STEPS = 16  # corner and size are multiples of 1/16 of the short side: small re-fits of a hand do not move it


def choose_crop(
    clip: Clip,
    camera: Camera,
    hands: Mapping[str, "HandModel"],
    mode: Literal["hand_object", "center"] = "hand_object",
    margin: float = 0.15,
) -> Crop:
    """Return a square crop inside the picture, for all frames of the clip.

    `hand_object`: about everything that moves, widened by `margin` of its size on each side;
    the centred largest square where nothing is seen. `center`: always that square.
    """
    short = min(camera.width, camera.height)
    if mode == "center":
        return Crop((camera.width - short) // 2, (camera.height - short) // 2, short)
    corners = _seen_box(clip, camera, hands)
    if corners is None:
        return choose_crop(clip, camera, hands, "center")
    low, high = corners
    step = short / STEPS
    wanted = np.max(high - low) * (1 + 2 * margin)
    size = min(short, round(np.ceil(wanted / step) * step))
    first = np.round(((low + high - size) / 2) / step) * step  # [2]
    x0, y0 = np.clip(np.round(first), 0, (camera.width - size, camera.height - size)).astype(int)
    return Crop(int(x0), int(y0), size)


def _seen_box(
    clip: Clip, camera: Camera, hands: Mapping[str, "HandModel"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the first and last (column, row) that hands and objects reach inside the picture."""
    last = np.array([camera.width - 1, camera.height - 1], np.float64)
    low, high = last, np.zeros(2)
    for points_world in _moving_points(clip, hands):
        pixels, depth = project(points_world, camera)  # [T, P, 2], [T, P]
        seen = (depth > 0) & np.all((pixels >= 0) & (pixels <= last), axis=-1)
        if seen.any():
            low = np.minimum(low, pixels[seen].min(axis=0))
            high = np.maximum(high, pixels[seen].max(axis=0))
    return (low, high) if np.all(high >= low) else None


def _moving_points(clip: Clip, hands: Mapping[str, "HandModel"]) -> Iterator[NDArray]:
    """Yield world points [T, P, 3] of each hand and object in the frames where it is valid."""
    for side, motion in clip.hands.items():
        yield hands[side](motion).vertices[motion.valid]
    directions = np.random.default_rng(0).normal(size=(256, 3))
    for moving in clip.objects:
        extremes = np.unique(
            np.argmax(moving.mesh.vertices @ directions.T, axis=0)
        )  # all that a box can touch
        yield transform(moving.world_from_object[moving.valid], moving.mesh.vertices[extremes])
