"""Triangles that leave the picture or the range of depth, or that no arithmetic can draw, on every back end.

Letters: H rows, W columns, V vertices.  Frame: clip space as in `render.rasterizers.protocol`.
"""

import numpy as np
import pytest

from render.rasterizers.protocol import Rasterizer
from tests.render.rasterizers.oracle import (
    all_of,
    each_of,
    perspective_vertices,
    pixel_vertices,
    seen_by_brute_force,
)


def test_a_surface_through_the_near_plane_neither_cracks_nor_overlaps(rasterizer: Rasterizer) -> None:
    """A floor from behind the camera to the horizon, of triangles of which many cross the near plane."""
    rng = np.random.default_rng(2)
    x, z = np.meshgrid(np.linspace(-20, 20, 8), np.linspace(-3, 9, 9))
    z[1:-1] += rng.uniform(-0.5, 0.5, size=(7, 8))
    points = np.stack([x, np.full_like(x, 0.6), z], axis=-1).reshape(-1, 3)
    near, far = 0.3, 8.0
    vertices = perspective_vertices(points, near, far, focal=1.0)
    corner = (np.arange(8)[:, None] * 8 + np.arange(7)).reshape(-1, 1)
    faces = np.concatenate([corner + np.array(offsets) for offsets in ([0, 1, 8], [1, 9, 8])]).astype(
        np.int32
    )
    hits = (rasterizer.rasterize(vertices, faces, each_of(faces), (64, 64))[..., 3] > 0).sum(axis=0)
    floor = 0.6 / ((2 * np.arange(64) + 1) / 64 - 1)  # depth of the floor seen at each row
    seen = (floor > near * 1.05) & (floor < far * 0.95)
    np.testing.assert_array_equal(hits[seen], 1)
    np.testing.assert_array_equal(hits[(floor < 0) | (floor > far * 1.1)], 0)


def test_a_floor_through_the_camera_has_the_depth_of_a_floor(rasterizer: Rasterizer) -> None:
    """Two triangles from behind the camera to beyond far: closed form, z/w from 1/depth."""
    near, far, height = 0.25, 6.0, 0.4
    points = np.array([[-30, height, -2], [30, height, -2], [-30, height, 9], [30, height, 9]])
    vertices = perspective_vertices(points, near, far, focal=1.0)
    faces = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    image = rasterizer.rasterize(vertices, faces, all_of(faces), (65, 33))[0]
    slope = (2 * np.arange(65) + 1) / 65 - 1
    with np.errstate(divide="ignore"):
        depth = height / slope
    seen = (depth > near * 1.02) & (depth < far * 0.98)
    expected = (far + near - 2 * far * near / depth[seen]) / (far - near)
    np.testing.assert_allclose(image[seen, :, 2], np.tile(expected[:, None], 33), atol=2e-5)
    np.testing.assert_array_equal(image[(depth < near * 0.98) | (depth > far * 1.02)], 0)


def test_triangles_behind_the_camera_are_invisible(rasterizer: Rasterizer) -> None:
    front = np.array([[-1, -1, 0.5, 1], [1, -1, 0.5, 1], [0, 1, 0.5, 1]], np.float32)
    triangles = np.array([[0, 1, 2]], np.int32)
    assert rasterizer.rasterize(front, triangles, all_of(triangles), (16, 16)).any()
    image = rasterizer.rasterize(-front, triangles, all_of(triangles), (16, 16))
    np.testing.assert_array_equal(image, 0)


def test_clips_to_near_and_far(rasterizer: Rasterizer) -> None:
    """A slope from z = −3 to 3 shows where |z| ≤ 1 only."""
    resolution = (16, 24)
    vertices = np.array([[-1, -1, -3, 1], [1, -1, 3, 1], [-1, 1, -3, 1], [1, 1, 3, 1]], np.float32)
    triangles = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    numbers = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0, ..., 3]
    np.testing.assert_array_equal((numbers > 0).all(axis=0), [8 <= column < 16 for column in range(24)])


