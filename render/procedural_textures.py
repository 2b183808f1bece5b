"""Drawn textures for procedural objects: a pattern all over and a different emblem on every side.

Letters: H rows, W columns. Colours are sRGB in 0..1 while drawing; u goes right, v down, both 0..1, and a
pattern that goes round an object meets itself at u = 0 and 1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from render.scene import Material, Texture

Image = NDArray[np.float64]  # [H, W, 3]
SIZE = 256  # pixels of a texture's side


def wrapped(rng: np.random.Generator) -> Material:
    """Draw a texture that goes round an object: a pattern with emblems front, back, left and right."""
    colors = palette(rng, 6)
    image = _pattern(rng, colors)
    u, v = _plane(SIZE)
    for column, emblem in zip((0.5, 0.0, 0.25, 0.75), rng.permutation(len(EMBLEMS)), strict=False):
        across = (u - column + 0.5) % 1 - 0.5
        size = rng.uniform(0.06, 0.085)
        image = _stamp(image, across / size, (v - rng.uniform(0.4, 0.6)) / (2 * size), int(emblem), colors)
    return material("wrapped", image)


def printed_box(rng: np.random.Generator) -> Material:
    """Draw the 3 × 2 atlas of a box: every face has its own ground and emblem."""
    colors = palette(rng, 6)
    u, v = _plane(SIZE // 2)
    cells = []
    for emblem in rng.permutation(len(EMBLEMS))[:6]:
        ground = _pattern(rng, colors, SIZE // 2)
        size = rng.uniform(0.2, 0.3)
        cells.append(_stamp(ground, (u - 0.5) / size, (v - 0.5) / size, int(emblem), rng.permutation(colors)))
    rows = [np.concatenate(cells[first : first + 3], axis=1) for first in (0, 3)]
    return material("printed box", np.concatenate(rows, axis=0))


def wood(rng: np.random.Generator) -> Material:
    """Draw grain that runs along v, with one knot."""
    u, v = _plane(SIZE)
    knot = np.exp(-(((u - 0.5) / 0.08) ** 2 + ((v - rng.uniform(0.3, 0.7)) / 0.05) ** 2))
    grain = np.sin(2 * np.pi * (10 * np.abs(u - 0.5) + 0.6 * _noise(rng, 24, SIZE) + 0.8 * knot))
    light, dark = np.array([0.80, 0.60, 0.38]), np.array([0.52, 0.33, 0.17])
    return material("wood", _mix(light, dark, 0.5 + 0.4 * grain))


def metal(rng: np.random.Generator) -> Material:
    """Draw brushed grey metal."""
    brushed = gaussian_filter(rng.normal(size=(SIZE, SIZE)), (0.5, 12), mode="wrap")
    tint = np.array([0.62, 0.64, 0.67]) * rng.uniform(0.85, 1.15)
    return material("metal", tint + 0.25 * brushed[..., None])


def plain(rng: np.random.Generator) -> Material:
    """Draw one colour with faint speckles."""
    color = palette(rng, 1)[0]
    return material("plain", color + 0.02 * _noise(rng, 2, SIZE)[..., None])


def material(name: str, image: Image) -> Material:
    """Return an opaque material of a picture [H, W, 3] in 0..1."""
    rgb = np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)
    opaque = np.full((*rgb.shape[:2], 1), 255, np.uint8)
    return Material(name=name, base_color_texture=Texture(np.concatenate([rgb, opaque], axis=-1)))


def palette(rng: np.random.Generator, count: int) -> Image:
    """Draw clearly different colours [count, 3]: hues apart by the golden ratio, dark and light by turns."""
    hue = (rng.uniform() + 0.618034 * np.arange(count)) % 1
    saturation = rng.uniform(0.55, 0.9, count)
    value = np.where(np.arange(count) % 2, rng.uniform(0.3, 0.5, count), rng.uniform(0.75, 0.95, count))
    pure = np.clip(np.abs((hue[:, None] * 6 + [0, 4, 2]) % 6 - 3) - 1, 0, 1)
    return value[:, None] * (1 - saturation[:, None] * (1 - pure))


def _pattern(rng: np.random.Generator, colors: Image, size: int = SIZE) -> Image:
    """Draw a ground in the first two colours: bands, stripes, checks, dots, clouds or a gradient."""
    u, v = _plane(size)
    count = int(rng.integers(3, 7))
    waves: tuple[Callable[[], NDArray[np.float64]], ...] = (
        lambda: np.cos(2 * np.pi * count * v),
        lambda: np.cos(2 * np.pi * 2 * count * u),
        lambda: np.cos(2 * np.pi * count * (u + v)),
        lambda: np.cos(2 * np.pi * count * u) * np.cos(2 * np.pi * count * v),
        lambda: 0.8 - 6 * (((2 * count * u) % 1 - 0.5) ** 2 + ((2 * count * v) % 1 - 0.5) ** 2),
        lambda: 0.3 * _noise(rng, size // 16, size),
        lambda: (0.5 - v) / 8,
    )
    edge = waves[int(rng.integers(len(waves)))]()
    return _mix(colors[0], 0.5 * colors[0] + 0.5 * colors[2], np.clip(0.5 + 5 * edge, 0, 1))


# Each emblem is negative inside a shape of about one unit of radius about the origin.
EMBLEMS: tuple[Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]], ...] = (
    lambda x, y: np.hypot(x, y) - 0.9,  # disc
    lambda x, y: np.abs(np.hypot(x, y) - 0.65) - 0.25,  # ring
    lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.75,  # square
    lambda x, y: np.maximum(2 * np.abs(x) - y - 0.9, y - 0.7),  # triangle
    lambda x, y: np.minimum(np.maximum(np.abs(x) / 3, np.abs(y)), np.maximum(np.abs(x), np.abs(y) / 3)) - 0.3,
    lambda x, y: np.maximum(np.abs(np.abs(y) - 0.45) - 0.22, np.abs(x) - 0.9),  # two bars
    lambda x, y: np.abs(x) + np.abs(y) - 0.95,  # diamond
    lambda x, y: np.hypot(x, y) - 0.65 - 0.3 * np.cos(5 * np.arctan2(x, -y)),  # star
    lambda x, y: np.maximum(np.abs(np.abs(x) - 1.2 * y - 0.1) - 0.25, np.abs(x) - 0.9),  # chevron
)


def _stamp(image: Image, x: NDArray[np.float64], y: NDArray[np.float64], emblem: int, colors: Image) -> Image:
    """Put an emblem on a disc of another colour at x, y = 0, a unit wide each way."""
    pixel = 8 / SIZE  # softens edges
    ground = np.clip(0.5 - (np.hypot(x, y) - 1.3) / pixel, 0, 1)
    shape = np.clip(0.5 - EMBLEMS[emblem](x, y) / pixel, 0, 1)
    contrast = np.where(colors[1].mean() > 0.5, 0.08, 0.97)
    image = _mix(image, np.full(3, contrast) * 0.8 + 0.2 * colors[4], ground)
    return _mix(image, colors[1 + 2 * (emblem % 3)], shape)


def _mix(low: Image, high: Image, part: NDArray[np.float64]) -> Image:
    return low + (high - low) * part[..., None]


def _plane(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centres = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(centres, centres)
    return u, v


def _noise(rng: np.random.Generator, scale_px: int, size: int) -> NDArray[np.float64]:
    """Draw smooth noise [size, size] of unit deviation that repeats at its edges."""
    coarse = rng.normal(size=(size // max(scale_px // 2, 1),) * 2)
    smooth = gaussian_filter(coarse, 1.0, mode="wrap")
    fine = zoom(smooth, size / len(smooth), order=1, mode="grid-wrap", grid_mode=True)
    return fine / fine.std()
