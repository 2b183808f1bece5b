"""What a rasterizer says about covered pixels, on every back end: ids, weights, depth, ranges and layers.

Letters: H rows, W columns.  Frame: clip space as in `render.rasterizers.protocol`.
"""

import numpy as np
import pytest

from render.rasterizers.numba import NumbaRasterizer
from render.rasterizers.protocol import Rasterizer
from tests.render.rasterizers.oracle import all_of, perspective_soup, pixel_vertices, seen_by_brute_force


@pytest.mark.parametrize("resolution", [(32, 32), (33, 47), (1, 1), (7, 64)])
@pytest.mark.parametrize("size", [0.05, 0.4, 3.0])
def test_agrees_with_brute_force(rasterizer: Rasterizer, resolution: tuple[int, int], size: float) -> None:
    vertices, triangles = perspective_soup(np.random.default_rng(0), 60, size)
    image = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0]
    expected, sure = seen_by_brute_force(vertices, triangles, resolution)
    np.testing.assert_array_equal(image[sure][:, 3], expected[sure][:, 3])
    np.testing.assert_allclose(image[sure], expected[sure], atol=2e-4)


def test_brute_force_comparison_is_not_empty() -> None:
    vertices, triangles = perspective_soup(np.random.default_rng(0), 60, 0.4)
    expected, sure = seen_by_brute_force(vertices, triangles, (32, 32))
    assert (sure & (expected[..., 3] > 0)).mean() > 0.2
    assert len(np.unique(expected[sure][:, 3])) > 10


def test_weights_belong_to_vertices_0_and_1(rasterizer: Rasterizer) -> None:
    resolution = (8, 8)
    vertices = pixel_vertices([(0, 0), (8, 0), (0, 8)], resolution, np.array([-0.5, 0.25, 0.75]))
    triangles = np.array([[0, 1, 2]], np.int32)
    u, v, z, number = rasterizer.rasterize(vertices, triangles, all_of(triangles), resolution)[0, 1, 2]
    assert (u, v) == pytest.approx((1 - (2.5 + 1.5) / 8, 2.5 / 8), abs=1e-6)
    assert z == pytest.approx(-0.5 * u + 0.25 * v + 0.75 * (1 - u - v), abs=1e-6)
    assert number == 1


def test_weights_are_perspective_correct(rasterizer: Rasterizer) -> None:
    # A floor strip from w = 1 to w = 3: half-way in the picture is a quarter of the way along the strip.
    vertices = np.array([[-1, -1, 0, 1], [1, -1, 0, 1], [-3, 3, 0, 3], [3, 3, 0, 3]], np.float32)
    triangles = np.array([[0, 1, 2]], np.int32)
    u, v, *_ = rasterizer.rasterize(vertices, triangles, all_of(triangles), (65, 65))[0, 32, 16]
    assert 1 - u - v == pytest.approx(0.25, abs=1e-5)


def test_weights_at_snapped_edges_stay_within_a_sixteenth(rasterizer: Rasterizer) -> None:
    """A pixel in a snapped triangle can lie outside the true one; slivers would extrapolate without bound."""
    vertices, triangles = perspective_soup(np.random.default_rng(6), 400, 0.05)
    image = rasterizer.rasterize(vertices, triangles, all_of(triangles), (40, 40))[0]
    u, v = image[image[..., 3] > 0][:, :2].T
    assert len(u) > 50
    for weight in (u, v, 1 - u - v):
        assert weight.min() >= -1 / 16 - 1e-6
        assert weight.max() <= 1 + 1 / 16 + 1e-6


def test_depth_is_between_near_and_far(rasterizer: Rasterizer) -> None:
    vertices, triangles = perspective_soup(np.random.default_rng(7), 200, 1.0)
    image = rasterizer.rasterize(vertices, triangles, all_of(triangles), (40, 40))[0]
    assert np.abs(image[..., 2]).max() <= 1
    np.testing.assert_array_equal(image[image[..., 3] == 0], 0)


def test_nearer_triangle_wins_in_either_order(rasterizer: Rasterizer) -> None:
    near = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16), z=-0.5)
    far = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16), z=0.5)
    vertices = np.concatenate([near, far])
    triangles = np.array([[0, 1, 2], [3, 4, 5], [0, 1, 2]], np.int32)
    ranges = np.array([[0, 2], [1, 2]], np.int32)
    first, second = rasterizer.rasterize(vertices, triangles, ranges, (16, 16))
    assert first[4, 4, 3] == 1
    assert second[4, 4, 3] == 3
    np.testing.assert_allclose(first[4, 4, 2], -0.5, atol=1e-6)


def test_triangles_that_pierce_one_another_split_where_their_depths_cross(rasterizer: Rasterizer) -> None:
    resolution = (16, 32)
    square = [(0, 0), (32, 0), (0, 16), (32, 16)]
    rising = pixel_vertices(square, resolution, np.array([-0.8, 0.8, -0.8, 0.8]))
    level = pixel_vertices(square, resolution, 0.0)
    triangles = np.array([[0, 1, 2], [1, 3, 2], [4, 5, 6], [5, 7, 6]], np.int32)
    image = rasterizer.rasterize(np.concatenate([rising, level]), triangles, all_of(triangles), resolution)[0]
    np.testing.assert_array_equal(image[:, :16, 3] <= 2, True)
    np.testing.assert_array_equal(image[:, 16:, 3] > 2, True)


