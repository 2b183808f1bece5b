"""Two oracles by brute force, in float64 and in whole numbers, and the geometry that they are asked about.

Letters: H rows, W columns, V vertices, F faces.  Frame: clip space as in `render.rasterizers.protocol`.
"""

import numpy as np
from numpy.typing import NDArray

SUBPIXELS = 16
SNAP = 1.5 / SUBPIXELS  # pixels: a snapped edge lies no farther from the true one than this


def seen_by_brute_force(
    clip_vertices: NDArray, triangles: NDArray, resolution: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return [H, W, 4] (u, v, z/w, triangle number + 1) and where [H, W] that is sure.

    Every triangle meets every pixel, and nothing is clipped: inside is where all homogeneous weights are ≥ 0
    and |z| ≤ w. Vertices are not snapped, so pixels closer than a grid step to an edge are not sure.
    """
    height, width = resolution
    x, y = np.meshgrid((2 * np.arange(width) + 1) / width - 1, (2 * np.arange(height) + 1) / height - 1)
    image = np.zeros((height, width, 4))
    nearest = np.full((height, width), np.inf)
    second = np.full((height, width), np.inf)
    near_edge = np.zeros((height, width), bool)
    for number, corners in enumerate(clip_vertices.astype(np.float64)[triangles], start=1):
        if not np.isfinite(corners).all():
            continue
        matrix = corners[:, [0, 1, 3]].T  # columns: vertices
        if np.linalg.cond(matrix / np.abs(matrix).max(axis=0)) > 1e12:
            continue
        inverse = np.linalg.inv(matrix)
        scaled = np.moveaxis(np.tensordot(inverse, np.stack([x, y, np.ones_like(x)]), axes=1), 0, -1)
        weights = scaled / scaled.sum(-1, keepdims=True)  # [H, W, 3] perspective-correct
        z = scaled @ corners[:, 2]  # z/w
        inside = (scaled >= 0).all(-1) & (scaled.sum(-1) > 0) & (np.abs(z) <= 1)
        slopes = inverse[:, :2] * (2 / width, 2 / height)  # [3, 2] change of `scaled` a pixel
        per_pixel = np.linalg.norm(slopes, axis=1)
        distance = np.abs(scaled) / per_pixel
        outside_of_others = (scaled < -SNAP * per_pixel).any(-1)
        near_plane = np.abs(np.abs(z) - 1) <= SNAP * np.abs(corners[:, 2] @ slopes).sum() + 1e-9
        near_edge |= ((distance.min(-1) < SNAP) | near_plane) & ~outside_of_others
        closer = inside & (z <= nearest)
        second = np.where(closer, nearest, np.where(inside, np.minimum(second, z), second))
        nearest = np.where(closer, z, nearest)
        image[closer] = np.concatenate(
            [weights[..., :2], z[..., None], np.full_like(z, number)[..., None]], -1
        )[closer]
    with np.errstate(invalid="ignore"):
        tie = second - nearest < 1e-3
    return image, ~(near_edge | tie)


def covered_on_the_grid(corners: NDArray[np.int64], resolution: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels [H, W] a triangle covers, exactly: corners [3, 2] (x, y) in steps of 1/16 pixel.

    A centre on an edge counts where the edge is a left one, or a horizontal one of the lowest row.
    """
    row, column = np.mgrid[: resolution[0], : resolution[1]] * SUBPIXELS + SUBPIXELS // 2
    (ax, ay), (bx, by), (cx, cy) = corners.astype(np.int64)
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area == 0:
        return np.zeros(resolution, bool)
    loop = [(ax, ay), (bx, by), (cx, cy)] if area > 0 else [(ax, ay), (cx, cy), (bx, by)]
    covered = np.ones(resolution, bool)
    for (x0, y0), (x1, y1) in zip(loop, loop[1:] + loop[:1], strict=True):
        side = (x1 - x0) * (row - y0) - (y1 - y0) * (column - x0)
        left = y1 < y0
        lowest_row = y1 == y0 and x1 > x0
        covered &= side >= 0 if left or lowest_row else side > 0
    return covered


def all_of(triangles: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the one range that holds all triangles."""
    return np.array([[0, len(triangles)]], np.int32)


def each_of(triangles: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return a range for every triangle."""
    return np.stack([np.arange(len(triangles)), np.ones(len(triangles))], axis=1).astype(np.int32)


def pixel_vertices(
    pixels: NDArray | list[tuple[float, float]], resolution: tuple[int, int], z: float | NDArray = 0.0
) -> NDArray[np.float32]:
    """Return clip-space vertices at (column, row), where whole numbers are pixel CORNERS."""
    height, width = resolution
    x, y = np.asarray(pixels, float).T
    return np.stack(
        [2 * x / width - 1, 2 * y / height - 1, np.broadcast_to(z, x.shape), np.ones_like(x)], axis=1
    ).astype(np.float32)


def perspective_vertices(points: NDArray, near: float, far: float, focal: float = 1.5) -> NDArray[np.float32]:
    """Take camera-space points [V, 3] to clip space [V, 4]."""
    depth = ((far + near) * points[:, 2] - 2 * far * near) / (far - near)
    return np.column_stack([focal * points[:, :2], depth, points[:, 2]]).astype(np.float32)


def perspective_soup(
    rng: np.random.Generator, count: int, size: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Return random triangles in, about and across the frustum, and behind the camera."""
    centre = rng.uniform((-2, -2, -1), (2, 2, 5), size=(count, 1, 3))
    points = (centre + rng.normal(scale=size, size=(count, 3, 3))).reshape(-1, 3)
    vertices = perspective_vertices(points, near=0.5, far=4.0)
    return vertices, np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def grid_triangles(rng: np.random.Generator, count: int, resolution: tuple[int, int]) -> NDArray[np.int64]:
    """Return random triangles [F, 3, 2] on the 1/16-pixel grid, in, across and about the picture.

    Many have corners at pixel centres, horizontal or vertical edges, no area, or less than a pixel's.
    """
    height, width = (SUBPIXELS * extent for extent in resolution)
    spread = rng.choice([4, 40, 400], size=(count, 1, 1))
    centre = rng.integers(-20, np.array([width, height]) + 20, size=(count, 1, 2))
    corners = centre + rng.integers(-spread, spread + 1, size=(count, 3, 2))
    at_centres = rng.random((count, 3, 1)) < 0.4
    corners = np.where(at_centres, corners // SUBPIXELS * SUBPIXELS + SUBPIXELS // 2, corners)
    axis = rng.integers(0, 2, count)
    aligned = np.flatnonzero(rng.random(count) < 0.4)
    corners[aligned, 1, axis[aligned]] = corners[aligned, 0, axis[aligned]]
    return corners
