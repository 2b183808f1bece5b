"""Multi-layer occlusion (MLO) conditions as stored codes and as maps (paper, Sec. 3.1.1).

Letters: T frames, L layers, H rows, W columns.  Frame: OpenCV camera, metres.
Stored: normals u8, 1…255 a component with 128 for 0, and depth u16, 1…65535 linear from near to far;
both 0 where the layer is empty.
"""

import numpy as np
from numpy.typing import NDArray

from render.scene import HAND_LAYERS

NORMAL_ZERO = 128
NORMAL_STEPS = 127
DEPTH_STEPS = 65534


def encode_normals(normals: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Encode unit normals [..., 3]; the zero vector, which means empty, becomes (0, 0, 0)."""
    codes = np.rint(normals * NORMAL_STEPS) + NORMAL_ZERO
    return np.where(normals.any(axis=-1, keepdims=True), codes, 0).astype(np.uint8)


def normal_steps(codes: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Decode normals [..., 3] to whole steps of 1 / NORMAL_STEPS, with zeros where empty."""
    steps: NDArray[np.int8] = (codes ^ np.uint8(NORMAL_ZERO)).view(np.int8)  # code − 128
    steps *= codes != 0
    return steps


def decode_normals(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Decode normals [..., 3] to [-1, 1], with zeros where empty."""
    return np.divide(normal_steps(codes), NORMAL_STEPS, dtype=np.float32)


def encode_depth(depth_m: NDArray[np.float32], near: float, far: float) -> NDArray[np.uint16]:
    """Encode depth [...] linearly between near and far (clamped); depth 0 means empty and stays 0."""
    codes = 1 + np.rint((depth_m.astype(np.float64) - near) * (DEPTH_STEPS / (far - near)))
    return np.where(depth_m > 0, np.clip(codes, 1, 1 + DEPTH_STEPS), 0).astype(np.uint16)


def decode_depth(codes: NDArray[np.uint16], near: float, far: float) -> NDArray[np.float32]:
    """Decode depth [...] to metres, with zeros where empty."""
    depth_m = near + (codes.astype(np.float32) - 1) * np.float32((far - near) / DEPTH_STEPS)
    return np.where(codes > 0, depth_m, 0).astype(np.float32)


def fold_hands(
    normals: NDArray[np.uint8], depth: NDArray[np.uint16]
) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Fold stored layers, normals [T, 13, H, W, 3] and depth [T, 13, H, W], to the paper's seven.

    Each hand layer takes, pixel by pixel, the hand that is nearer; it works on the codes.
    """
    one_hand = 1 + len(HAND_LAYERS)
    left, right = slice(1, one_hand), slice(one_hand, None)
    folded_normals, folded_depth = normals[:, :one_hand].copy(), depth[:, :one_hand].copy()
    right_nearer = depth[:, right] - np.uint16(1) < depth[:, left] - np.uint16(1)  # empty wraps to farthest
    # By mask, because most of a layer is empty.
    folded_normals[:, left][right_nearer] = normals[:, right][right_nearer]
    folded_depth[:, left][right_nearer] = depth[:, right][right_nearer]
    return folded_normals, folded_depth


def confidence(depth_m: NDArray[np.float32], near: float, far: float) -> NDArray[np.float32]:
    """Return the confidence map D [T, L, H, W] in [0.1, 1]: nearer is higher, empty is 0 (Sec. 3.1.1).

    One near and far for all layers and frames keeps the order of layers and does not flicker.
    """
    nearness = np.clip((depth_m - near) / (far - near), 0, 1)
    return np.where(depth_m > 0, 1 - 0.9 * nearness, 0).astype(np.float32)
