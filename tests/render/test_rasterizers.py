"""Every rasterizer keeps one contract: a class of tests that each backend inherits, with a float64 oracle.

Letters: H rows, W columns.  Frame: clip space as in `render.rasterizers.protocol`.
"""

import itertools
import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from render.rasterizers.numba import NumbaRasterizer
from render.rasterizers.protocol import Rasterizer, get_rasterizer

SNAP = 1.5 / 16  # pixels: a snapped edge lies no farther from the true one than this


def oracle(
    clip_vertices: NDArray, triangles: NDArray, resolution: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return [H, W, 4] (u, v, z/w, triangle number + 1) by brute force and where [H, W] that is sure.

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
        if np.linalg.cond(matrix) > 1e12:
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


def all_of(triangles: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.array([[0, len(triangles)]], np.int32)


def pixel_vertices(pixels: list[tuple[float, float]], resolution: tuple[int, int], z: float = 0.0) -> NDArray:
    """Clip-space vertices at (column, row) where whole numbers are pixel CORNERS."""
    height, width = resolution
    return np.array([[2 * x / width - 1, 2 * y / height - 1, z, 1] for x, y in pixels], np.float32)


def perspective_soup(rng: np.random.Generator, count: int, size: float) -> tuple[NDArray, NDArray]:
    """Random triangles in, about and across the frustum, and behind the camera."""
    near, far = 0.5, 4.0
    centre = rng.uniform((-2, -2, -1), (2, 2, 5), size=(count, 1, 3))
    points = (centre + rng.normal(scale=size, size=(count, 3, 3))).reshape(-1, 3)
    clip = np.concatenate(
        [
            points[:, :2] * 1.5,
            ((far + near) * points[:, 2:] - 2 * far * near) / (far - near),
            points[:, 2:],
        ],
        axis=1,
    )
    return clip.astype(np.float32), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


class RasterizerContract:
    @pytest.fixture
    def rasterizer(self) -> Rasterizer:
        raise RuntimeError("a backend's tests say which rasterizer")

    @pytest.mark.parametrize("resolution", [(32, 32), (33, 47), (1, 1), (7, 64)])
    @pytest.mark.parametrize("size", [0.05, 0.4, 3.0])
    def test_agrees_with_brute_force(
        self, rasterizer: Rasterizer, resolution: tuple[int, int], size: float
    ) -> None:
        vertices, triangles = perspective_soup(np.random.default_rng(0), 60, size)
        image = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0]
        expected, sure = oracle(vertices, triangles, resolution)
        np.testing.assert_array_equal(image[sure][:, 3], expected[sure][:, 3])
        np.testing.assert_allclose(image[sure], expected[sure], atol=2e-4)

    def test_brute_force_comparison_is_not_empty(self) -> None:
        vertices, triangles = perspective_soup(np.random.default_rng(0), 60, 0.4)
        expected, sure = oracle(vertices, triangles, (32, 32))
        assert (sure & (expected[..., 3] > 0)).mean() > 0.2
        assert len(np.unique(expected[sure][:, 3])) > 10

    def test_triangle_covers_pixel_centres_inside_it(self, rasterizer: Rasterizer) -> None:
        resolution = (6, 8)
        vertices = pixel_vertices([(0, 0), (8, 0), (0, 6)], resolution)
        triangles = np.array([[0, 1, 2]], np.int32)
        image = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0]
        row, column = np.mgrid[:6, :8] + 0.5
        np.testing.assert_array_equal(image[..., 3] > 0, column / 8 + row / 6 < 1)

    def test_weights_belong_to_vertices_0_and_1(self, rasterizer: Rasterizer) -> None:
        resolution = (8, 8)
        vertices = pixel_vertices([(0, 0), (8, 0), (0, 8)], resolution)
        vertices[:, 2] = (-0.5, 0.25, 0.75)
        triangles = np.array([[0, 1, 2]], np.int32)
        u, v, z, number = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0, 1, 2]
        assert (u, v) == pytest.approx((1 - (2.5 + 1.5) / 8, 2.5 / 8), abs=1e-6)
        assert z == pytest.approx(-0.5 * u + 0.25 * v + 0.75 * (1 - u - v), abs=1e-6)
        assert number == 1

    def test_weights_are_perspective_correct(self, rasterizer: Rasterizer) -> None:
        # A floor strip from w = 1 to w = 3: half-way in the picture is a quarter of the way along the strip.
        vertices = np.array([[-1, -1, 0, 1], [1, -1, 0, 1], [-3, 3, 0, 3], [3, 3, 0, 3]], np.float32)
        triangles = np.array([[0, 1, 2]], np.int32)
        u, v, *_ = rasterizer.rasterize(vertices, triangles, all_of(triangles), (65, 65))[0, 32, 16]
        assert 1 - u - v == pytest.approx(0.25, abs=1e-5)

    def test_shared_edges_are_covered_once(self, rasterizer: Rasterizer) -> None:
        """A grid on pixel centres, split along both diagonals: every pixel once, whatever the winding."""
        resolution = (9, 9)
        steps = [0.5, 2.5, 4.5, 6.5, 8.5]
        vertices = pixel_vertices([(x, y) for y in steps for x in steps], resolution)
        triangles = []
        for i, j in itertools.product(range(4), range(4)):
            a, b, c, d = 5 * j + i, 5 * j + i + 1, 5 * j + i + 5, 5 * j + i + 6
            triangles += [[a, b, c], [b, c, d]] if (i + j) % 2 else [[a, b, d], [d, a, c]]
        faces = np.array(triangles, np.int32)
        ranges = np.stack([np.arange(len(faces)), np.ones(len(faces))], axis=1).astype(np.int32)
        hits = (rasterizer.rasterize(vertices, faces, ranges, resolution)[..., 3] > 0).sum(axis=0)
        expected = np.zeros(resolution, int)
        expected[:8, :8] = 1  # centres on the left and lowest-row border are in, on the others out
        np.testing.assert_array_equal(hits, expected)

    def test_a_fan_of_slivers_neither_cracks_nor_overlaps(self, rasterizer: Rasterizer) -> None:
        resolution = (31, 31)
        angles = np.sort(np.random.default_rng(1).uniform(0, 2 * np.pi, 60))
        rim = [(15.3 + 40 * np.cos(angle), 14.8 + 40 * np.sin(angle)) for angle in angles]
        vertices = pixel_vertices([(15.3, 14.8), *rim], resolution)
        faces = np.array([[0, k + 1, (k + 1) % 60 + 1] for k in range(60)], np.int32)
        ranges = np.stack([np.arange(60), np.ones(60)], axis=1).astype(np.int32)
        hits = (rasterizer.rasterize(vertices, faces, ranges, resolution)[..., 3] > 0).sum(axis=0)
        np.testing.assert_array_equal(hits, 1)

    def test_a_surface_through_the_near_plane_neither_cracks_nor_overlaps(
        self, rasterizer: Rasterizer
    ) -> None:
        """A floor from behind the camera to the horizon, of triangles of which many cross the near plane."""
        rng = np.random.default_rng(2)
        x, z = np.meshgrid(np.linspace(-20, 20, 8), np.linspace(-3, 9, 9))
        z[1:-1] += rng.uniform(-0.5, 0.5, size=(7, 8))
        points = np.stack([x, np.full_like(x, 0.6), z], axis=-1).reshape(-1, 3)
        near, far = 0.3, 8.0
        depth = ((far + near) * points[:, 2] - 2 * far * near) / (far - near)
        vertices = np.stack([points[:, 0], points[:, 1], depth, points[:, 2]], axis=1).astype(np.float32)
        corner = (np.arange(8)[:, None] * 8 + np.arange(7)).reshape(-1, 1)
        faces = np.concatenate([corner + np.array(offsets) for offsets in ([0, 1, 8], [1, 9, 8])]).astype(
            np.int32
        )
        ranges = np.stack([np.arange(len(faces)), np.ones(len(faces))], axis=1).astype(np.int32)
        hits = (rasterizer.rasterize(vertices, faces, ranges, (64, 64))[..., 3] > 0).sum(axis=0)
        floor = 0.6 / ((2 * np.arange(64) + 1) / 64 - 1)  # depth of the floor seen at each row
        seen = (floor > near * 1.05) & (floor < far * 0.95)
        np.testing.assert_array_equal(hits[seen], 1)
        np.testing.assert_array_equal(hits[(floor < 0) | (floor > far * 1.1)], 0)

    def test_triangles_behind_the_camera_are_invisible(self, rasterizer: Rasterizer) -> None:
        front = np.array([[-1, -1, 0.5, 1], [1, -1, 0.5, 1], [0, 1, 0.5, 1]], np.float32)
        triangles = np.array([[0, 1, 2]], np.int32)
        image = rasterizer.rasterize(-front, triangles, all_of(triangles), (16, 16))
        np.testing.assert_array_equal(image, 0)

    def test_both_sides_are_drawn(self, rasterizer: Rasterizer) -> None:
        vertices = pixel_vertices([(1, 1), (14, 2), (3, 13)], (16, 16))
        triangles = np.array([[0, 1, 2], [0, 2, 1]], np.int32)
        ranges = np.array([[0, 1], [1, 1]], np.int32)
        front, back = rasterizer.rasterize(vertices, triangles, ranges, (16, 16))[..., 3]
        assert (front > 0).any()
        np.testing.assert_array_equal(front > 0, back > 0)

    @pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("axis", range(4))
    def test_triangles_with_a_broken_vertex_are_ignored_and_others_are_not(
        self, rasterizer: Rasterizer, poison: float, axis: int
    ) -> None:
        resolution = (16, 16)
        vertices = pixel_vertices([(0, 0), (16, 0), (0, 16), (1, 2)], resolution)
        triangles = np.array([[0, 1, 2], [0, 1, 3]], np.int32)
        clean = rasterizer.rasterize(vertices, triangles[:1], all_of(triangles[:1]), resolution)
        vertices[3, axis] = poison
        broken = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)
        np.testing.assert_array_equal(broken, clean)

    def test_degenerate_triangles_cover_nothing(self, rasterizer: Rasterizer) -> None:
        resolution = (8, 8)
        vertices = pixel_vertices([(0.5, 0.5), (7.5, 7.5), (4.5, 4.5), (2.5, 2.5)], resolution)
        vertices = np.concatenate([vertices, np.zeros((1, 4), np.float32)])
        triangles = np.array([[0, 1, 2], [0, 0, 1], [3, 3, 3], [4, 4, 4], [0, 4, 1]], np.int32)
        image = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)
        np.testing.assert_array_equal(image, 0)

    def test_subpixel_triangles_are_seen_only_over_a_pixel_centre(self, rasterizer: Rasterizer) -> None:
        resolution = (8, 8)
        over = [(3.3, 3.3), (3.8, 3.3), (3.4, 3.9)]
        beside = [(5.05, 5.05), (5.3, 5.05), (5.05, 5.3)]
        vertices = pixel_vertices(over + beside, resolution)
        triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
        numbers = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0, ..., 3]
        expected = np.zeros(resolution)
        expected[3, 3] = 1
        np.testing.assert_array_equal(numbers, expected)

    def test_of_equally_near_triangles_the_later_wins(self, rasterizer: Rasterizer) -> None:
        vertices = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16), z=0.25)
        triangles = np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2]], np.int32)
        numbers = rasterizer.rasterize(vertices, triangles, all_of(triangles), (16, 16))[0, ..., 3]
        assert set(np.unique(numbers)) == {0, 3}

    def test_nearer_triangle_wins_in_either_order(self, rasterizer: Rasterizer) -> None:
        near = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16), z=-0.5)
        far = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16), z=0.5)
        vertices = np.concatenate([near, far])
        triangles = np.array([[0, 1, 2], [3, 4, 5], [0, 1, 2]], np.int32)
        ranges = np.array([[0, 2], [1, 2]], np.int32)
        first, second = rasterizer.rasterize(vertices, triangles, ranges, (16, 16))
        assert first[4, 4, 3] == 1
        assert second[4, 4, 3] == 3
        np.testing.assert_allclose(first[4, 4, 2], -0.5, atol=1e-6)

    def test_clips_to_near_and_far(self, rasterizer: Rasterizer) -> None:
        """A slope from z = −3 to 3 shows where |z| ≤ 1 only."""
        resolution = (16, 24)
        vertices = np.array([[-1, -1, -3, 1], [1, -1, 3, 1], [-1, 1, -3, 1], [1, 1, 3, 1]], np.float32)
        triangles = np.array([[0, 1, 2], [1, 3, 2]], np.int32)
        numbers = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0, ..., 3]
        np.testing.assert_array_equal((numbers > 0).all(axis=0), [8 <= column < 16 for column in range(24)])

    def test_empty_ranges_give_empty_images(self, rasterizer: Rasterizer) -> None:
        vertices = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16))
        triangles = np.array([[0, 1, 2]], np.int32)
        image = rasterizer.rasterize(
            vertices, triangles, np.array([[0, 0], [0, 1], [1, 0]], np.int32), (16, 16)
        )
        np.testing.assert_array_equal(image[[0, 2]], 0)
        assert image[1].any()
        assert rasterizer.rasterize(vertices, triangles, np.zeros((0, 2), np.int32), (4, 4)).shape == (
            0,
            4,
            4,
            4,
        )

    def test_range_outside_the_triangles_is_an_error(self, rasterizer: Rasterizer) -> None:
        vertices, triangles = perspective_soup(np.random.default_rng(0), 4, 0.1)
        with pytest.raises(ValueError, match="outside the 4 triangles"):
            rasterizer.rasterize(vertices, triangles, np.array([[2, 3]], np.int32), (8, 8))

    def test_ranges_draw_their_own_triangles_alone(self, rasterizer: Rasterizer) -> None:
        vertices, triangles = perspective_soup(np.random.default_rng(3), 40, 0.6)
        ranges = np.array([[0, 10], [10, 25], [5, 30], [35, 5]], np.int32)
        together = rasterizer.rasterize(vertices, triangles, ranges, (24, 20))
        for image, (first, count) in zip(together, ranges, strict=True):
            alone = rasterizer.rasterize(
                vertices, triangles[first : first + count], np.array([[0, count]], np.int32), (24, 20)
            )[0]
            alone[..., 3] += first * (alone[..., 3] > 0)
            np.testing.assert_array_equal(image, alone)

    def test_ids_alone_are_the_fourth_channel(self, rasterizer: Rasterizer) -> None:
        vertices, triangles = perspective_soup(np.random.default_rng(4), 80, 0.5)
        ranges = np.array([[0, 40], [40, 40]], np.int32)
        image = rasterizer.rasterize(vertices, triangles, ranges, (30, 40))
        ids = next(rasterizer.nearest_ids(vertices, triangles, ranges, (30, 40)))
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids, image[..., 3])

    def test_depth_layers_come_nearest_first(self, rasterizer: Rasterizer) -> None:
        depths = (0.3, -0.6, 0.1, -0.2)
        vertices = np.concatenate([pixel_vertices([(0, 0), (32, 0), (0, 32)], (16, 16), z) for z in depths])
        triangles = np.arange(12, dtype=np.int32).reshape(4, 3)
        layers = rasterizer.nearest_ids(vertices, triangles, all_of(triangles), (16, 16), depth_layers=5)
        assert [int(ids[0, 5, 5]) for ids in layers] == [2, 4, 3, 1, 0]

    def test_same_input_gives_same_bytes(self, rasterizer: Rasterizer) -> None:
        vertices, triangles = perspective_soup(np.random.default_rng(5), 200, 0.5)
        ranges = np.array([[20 * k, 20] for k in range(10)], np.int32)
        first, second = (rasterizer.rasterize(vertices, triangles, ranges, (33, 31)) for _ in range(2))
        assert first.tobytes() == second.tobytes()


class TestNumba(RasterizerContract):
    @pytest.fixture
    def rasterizer(self) -> Rasterizer:
        return NumbaRasterizer()

    def test_bytes_do_not_depend_on_the_number_of_threads(self) -> None:
        vertices, triangles = perspective_soup(np.random.default_rng(5), 200, 0.5)
        ranges = np.array([[20 * k, 20] for k in range(10)], np.int32)
        images = [
            NumbaRasterizer(num_threads).rasterize(vertices, triangles, ranges, (33, 31)).tobytes()
            for num_threads in (1, 2, 7)
        ]
        assert len(set(images)) == 1


@pytest.mark.gpu
class TestNvdiffrast(RasterizerContract):
    @pytest.fixture
    def rasterizer(self) -> Rasterizer:
        return get_rasterizer("nvdiffrast")


def test_auto_says_why_it_falls_back_to_numba(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="render.rasterizers.protocol")
    rasterizer = get_rasterizer("auto")
    assert rasterizer.name in ("numba", "nvdiffrast")
    if rasterizer.name == "numba":
        assert "nvdiffrast does not work here" in caplog.text
