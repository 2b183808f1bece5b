"""Rigid transforms and rotations.

A transform is named `target_from_source` and is a 4×4 that multiplies column vectors; leading axes are
batches.
Quaternions are stored xyzw, unit norm, w ≥ 0.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def transform(target_from_source: NDArray, points: NDArray) -> NDArray:
    """Move points [..., P, 3] (or one point [3]) by transforms [..., 4, 4]; batch axes broadcast.

    [T, 4, 4] on [V, 3] gives [T, V, 3], and so does [T, 4, 4] on [T, V, 3].
    """
    if points.ndim == 1:
        return transform(target_from_source, points[None])[..., 0, :]
    rotation, translation = target_from_source[..., :3, :3], target_from_source[..., None, :3, 3]
    return points @ np.swapaxes(rotation, -1, -2) + translation


def rigid(rotation: NDArray, translation: NDArray) -> NDArray:
    """Join rotation [..., 3, 3] and translation [..., 3] into transforms [..., 4, 4]."""
    batch = np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1])
    target_from_source = np.zeros((*batch, 4, 4), np.result_type(rotation, translation))
    target_from_source[..., :3, :3] = rotation
    target_from_source[..., :3, 3] = translation
    target_from_source[..., 3, 3] = 1
    return target_from_source


def invert_rigid(target_from_source: NDArray) -> NDArray:
    """Return `source_from_target` [..., 4, 4] of rigid transforms, without a general inverse."""
    transposed = np.swapaxes(target_from_source[..., :3, :3], -1, -2)
    return rigid(transposed, -(transposed @ target_from_source[..., :3, 3:])[..., 0])


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike = (0.0, 1.0, 0.0)) -> NDArray[np.float64]:
    """Return `camera_from_world` [4, 4] of an OpenCV camera at `eye` that sees `target` with `up` upwards."""
    position = np.asarray(eye, np.float64)
    forward = np.asarray(target, np.float64) - position
    right = np.cross(forward, np.asarray(up, np.float64))
    if np.linalg.norm(right) <= 1e-9 * np.linalg.norm(forward):
        raise ValueError(f"look_at: eye {eye!r}, target {target!r} and up {up!r} lie on one line")
    forward /= np.linalg.norm(forward)
    right /= np.linalg.norm(right)
    world_from_camera = rigid(np.stack([right, np.cross(forward, right), forward], axis=1), position)
    return invert_rigid(world_from_camera)
