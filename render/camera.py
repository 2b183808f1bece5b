"""Pinhole cameras: projection, clip space and crops.

Pixels are (column, row) with whole numbers at pixel centres and row 0 at the top, as in OpenCV.
Clip space is OpenGL's cube with y DOWN, so row 0 of a rasterized image is the picture's top row, and
its w is the depth along the camera's +z in metres.
"""

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from render.scene import Camera
from render.transforms import transform


@dataclass(frozen=True)
class Crop:
    """A square of a picture, in whole pixels."""

    x0: int  # first column
    y0: int  # first row
    size_px: int


def project(points_world: NDArray, camera: Camera) -> tuple[NDArray, NDArray]:
    """Project world points [..., 3] in metres to pixels [..., 2] and depth [...] along +z in metres.

    Pixels of points at depth ≤ 0 mean nothing.
    """
    points_camera = transform(camera.camera_from_world, points_world)  # [..., 3]
    depth = points_camera[..., 2]
    plane = points_camera[..., :2] / np.where(depth == 0, np.finfo(np.float64).tiny, depth)[..., None]
    if camera.distortion is not None:
        plane = distort(plane, camera.distortion)
    pixels = plane @ camera.intrinsics[:2, :2].T + camera.intrinsics[:2, 2]
    return pixels, depth


def distort(plane: NDArray, coefficients: NDArray[np.float64]) -> NDArray:
    """Apply OpenCV's distortion (k1, k2, p1, p2[, k3[, k4, k5, k6]]) to points [..., 2] of the plane z = 1.

    The radial polynomial folds back far outside the picture; from that radius on its factor is held, so that
    what lies outside the picture stays outside.
    """
    if coefficients.shape not in ((4,), (5,), (8,)):
        raise ValueError(
            f"distortion has {coefficients.shape} coefficients; known are 4, 5 or 8 (OpenCV order)"
        )
    k1, k2, p1, p2, k3, k4, k5, k6 = np.pad(coefficients, (0, 8 - len(coefficients)))

    def radial(r2: NDArray) -> NDArray:
        return (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))

    radii = np.linspace(0, 5, 2001)
    folds = np.flatnonzero(np.diff(radii * radial(radii**2)) <= 0)
    largest = radii[folds[0]] if len(folds) else np.inf
    inside = plane * np.minimum(1, largest / np.maximum(np.linalg.norm(plane, axis=-1, keepdims=True), 1e-12))
    r2 = np.sum(inside**2, axis=-1, keepdims=True)
    x, y = inside[..., :1], inside[..., 1:]
    tangential = np.concatenate(
        [2 * p1 * x * y + p2 * (r2 + 2 * x * x), p1 * (r2 + 2 * y * y) + 2 * p2 * x * y], axis=-1
    )
    return plane * radial(r2) + tangential


def clip_from_camera(camera: Camera, near: float, far: float) -> NDArray[np.float64]:
    """Return the [4, 4] that takes camera space (metres) to clip space; lens distortion is left out."""
    scale = np.diag([2 / camera.width, 2 / camera.height])
    matrix = np.zeros((4, 4))
    matrix[:2, :2] = scale @ camera.intrinsics[:2, :2]
    matrix[:2, 2] = scale @ (camera.intrinsics[:2, 2] + 0.5) - 1  # x_ndc = (2 column + 1) / W − 1
    matrix[2, 2:] = (far + near) / (far - near), -2 * far * near / (far - near)
    matrix[3, 2] = 1
    return matrix


def clip_vertices(points_camera: NDArray, camera: Camera, near: float, far: float) -> NDArray[np.float32]:
    """Take camera-space points [..., P, 3] to clip space [..., P, 4], lens distortion included.

    Distortion moves vertices only: an edge of the mesh stays straight in the picture.
    """
    matrix = clip_from_camera(camera, near, far).astype(np.float32)
    clip = np.empty((*points_camera.shape[:-1], 4), np.float32)
    _project(points_camera.reshape(-1, 3), matrix, clip.reshape(-1, 4))
    if camera.distortion is not None:
        depth = points_camera[..., 2:]
        front = depth > 0
        plane = points_camera[..., :2] / np.where(front, depth, 1)
        shift = (distort(plane, camera.distortion) - plane) @ matrix[:2, :2].T
        clip[..., :2] += np.where(front, shift * depth, 0)
    return clip


@njit(nogil=True, cache=True)
def _project(points, matrix, clip):  # type: ignore[no-untyped-def]
    """Multiply points [n, 3] by a matrix of `clip_from_camera`, without its zeros: clip [n, 4]."""
    fx, skew, cx = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    tilt, fy, cy, scale, shift = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[2, 2], matrix[2, 3]
    for n in range(len(points)):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        clip[n, 0] = fx * x + skew * y + cx * z
        clip[n, 1] = tilt * x + fy * y + cy * z
        clip[n, 2] = scale * z + shift
        clip[n, 3] = z


def crop_camera(camera: Camera, crop: Crop, size: int) -> Camera:
    """Return the camera of a square crop resized to `size`×`size` pixels."""
    scale = size / crop.size_px
    intrinsics = camera.intrinsics.copy()
    intrinsics[:2, :2] *= scale
    intrinsics[:2, 2] = (camera.intrinsics[:2, 2] + 0.5 - (crop.x0, crop.y0)) * scale - 0.5
    return replace(camera, width=size, height=size, intrinsics=intrinsics)
