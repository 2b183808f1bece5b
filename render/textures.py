"""Textures for the shading kernels: sRGB tables, and all mip levels of all textures in one array of texels.

Letters: H rows, W columns, K textures, N texels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from render.scene import Texture

MAX_LEVELS = 16  # 32768 texels a side
REPEAT, CLAMP, MIRROR = 0, 1, 2
WRAPS = {"repeat": REPEAT, "clamp": CLAMP, "mirror": MIRROR}


def linear_from_srgb(encoded: NDArray) -> NDArray[np.float64]:
    """Decode sRGB values in [0, 1] to linear light (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((np.maximum(encoded, 0) + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: NDArray) -> NDArray[np.float64]:
    """Encode linear light in [0, 1] as sRGB."""
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055)


LINEAR_OF_CODE = linear_from_srgb(np.arange(256) / 255).astype(np.float32)  # [256]
# Codes of linear light in steps fine enough that no code is missed where the curve is steep.
CODE_OF_LINEAR = np.rint(255 * srgb_from_linear(np.linspace(0, 1, 1 << 14))).astype(np.uint8)


class TextureAtlas(NamedTuple):
    """All textures of a scene, in arrays that compiled code reads."""

    texels: NDArray[np.uint8]  # [N, 4] sRGB colour, linear alpha
    levels: NDArray[np.int64]  # [K, MAX_LEVELS, 3] first texel, width, height
    num_levels: NDArray[np.int64]  # [K]
    wraps: NDArray[np.int64]  # [K, 2] along u and v, values of WRAPS
    nearest: NDArray[np.bool_]  # [K] nearest texel where magnified
    linear: NDArray[np.float32]  # [256] LINEAR_OF_CODE


def build_atlas(textures: Sequence[Texture]) -> TextureAtlas:
    """Make mip levels of every texture, halved in linear light, down to one texel."""
    levels = np.zeros((len(textures), MAX_LEVELS, 3), np.int64)
    num_levels = np.zeros(len(textures), np.int64)
    texels: list[NDArray[np.uint8]] = [np.zeros((0, 4), np.uint8)]
    first = 0
    for k, texture in enumerate(textures):
        pixels = np.ascontiguousarray(texture.pixels)
        while True:
            height, width = pixels.shape[:2]
            levels[k, num_levels[k]] = first, width, height
            num_levels[k] += 1
            texels.append(pixels.reshape(-1, 4))
            first += height * width
            if max(height, width) == 1 or num_levels[k] == MAX_LEVELS:
                break
            smaller = np.empty(((height + 1) // 2, (width + 1) // 2, 4), np.uint8)
            _halve(pixels, smaller, LINEAR_OF_CODE, CODE_OF_LINEAR)
            pixels = smaller
    return TextureAtlas(
        texels=np.concatenate(texels),
        levels=levels,
        num_levels=num_levels,
        wraps=np.array([[WRAPS[wrap] for wrap in texture.wrap] for texture in textures], np.int64).reshape(
            -1, 2
        ),
        nearest=np.array([texture.nearest for texture in textures], bool),
        linear=LINEAR_OF_CODE,
    )


@njit(nogil=True, cache=True)
def _halve(pixels, smaller, linear_of_code, code_of_linear):  # type: ignore[no-untyped-def]
    """Average 2×2 texels [H, W, 4] into one; the last of an odd number stands for its missing neighbour."""
    height, width = pixels.shape[:2]
    for row in range(smaller.shape[0]):
        row0, row1 = 2 * row, min(2 * row + 1, height - 1)
        for column in range(smaller.shape[1]):
            column0, column1 = 2 * column, min(2 * column + 1, width - 1)
            for channel in range(3):
                mean = 0.25 * (
                    linear_of_code[pixels[row0, column0, channel]]
                    + linear_of_code[pixels[row0, column1, channel]]
                    + linear_of_code[pixels[row1, column0, channel]]
                    + linear_of_code[pixels[row1, column1, channel]]
                )
                smaller[row, column, channel] = code_of_linear[int(mean * (len(code_of_linear) - 1) + 0.5)]
            alpha = np.int64(pixels[row0, column0, 3]) + pixels[row0, column1, 3]
            alpha += np.int64(pixels[row1, column0, 3]) + pixels[row1, column1, 3]
            smaller[row, column, 3] = (alpha + 2) // 4


@njit(nogil=True, cache=True)
def sample_atlas(  # type: ignore[no-untyped-def]
    texels, levels, num_levels, wraps, nearest, linear, texture_ids, coordinates, rgba
):
    """Multiply rgba [n, 4] by samples of textures [n] (none where negative), trilinear over mip levels.

    coordinates [n, 6] are (u, v) and its change to the next column and row of the picture.
    """
    for n in range(len(texture_ids)):
        k = texture_ids[n]
        if k < 0:
            continue
        width, height = levels[k, 0, 1], levels[k, 0, 2]
        across = (coordinates[n, 2] * width) ** 2 + (coordinates[n, 3] * height) ** 2
        along = (coordinates[n, 4] * width) ** 2 + (coordinates[n, 5] * height) ** 2
        footprint2 = max(across, along)  # of a pixel, in texels, squared
        depth = min(0.5 * np.log2(footprint2), num_levels[k] - 1.0) if footprint2 > 1.0 else 0.0
        level = int(depth)
        u, v = _wrap(coordinates[n, 0], wraps[k, 0]) * width, _wrap(coordinates[n, 1], wraps[k, 1]) * height
        if nearest[k] and depth == 0.0:
            u, v = np.floor(u) + 0.5, np.floor(v) + 0.5
        repeats = wraps[k, 0] == REPEAT, wraps[k, 1] == REPEAT
        extent = levels[k, level, 0], levels[k, level, 1], levels[k, level, 2]
        red, green, blue, alpha = _bilinear(texels, linear, extent, level, repeats, u, v)
        share = np.float32(depth - level)
        if share > 0.0:
            extent = levels[k, level + 1, 0], levels[k, level + 1, 1], levels[k, level + 1, 2]
            coarse = _bilinear(texels, linear, extent, level + 1, repeats, u, v)
            red, green = red + share * (coarse[0] - red), green + share * (coarse[1] - green)
            blue, alpha = blue + share * (coarse[2] - blue), alpha + share * (coarse[3] - alpha)
        rgba[n, 0] *= red
        rgba[n, 1] *= green
        rgba[n, 2] *= blue
        rgba[n, 3] *= alpha


@njit(nogil=True, cache=True)
def _wrap(coordinate, mode):  # type: ignore[no-untyped-def]
    """Bring a texture coordinate into [0, 1] as one of WRAPS says."""
    if not np.isfinite(coordinate):
        return 0.0
    if mode == REPEAT:
        return coordinate - np.floor(coordinate)
    if mode == CLAMP:
        return min(max(coordinate, 0.0), 1.0)
    folded = coordinate - 2.0 * np.floor(0.5 * coordinate)
    return 2.0 - folded if folded > 1.0 else folded


@njit(nogil=True, cache=True)
def _bilinear(texels, linear, extent, level, repeats, u, v):  # type: ignore[no-untyped-def]
    """Return linear (r, g, b, alpha) of one mip level at (u, v) in texels of level 0.

    extent is the level's first texel, width and height.
    """
    first, width, height = extent
    shrink = 1.0 / (1 << level)
    x, y = u * shrink - 0.5, v * shrink - 0.5
    left, top = int(np.floor(x)), int(np.floor(y))
    across, down = np.float32(x - left), np.float32(y - top)
    right, low = _neighbours(left, width, repeats[0]), _neighbours(top, height, repeats[1])
    red = green = blue = alpha = np.float32(0)
    for corner in range(4):
        row = low[0] if corner < 2 else low[1]
        column = right[0] if corner % 2 == 0 else right[1]
        share = (1 - down if corner < 2 else down) * (1 - across if corner % 2 == 0 else across)
        t = first + row * width + column
        red += share * linear[texels[t, 0]]
        green += share * linear[texels[t, 1]]
        blue += share * linear[texels[t, 2]]
        alpha += share * texels[t, 3]
    return red, green, blue, alpha / np.float32(255)


@njit(nogil=True, cache=True)
def _neighbours(index, size, repeats):  # type: ignore[no-untyped-def]
    """Return a texel's index, from −1 to `size`, and the next one's; beyond the border they wrap or are held.

    The nearest filter reaches `size` where a coordinate is 1.
    """
    if repeats:
        if index < 0:
            index += size
        elif index >= size:
            index -= size
        return index, 0 if index + 1 == size else index + 1
    return min(max(index, 0), size - 1), min(index + 1, size - 1)
