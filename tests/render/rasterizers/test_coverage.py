"""Which pixels triangles cover, on every back end: the grid, the fill rule, cracks, double hits and ties.

Letters: H rows, W columns, F faces.  Frame: clip space as in `render.rasterizers.protocol`.
"""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from render.rasterizers.protocol import Rasterizer
from tests.render.rasterizers.oracle import (
    SUBPIXELS,
    all_of,
    covered_on_the_grid,
    each_of,
    grid_triangles,
    perspective_vertices,
    pixel_vertices,
)

RESOLUTIONS = [(32, 32), (33, 47), (1, 1), (7, 64)]


def hits(rasterizer: Rasterizer, vertices: NDArray, faces: NDArray, resolution: tuple[int, int]) -> NDArray:
    """How many of the triangles cover each pixel [H, W] when each is drawn alone."""
    return (rasterizer.rasterize(vertices, faces, each_of(faces), resolution)[..., 3] > 0).sum(axis=0)


def sphere(rings: int = 12, sectors: int = 18) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """A closed surface of radius 1: points [V, 3] and faces [F, 3]."""
    polar, around = np.mgrid[0 : np.pi : (rings + 1) * 1j, 0 : 2 * np.pi : (sectors + 1) * 1j]
    grid = np.arange(rings * sectors).reshape(rings, sectors) + 2
    rows = [np.zeros(sectors, int), *grid[:-1], np.ones(sectors, int)]
    points = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], -1)
    faces = []
    for above, below in itertools.pairwise(rows):
        right_above, right_below = np.roll(above, -1), np.roll(below, -1)
        faces += [np.stack([above, below, right_below], 1), np.stack([above, right_below, right_above], 1)]
    inner = points[1:-1, :-1].reshape(-1, 3)
    vertices = np.concatenate([[[0, 0, 1], [0, 0, -1]], inner, inner[:sectors]])
    return vertices, np.concatenate(faces).astype(np.int32)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_each_triangle_covers_exactly_the_pixels_of_the_fill_rule(
    rasterizer: Rasterizer, resolution: tuple[int, int]
) -> None:
    corners = grid_triangles(np.random.default_rng(0), 200, resolution)
    vertices = pixel_vertices(corners.reshape(-1, 2) / SUBPIXELS, resolution)
    faces = np.arange(600, dtype=np.int32).reshape(-1, 3)
    drawn = rasterizer.rasterize(vertices, faces, each_of(faces), resolution)[..., 3]
    expected = np.array([covered_on_the_grid(triangle, resolution) for triangle in corners])
    np.testing.assert_array_equal(drawn > 0, expected)
    numbers = np.arange(1, 201)[:, None, None] * expected
    np.testing.assert_array_equal(drawn, numbers)


