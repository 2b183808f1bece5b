"""Pictures of human skeletons, the condition S of human video (paper, Sec. 3.3, Eq. 5).

Letters: T frames, K = 17 keypoints in COCO's order, H rows, W columns. A keypoint is (column, row,
confidence) with whole numbers at pixel centres; confidence 0 means not seen.
"""

import colorsys

import numpy as np
from numpy.typing import NDArray

from render.camera import Crop

KEYPOINTS = (
    "nose",
    *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
      for side in ("left", "right")),
)  # fmt: skip
_BONES = (
    *(("nose", f"{side}_eye") for side in ("left", "right")),
    *((f"{side}_eye", f"{side}_ear") for side in ("left", "right")),
    *(("nose", f"{side}_shoulder") for side in ("left", "right")),
    *((f"{side}_{a}", f"{side}_{b}") for side in ("left", "right") for a, b in (
        ("shoulder", "elbow"), ("elbow", "wrist"), ("shoulder", "hip"), ("hip", "knee"), ("knee", "ankle"))),
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
)  # fmt: skip
BONES = tuple((KEYPOINTS.index(start), KEYPOINTS.index(end)) for start, end in _BONES)
COLORS = np.array([colorsys.hsv_to_rgb(index / len(BONES), 1.0, 1.0) for index in range(len(BONES))])
LEAST_CONFIDENCE = 0.3
WIDTH = 0.02  # of a bone, as a part of the picture's shorter side


def crop_keypoints(keypoints: NDArray[np.float32], crop: Crop, size: int) -> NDArray[np.float32]:
    """Move keypoints [T, K, 3] of a picture to where a square crop of `size` pixels shows them."""
    corner = np.array([crop.x0, crop.y0], np.float32)
    moved = (keypoints[..., :2] + 0.5 - corner) * (size / crop.size_px) - 0.5
    return np.concatenate([moved, keypoints[..., 2:]], axis=-1).astype(np.float32)


def draw_skeletons(keypoints: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw keypoints [T, K, 3] as pictures [T, H, W, 3]: each bone in its colour, the rest black."""
    height, width = size
    half_px = max(WIDTH * min(size) / 2, 0.75)
    pictures = np.zeros((len(keypoints), height, width, 3), np.uint8)
    for picture, points in zip(pictures, keypoints.astype(np.float64), strict=True):
        for color, (start, end) in zip(COLORS, BONES, strict=True):
            if min(points[start, 2], points[end, 2]) >= LEAST_CONFIDENCE:
                ends = points[[start, end], :2]
                pixels = _pixels_near(ends, half_px + 0.5, size)
                cover = np.clip(half_px + 0.5 - _distance(pixels, *ends), 0, 1)
                drawn = np.rint(255 * cover[:, None] * color).astype(np.uint8)
                columns, rows = pixels.T
                picture[rows, columns] = np.maximum(picture[rows, columns], drawn)
    return pictures


def _pixels_near(ends: NDArray[np.float64], margin_px: float, size: tuple[int, int]) -> NDArray[np.intp]:
    """Return the pixels [n, 2] of the box about a bone's ends [2, 2], as far as it is in the picture."""
    limits = np.array(size[::-1])  # columns, rows
    first = np.clip(np.floor(ends.min(axis=0) - margin_px), 0, limits).astype(np.intp)
    last = np.clip(np.ceil(ends.max(axis=0) + margin_px) + 1, first, limits).astype(np.intp)
    columns, rows = np.mgrid[first[0] : last[0], first[1] : last[1]]
    return np.stack([columns.ravel(), rows.ravel()], axis=-1)


def _distance(
    pixels: NDArray[np.intp], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the distance [n] of pixels [n, 2] to a segment."""
    along = end - start
    part = np.clip((pixels - start) @ along / max(float(along @ along), 1e-12), 0, 1)
    return np.linalg.norm(pixels - start - part[:, None] * along, axis=-1)