def test_empty_ranges_give_empty_images(rasterizer: Rasterizer) -> None:
    vertices = pixel_vertices([(0, 0), (16, 0), (0, 16)], (16, 16))
    triangles = np.array([[0, 1, 2]], np.int32)
    ranges = np.array([[0, 0], [0, 1], [1, 0]], np.int32)
    image = rasterizer.rasterize(vertices, triangles, ranges, (16, 16))
    np.testing.assert_array_equal(image[[0, 2]], 0)
    assert image[1].any()
    no_ranges = np.zeros((0, 2), np.int32)
    assert rasterizer.rasterize(vertices, triangles, no_ranges, (4, 4)).shape == (0, 4, 4, 4)


def test_nothing_at_all_gives_empty_images(rasterizer: Rasterizer) -> None:
    vertices, triangles = np.zeros((0, 4), np.float32), np.zeros((0, 3), np.int32)
    image = rasterizer.rasterize(vertices, triangles, np.zeros((2, 2), np.int32), (5, 3))
    np.testing.assert_array_equal(image, np.zeros((2, 5, 3, 4)))


def test_range_outside_the_triangles_is_an_error(rasterizer: Rasterizer) -> None:
    vertices, triangles = perspective_soup(np.random.default_rng(0), 4, 0.1)
    with pytest.raises(ValueError, match="outside the 4 triangles"):
        rasterizer.rasterize(vertices, triangles, np.array([[2, 3]], np.int32), (8, 8))


def test_ranges_draw_their_own_triangles_alone(rasterizer: Rasterizer) -> None:
    vertices, triangles = perspective_soup(np.random.default_rng(3), 40, 0.6)
    ranges = np.array([[0, 10], [10, 25], [5, 30], [35, 5]], np.int32)
    together = rasterizer.rasterize(vertices, triangles, ranges, (24, 20))
    for image, (first, count) in zip(together, ranges, strict=True):
        alone = rasterizer.rasterize(
            vertices, triangles[first : first + count], np.array([[0, count]], np.int32), (24, 20)
        )[0]
        alone[..., 3] += first * (alone[..., 3] > 0)
        np.testing.assert_array_equal(image, alone)


def test_an_image_holds_nothing_of_the_call_before(rasterizer: Rasterizer) -> None:
    """Buffers are used again: a small picture after a large one, and fewer ranges after more."""
    vertices, triangles = perspective_soup(np.random.default_rng(8), 60, 1.0)
    thirds = np.array([[0, 20], [20, 20], [40, 20]], np.int32)
    list(rasterizer.nearest_ids(vertices, triangles, thirds, (40, 50)))
    few = np.array([[40, 1], [0, 0]], np.int32)
    ids = next(rasterizer.nearest_ids(vertices, triangles, few, (30, 20)))
    np.testing.assert_array_equal(ids, rasterizer.rasterize(vertices, triangles, few, (30, 20))[..., 3])
    np.testing.assert_array_equal(ids[1], 0)
    assert set(np.unique(ids[0])) <= {0, 41}


def test_ids_alone_are_the_fourth_channel(rasterizer: Rasterizer) -> None:
    vertices, triangles = perspective_soup(np.random.default_rng(4), 80, 0.5)
    ranges = np.array([[0, 40], [40, 40]], np.int32)
    image = rasterizer.rasterize(vertices, triangles, ranges, (30, 40))
    ids = next(rasterizer.nearest_ids(vertices, triangles, ranges, (30, 40)))
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, image[..., 3])


def test_depth_layers_come_nearest_first(rasterizer: Rasterizer) -> None:
    depths = (0.3, -0.6, 0.1, -0.2)
    vertices = np.concatenate([pixel_vertices([(0, 0), (32, 0), (0, 32)], (16, 16), z) for z in depths])
    triangles = np.arange(12, dtype=np.int32).reshape(4, 3)
    layers = rasterizer.nearest_ids(vertices, triangles, all_of(triangles), (16, 16), depth_layers=5)
    assert [int(ids[0, 5, 5]) for ids in layers] == [2, 4, 3, 1, 0]


def test_same_input_gives_same_bytes(rasterizer: Rasterizer) -> None:
    vertices, triangles = perspective_soup(np.random.default_rng(5), 200, 0.5)
    ranges = np.array([[20 * k, 20] for k in range(10)], np.int32)
    first, second = (rasterizer.rasterize(vertices, triangles, ranges, (33, 31)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_numba_bytes_do_not_depend_on_the_number_of_threads() -> None:
    vertices, triangles = perspective_soup(np.random.default_rng(5), 200, 0.5)
    ranges = np.array([[20 * k, 20] for k in range(10)], np.int32)
    images = [
        NumbaRasterizer(num_threads).rasterize(vertices, triangles, ranges, (33, 31)).tobytes()
        for num_threads in (1, 2, 7)
    ]
    assert len(set(images)) == 1