@pytest.mark.parametrize("reach", [3.0, 1e3, 1e5, 1e7])
def test_triangles_that_reach_far_out_of_the_picture_are_drawn_in_it(
    rasterizer: Rasterizer, reach: float
) -> None:
    """A half-plane through the picture's centre, its corners ever farther away: the same pixels."""
    resolution = (33, 31)
    vertices = np.array(
        [[-reach, -2 * reach, 0.5, 1], [reach, 2 * reach, 0.5, 1], [-reach, 2 * reach, 0.5, 1]], np.float32
    )
    triangles = np.array([[0, 1, 2]], np.int32)
    image = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0]
    x = (2 * np.arange(31) + 1) / 31 - 1
    y = (2 * np.arange(33) + 1) / 33 - 1
    inside = y[:, None] - 2 * x
    sure = np.abs(inside) > 0.02  # a clipped corner is snapped, too
    np.testing.assert_array_equal((image[..., 3] > 0)[sure], (inside > 0)[sure])
    np.testing.assert_allclose(image[image[..., 3] > 0][:, 2], 0.5, atol=1e-5)


def test_triangles_with_corners_at_infinity_are_drawn(rasterizer: Rasterizer) -> None:
    """w = 0 is a direction: a strip from the centre to infinity on the right."""
    resolution = (32, 32)
    vertices = np.array([[0, -0.5, 0, 1], [1, 0, 0, 0], [0, 0.5, 0, 1]], np.float32)
    triangles = np.array([[0, 1, 2]], np.int32)
    numbers = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0, ..., 3]
    expected, sure = seen_by_brute_force(vertices, triangles, resolution)
    assert expected[..., 3].sum() == 16 * 16
    np.testing.assert_array_equal(numbers[sure], expected[sure][:, 3])


@pytest.mark.parametrize("w", [1e-3, 1.0, 1e3])
def test_only_ratios_to_w_matter(rasterizer: Rasterizer, w: float) -> None:
    vertices = pixel_vertices([(1.2, 1.1), (14.3, 2.2), (3.4, 13.9)], (16, 16), np.array([-0.5, 0.1, 0.6]))
    triangles = np.array([[0, 1, 2]], np.int32)
    plain, scaled = (
        rasterizer.rasterize(corners.astype(np.float32), triangles, all_of(triangles), (16, 16))[0]
        for corners in (vertices, w * vertices)
    )
    np.testing.assert_array_equal(scaled[..., 3], plain[..., 3])
    np.testing.assert_allclose(scaled, plain, atol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", range(4))
def test_triangles_with_a_broken_vertex_are_ignored_and_others_are_not(
    rasterizer: Rasterizer, poison: float, axis: int
) -> None:
    resolution = (16, 16)
    vertices = pixel_vertices([(0, 0), (16, 0), (0, 16), (1, 2)], resolution)
    triangles = np.array([[0, 1, 2], [0, 1, 3]], np.int32)
    clean = rasterizer.rasterize(vertices, triangles[:1], all_of(triangles[:1]), resolution)
    vertices[3, axis] = poison
    broken = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)
    np.testing.assert_array_equal(broken, clean)


def test_vertices_that_overflow_float32_products_do_no_harm(rasterizer: Rasterizer) -> None:
    vertices = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16))
    wild = np.array([[3e38, -3e38, 3e38, 1], [-3e38, 3e38, 0, 3e38], [0, 0, 0, 1e-40]], np.float32)
    triangles = np.array([[3, 4, 5], [0, 1, 2]], np.int32)
    image = rasterizer.rasterize(np.concatenate([vertices, wild]), triangles, each_of(triangles), (16, 16))
    assert np.isfinite(image).all()
    alone = rasterizer.rasterize(vertices, triangles[1:], all_of(triangles[1:]), (16, 16))[0]
    np.testing.assert_array_equal(image[1, ..., :3], alone[..., :3])
