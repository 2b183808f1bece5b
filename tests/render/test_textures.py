"""Texture samples follow glTF's wrap modes and filters, in linear light."""

import numpy as np
import pytest
from numpy.typing import NDArray

from render.scene import Texture
from render.textures import build_atlas, linear_from_srgb, sample_atlas, srgb_from_linear


def sample(texture: Texture, coordinates: list[tuple[float, ...]], pixel: float = 0.0) -> NDArray[np.float32]:
    """Linear RGBA at (u, v) for a picture pixel that spans `pixel` of the texture along both axes."""
    full = np.array([(u, v, pixel, 0, 0, pixel) for u, v in coordinates], np.float32)
    rgba = np.ones((len(full), 4), np.float32)
    sample_atlas(*build_atlas([texture]), np.zeros(len(full), np.int64), full, rgba)
    return rgba


def ramp(wrap: str = "repeat", nearest: bool = False) -> Texture:
    """Four texels in a row whose alpha, which is linear, is 0, 51, 102, 153."""
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0, :, 3] = (0, 51, 102, 153)
    return Texture(pixels, (wrap, wrap), nearest)


def test_srgb_curve_has_its_fixed_points_and_inverts() -> None:
    codes = np.linspace(0, 1, 1000)
    np.testing.assert_allclose(srgb_from_linear(linear_from_srgb(codes)), codes, atol=1e-6)
    np.testing.assert_allclose(linear_from_srgb(np.array([0, 0.5, 1])), [0, 0.21404, 1], atol=1e-5)


def test_texel_centres_are_exact_and_between_them_is_linear() -> None:
    alpha = sample(ramp(), [(0.125, 0.5), (0.375, 0.5), (0.25, 0.5), (0.3125, 0.1)])[:, 3]
    np.testing.assert_allclose(alpha, [0, 0.2, 0.1, 0.15], atol=1e-6)


def test_v_0_is_the_pictures_top_row() -> None:
    pixels = np.zeros((2, 1, 4), np.uint8)
    pixels[0, 0] = 255
    np.testing.assert_allclose(sample(Texture(pixels), [(0.5, 0.25), (0.5, 0.75)])[:, 0], [1, 0])


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        ("repeat", [0.6, 0.2, 0.3]),  # u = −0.125 is texel 3, u = 1.375 texel 1, u = 1: between 3 and 0
        ("clamp", [0.0, 0.6, 0.6]),
        ("mirror", [0.0, 0.4, 0.6]),
    ],
)
def test_wrap_modes(wrap: str, expected: list[float]) -> None:
    alpha = sample(ramp(wrap), [(-0.125, 0.5), (1.375, 0.5), (1.0, 0.5)])[:, 3]
    np.testing.assert_allclose(alpha, expected, atol=1e-6)


@pytest.mark.parametrize(("wrap", "expected"), [("clamp", 0.6), ("mirror", 0.6), ("repeat", 0.0)])
def test_nearest_filter_stays_inside_at_the_far_border(wrap: str, expected: float) -> None:
    """At u = 1, and a hair below 0, which repeats as 1 once it is rounded."""
    beyond = -1e-20 if wrap == "repeat" else 1.0
    alpha = sample(ramp(wrap, nearest=True), [(1.0, 0.5), (beyond, 0.5), (beyond, 1.0)])[:, 3]
    np.testing.assert_allclose(alpha, expected, atol=1e-6)


def test_nearest_filter_takes_one_texel_when_magnified() -> None:
    alpha = sample(ramp(nearest=True), [(0.26, 0.5), (0.49, 0.5), (0.51, 0.5)])[:, 3]
    np.testing.assert_allclose(alpha, [0.2, 0.2, 0.4], atol=1e-6)


@pytest.mark.parametrize("size", [64, 48, 37])
def test_minified_checkerboard_is_the_mean_light(size: int) -> None:
    row, column = np.indices((size, size))
    pixels = np.full((size, size, 4), 255, np.uint8)
    pixels[..., :3] *= ((row + column) % 2)[..., None].astype(np.uint8)
    rgba = sample(Texture(pixels), [(0.4, 0.6), (0.53, 0.31)], pixel=8 / size)
    np.testing.assert_allclose(rgba[:, :3], 0.5, atol=0.03)


def test_whole_texture_in_one_pixel_is_its_mean() -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 0] = 255
    np.testing.assert_allclose(sample(Texture(pixels), [(0.2, 0.2)], pixel=3.0)[0, 0], 0.5, atol=0.01)


def test_coordinates_that_are_not_finite_are_harmless() -> None:
    rgba = sample(ramp(), [(np.nan, 0.5), (0.5, np.inf), (1e30, -1e30)])
    assert np.isfinite(rgba).all()


def test_textures_of_different_sizes_share_one_atlas() -> None:
    red, green = np.zeros((4, 4, 4), np.uint8), np.zeros((3, 5, 4), np.uint8)
    red[..., 0], green[..., 1] = 255, 255
    coordinates = np.full((3, 6), 0.5, np.float32)
    coordinates[:, 2:] = 0
    rgba = np.ones((3, 4), np.float32)
    sample_atlas(*build_atlas([Texture(red), Texture(green)]), np.array([1, 0, -1]), coordinates, rgba)
    np.testing.assert_allclose(rgba[:, :3], [[0, 1, 0], [1, 0, 0], [1, 1, 1]])