def test_the_fill_rule_comparison_meets_every_kind_of_triangle() -> None:
    resolution = (32, 32)
    corners = grid_triangles(np.random.default_rng(0), 200, resolution)
    sides = corners[:, [1, 2]] - corners[:, [0]]
    area = np.abs(np.linalg.det(sides.astype(float)))
    pixels = np.array([covered_on_the_grid(triangle, resolution).sum() for triangle in corners])
    assert (area == 0).sum() >= 2
    assert ((area > 0) & (area < 2 * SUBPIXELS**2)).sum() >= 10  # smaller than a pixel
    assert (pixels == 1).any()
    assert (pixels > 300).any()
    assert (corners % SUBPIXELS == SUBPIXELS // 2).all(axis=-1).sum() > 100  # corners at pixel centres


@pytest.mark.parametrize("resolution", [(32, 32), (33, 47)])
def test_of_level_triangles_the_nearest_wins_and_of_equals_the_later(
    rasterizer: Rasterizer, resolution: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    corners = grid_triangles(rng, 120, resolution)
    depth = rng.choice([-0.5, 0.0, 0.25, 0.75], size=120)  # few depths: many ties
    vertices = pixel_vertices(corners.reshape(-1, 2) / SUBPIXELS, resolution, np.repeat(depth, 3))
    faces = np.arange(360, dtype=np.int32).reshape(-1, 3)
    nearest, expected = np.full(resolution, np.inf), np.zeros(resolution)
    for number, (triangle, z) in enumerate(zip(corners, depth, strict=True), start=1):
        wins = covered_on_the_grid(triangle, resolution) & (z <= nearest)
        nearest[wins], expected[wins] = z, number
    image = rasterizer.rasterize(vertices, faces, all_of(faces), resolution)[0]
    np.testing.assert_array_equal(image[..., 3], expected)
    np.testing.assert_allclose(image[..., 2], np.where(expected > 0, nearest, 0), atol=1e-6)


def test_triangle_covers_pixel_centres_inside_it(rasterizer: Rasterizer) -> None:
    resolution = (6, 8)
    vertices = pixel_vertices([(0, 0), (8, 0), (0, 6)], resolution)
    triangles = np.array([[0, 1, 2]], np.int32)
    image = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0]
    row, column = np.mgrid[:6, :8] + 0.5
    np.testing.assert_array_equal(image[..., 3] > 0, column / 8 + row / 6 < 1)


def test_left_and_lowest_row_edges_through_pixel_centres_are_in_and_the_others_out(
    rasterizer: Rasterizer,
) -> None:
    resolution = (8, 8)
    vertices = pixel_vertices([(1.5, 2.5), (5.5, 2.5), (1.5, 6.5), (5.5, 6.5)], resolution)
    faces = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
    expected = np.zeros(resolution, int)
    expected[2:6, 1:5] = 1
    np.testing.assert_array_equal(hits(rasterizer, vertices, faces, resolution), expected)


def test_shared_edges_are_covered_once(rasterizer: Rasterizer) -> None:
    """A grid on pixel centres, split along both diagonals: every pixel once, whatever the winding."""
    resolution = (9, 9)
    steps = [0.5, 2.5, 4.5, 6.5, 8.5]
    vertices = pixel_vertices([(x, y) for y in steps for x in steps], resolution)
    triangles = []
    for i, j in itertools.product(range(4), range(4)):
        a, b, c, d = 5 * j + i, 5 * j + i + 1, 5 * j + i + 5, 5 * j + i + 6
        triangles += [[a, b, c], [b, c, d]] if (i + j) % 2 else [[a, b, d], [d, a, c]]
    expected = np.zeros(resolution, int)
    expected[:8, :8] = 1  # centres on the left and lowest-row border are in, on the others out
    faces = np.array(triangles, np.int32)
    np.testing.assert_array_equal(hits(rasterizer, vertices, faces, resolution), expected)


def test_a_fan_of_slivers_neither_cracks_nor_overlaps(rasterizer: Rasterizer) -> None:
    resolution = (31, 31)
    angles = np.sort(np.random.default_rng(1).uniform(0, 2 * np.pi, 60))
    rim = [(15.3 + 40 * np.cos(angle), 14.8 + 40 * np.sin(angle)) for angle in angles]
    vertices = pixel_vertices([(15.3, 14.8), *rim], resolution)
    faces = np.array([[0, k + 1, (k + 1) % 60 + 1] for k in range(60)], np.int32)
    np.testing.assert_array_equal(hits(rasterizer, vertices, faces, resolution), 1)


def test_a_sheet_of_subpixel_triangles_neither_cracks_nor_overlaps(rasterizer: Rasterizer) -> None:
    """Triangles of a twentieth of a pixel, of which most cover no centre: every pixel still once."""
    resolution = (9, 7)
    rng = np.random.default_rng(3)
    columns, rows = 3 * 8 + 1, 3 * 10 + 1
    x, y = np.meshgrid(np.linspace(-0.5, 7.5, columns), np.linspace(-0.5, 9.5, rows))
    inner = np.s_[1:-1, 1:-1]
    for axis in (x, y):
        axis[inner] += rng.uniform(-0.08, 0.08, axis[inner].shape)
    vertices = pixel_vertices(np.stack([x, y], -1).reshape(-1, 2), resolution)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    faces = np.concatenate([corner + np.array([0, 1, columns]), corner + np.array([1, columns + 1, columns])])
    np.testing.assert_array_equal(hits(rasterizer, vertices, faces.astype(np.int32), resolution), 1)


def test_a_closed_surface_is_entered_as_often_as_it_is_left(rasterizer: Rasterizer) -> None:
    """At every pixel, the silhouette's too: a crack or a double hit would leave an odd number of hits."""
    points, faces = sphere()
    points = points * (0.9, 0.7, 0.8) + (0.13, -0.08, 2.5)
    count = hits(rasterizer, perspective_vertices(points, 0.5, 5.0), faces, (61, 53))
    np.testing.assert_array_equal(count % 2, 0)
    assert set(np.unique(count)) == {0, 2}  # convex
    assert (count == 2).mean() > 0.1


def test_both_sides_are_drawn_alike(rasterizer: Rasterizer) -> None:
    resolution = (16, 16)
    vertices = pixel_vertices([(1, 1), (14, 2), (3, 13)], resolution, np.array([-0.5, 0.1, 0.6]))
    triangles = np.array([[0, 1, 2], [1, 0, 2]], np.int32)
    front, back = rasterizer.rasterize(vertices, triangles, each_of(triangles), resolution)
    assert (front[..., 3] > 0).sum() > 30
    np.testing.assert_array_equal(front[..., 3] > 0, back[..., 3] > 0)
    np.testing.assert_allclose(front[..., :3], back[..., [1, 0, 2]], atol=1e-6)


def test_degenerate_triangles_cover_nothing(rasterizer: Rasterizer) -> None:
    resolution = (8, 8)
    vertices = pixel_vertices([(0.5, 0.5), (7.5, 7.5), (4.5, 4.5), (2.5, 2.5)], resolution)
    vertices = np.concatenate([vertices, np.zeros((1, 4), np.float32)])
    triangles = np.array([[0, 1, 2], [0, 0, 1], [3, 3, 3], [4, 4, 4], [0, 4, 1]], np.int32)
    image = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)
    np.testing.assert_array_equal(image, 0)


def test_subpixel_triangles_are_seen_only_over_a_pixel_centre(rasterizer: Rasterizer) -> None:
    resolution = (8, 8)
    over = [(3.3, 3.3), (3.8, 3.3), (3.4, 3.9)]
    beside = [(5.05, 5.05), (5.3, 5.05), (5.05, 5.3)]
    vertices = pixel_vertices(over + beside, resolution)
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    numbers = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0, ..., 3]
    expected = np.zeros(resolution)
    expected[3, 3] = 1
    np.testing.assert_array_equal(numbers, expected)


def test_of_one_triangle_drawn_thrice_the_last_wins(rasterizer: Rasterizer) -> None:
    vertices = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16), z=0.25)
    triangles = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2]], np.int32)
    numbers = rasterizer.rasterize(vertices, triangles, all_of(triangles), (16, 16))[0, ..., 3]
    assert set(np.unique(numbers)) == {0, 3}
