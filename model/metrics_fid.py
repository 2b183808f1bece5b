"""Fréchet Inception distance (Heusel et al. 2017) of the hand-object area.

    FID = |μ_x − μ_y|² + tr(Σ_x + Σ_y − 2 (Σ_x Σ_y)^½)

over Inception's features x of generated and y of true pictures. A picture is the square about a frame's area,
all else in it grey, at 299². The distance is of two sets, so a clip has none of its own; one of few pictures
is biased upwards, since n pictures span n − 1 of 2048 dimensions: compare only what has the same n.
Letters: n, m pictures, d features, T frames.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from model.metrics_inception import INPUT_SIZE, NUM_FEATURES
from model.metrics_weights import to_tensor

ENOUGH = NUM_FEATURES + 1  # pictures, from which on covariances have full rank
GREY = 128


def area_crops(frames: NDArray[np.uint8], area: NDArray[np.bool_]) -> Tensor:
    """Cut the area [T, H, W] of frames [T, H, W, 3] out, on grey, into [n ≤ T, 3, 299, 299] in [-1, 1].

    Frames whose area is empty are left out.
    """
    crops = []
    for frame, inside in zip(frames, area, strict=True):
        if inside.any():
            rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
            height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
            side = max(height, width)
            top, left = (side - height) // 2, (side - width) // 2
            square = np.full((side, side, 3), GREY, np.uint8)
            box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
            square[top : top + height, left : left + width] = np.where(
                inside[box][..., None], frame[box], GREY
            )
            picture = to_tensor(torch.from_numpy(square)[None])
            crops.append(F.interpolate(picture, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True))
    return torch.cat(crops) if crops else torch.zeros(0, 3, INPUT_SIZE, INPUT_SIZE)


def frechet_distance(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """FID of features [n ≥ 2, d] and [m ≥ 2, d].

    With Σ_x = AᵀA and Σ_y = BᵀB, the trace of (Σ_x Σ_y)^½ is the sum of the singular values of A Bᵀ: no
    square root of a matrix that few pictures leave singular.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} and {len(y)} pictures: a covariance needs two")
    a, b = _root_covariance(x), _root_covariance(y)
    overlap = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    mean_difference = x.mean(axis=0, dtype=np.float64) - y.mean(axis=0, dtype=np.float64)
    distance = mean_difference @ mean_difference + (a**2).sum() + (b**2).sum() - 2.0 * overlap
    return max(float(distance), 0.0)  # rounding may leave equal sets just below


def _root_covariance(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """A [min(n, d), d] with AᵀA the covariance of x [n, d]."""
    centred = x - x.mean(axis=0, dtype=np.float64)
    return np.asarray(np.linalg.qr(centred / np.sqrt(len(x) - 1), mode="r"))
