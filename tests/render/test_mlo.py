"""Stored codes keep normals, depth and the order of layers; hands fold to the nearer one."""

import numpy as np
import pytest

from render.mlo import (
    confidence,
    decode_depth,
    decode_normals,
    encode_depth,
    encode_normals,
    fold_hands,
)
from render.scene import STORED_LAYERS, Layer


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def test_normals_survive_within_half_a_degree(rng: np.random.Generator) -> None:
    normals = unit(rng.normal(size=(1000, 3)))
    decoded = unit(decode_normals(encode_normals(normals)))
    assert np.degrees(np.arccos(np.clip((normals * decoded).sum(-1), -1, 1))).max() < 0.5


def test_axes_are_exact_and_empty_is_zero() -> None:
    normals = np.concatenate([np.eye(3), -np.eye(3), np.zeros((1, 3))]).astype(np.float32)
    np.testing.assert_array_equal(decode_normals(encode_normals(normals)), normals)
    np.testing.assert_array_equal(encode_normals(normals[-1]), [0, 0, 0])


def test_depth_error_is_below_a_tenth_of_a_millimetre_at_a_metre(rng: np.random.Generator) -> None:
    depth = rng.uniform(0.3, 3.0, size=10_000).astype(np.float32)
    error = np.abs(decode_depth(encode_depth(depth, 0.3, 3.0), 0.3, 3.0) - depth)
    assert error.max() < 1e-4


def test_depth_ends_are_exact_and_outside_is_clamped() -> None:
    depth = np.array([0.0, 0.4, 0.5, 2.0, 2.5], np.float32)
    codes = encode_depth(depth, 0.5, 2.0)
    np.testing.assert_array_equal(codes, [0, 1, 1, 65535, 65535])
    np.testing.assert_allclose(decode_depth(codes, 0.5, 2.0), [0, 0.5, 0.5, 2, 2], rtol=1e-6)


def test_fold_takes_the_nearer_hand_pixel_by_pixel(rng: np.random.Generator) -> None:
    depth = rng.integers(0, 4, size=(2, 13, 8, 9)).astype(np.uint16)  # many empty and tied pixels
    normals = rng.integers(0, 256, size=(2, 13, 8, 9, 3), dtype=np.uint8)
    folded_normals, folded_depth = fold_hands(normals, depth)
    assert folded_depth.shape == (2, 7, 8, 9)
    np.testing.assert_array_equal(folded_depth[:, 0], depth[:, 0])
    for layer in list(Layer)[1:]:
        left = STORED_LAYERS.index(f"left_{layer.name.lower()}")
        right = STORED_LAYERS.index(f"right_{layer.name.lower()}")
        both = np.where(depth == 0, 2**20, depth.astype(int))
        nearest = np.minimum(both[:, left], both[:, right])
        np.testing.assert_array_equal(folded_depth[:, layer], np.where(nearest == 2**20, 0, nearest))
        use_right = both[:, right] < both[:, left]
        np.testing.assert_array_equal(
            folded_normals[:, layer], np.where(use_right[..., None], normals[:, right], normals[:, left])
        )


def test_folding_does_not_depend_on_which_hand_is_which_and_moves_with_the_picture(
    rng: np.random.Generator,
) -> None:
    depth = rng.permutation(13 * 72).reshape(1, 13, 8, 9).astype(np.uint16)  # no ties
    normals = rng.integers(0, 256, size=(1, 13, 8, 9, 3), dtype=np.uint8)
    folded_normals, folded_depth = fold_hands(normals, depth)
    swapped = [0, *range(7, 13), *range(1, 7)]
    moved = np.roll(normals, 2, axis=3), np.roll(depth, 2, axis=3)
    for found, shift in ((fold_hands(normals[:, swapped], depth[:, swapped]), 0), (fold_hands(*moved), 2)):
        np.testing.assert_array_equal(found[0], np.roll(folded_normals, shift, axis=3))
        np.testing.assert_array_equal(found[1], np.roll(folded_depth, shift, axis=3))


def test_confidence_falls_from_one_to_a_tenth_with_depth_and_is_zero_where_empty() -> None:
    depth = np.array([0.5, 1.0, 2.0, 0.0], np.float32).reshape(1, 4, 1, 1)
    np.testing.assert_allclose(confidence(depth, 0.5, 2.0).ravel(), [1, 0.7, 0.1, 0], atol=1e-6)


def test_confidence_keeps_the_order_of_layers(rng: np.random.Generator) -> None:
    depth = rng.uniform(0.5, 2.0, size=(3, 13, 4, 4)).astype(np.float32)
    order = np.argsort(confidence(depth, 0.5, 2.0), axis=1)
    np.testing.assert_array_equal(order, np.argsort(-depth, axis=1))
