"""Lit, textured pictures of surfaces before a background.

Letters: N pictures, H rows, W columns, V vertices, F faces.  Frame: clip space as in `rasterizers.protocol`.
See-through materials are exact up to `depth_layers` surfaces before one another: fragments are found nearest
first, and each is put behind those that are there already; then the background shines through.
Pictures are drawn `supersample` times as large and averaged in linear light.
"""

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel

from render.appearance import ALPHA_MODES, NO_TEXTURE, Surfaces
from render.lighting import LightingConfig, Lights
from render.rasterizers.protocol import RasterizerName, get_rasterizer
from render.shading import (
    find_fragments,
    light_fragments,
    multiply_vertex_colors,
    put_behind,
    texture_coordinates,
)
from render.textures import CODE_OF_LINEAR, LINEAR_OF_CODE, sample_atlas
from render.threads import for_each


class PaintingConfig(BaseModel, frozen=True, extra="forbid"):
    """How surfaces become pictures."""

    supersample: int = 2
    """Pictures are drawn this many times as large, then averaged: against shimmer."""
    depth_layers: int = 6
    """Surfaces before one another that see-through materials (mask, blend, single-sided) can show."""
    lighting: LightingConfig = LightingConfig()
    """All light."""
    rasterizer: RasterizerName = "auto"
    """auto, numba or nvdiffrast."""


class Painter:
    """Paints pictures of one size, one call at a time; keeps its canvas between calls."""

    def __init__(self, config: PaintingConfig) -> None:
        self._config = config
        self._rasterizer = get_rasterizer(config.rasterizer)
        self._canvas = np.zeros((0, 0, 0, 4), np.float32)

    def paint(
        self,
        surfaces: Surfaces,
        clip_vertices: NDArray[np.float32],  # [N, V, 4]
        normals: NDArray[np.float32],  # [N, V, 3] camera space
        lights: Sequence[Lights],  # N
        background: NDArray[np.uint8],  # [H, W, 3]
    ) -> NDArray[np.uint8]:
        """Return [N, H, W, 4]: sRGB before the background, and how much of each pixel surfaces cover."""
        num_pictures, num_vertices = clip_vertices.shape[:2]
        num_faces = len(surfaces.faces)
        height, width = (self._config.supersample * extent for extent in background.shape[:2])
        canvas = self._blank_canvas((num_pictures, height, width, 4))
        picture = np.arange(num_pictures, dtype=np.int32)
        triangles = surfaces.faces + picture[:, None, None] * np.int32(num_vertices)
        ranges = np.stack([picture * num_faces, np.full_like(picture, num_faces)], axis=1)
        see_through = np.zeros(num_pictures, np.int64)
        found = self._rasterizer.nearest_ids(
            clip_vertices.reshape(-1, 4),
            triangles.reshape(-1, 3),
            ranges,
            (height, width),
            self._config.depth_layers if surfaces.see_through else 1,
        )
        for ids in found:

            def shade(n: int, ids: NDArray[np.int32] = ids) -> None:
                see_through[n] = _shade(
                    ids[n], n * num_faces, clip_vertices[n], normals[n], surfaces, lights[n], canvas[n]
                )

            for_each(shade, range(num_pictures))
            if not see_through.any():
                break
        pictures = np.empty((num_pictures, *background.shape[:2], 4), np.uint8)

        def resolve(n: int) -> None:
            _resolve(canvas[n], background, LINEAR_OF_CODE, CODE_OF_LINEAR, pictures[n])

        for_each(resolve, range(num_pictures))
        return pictures

    def _blank_canvas(self, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
        """Return zeros, in the last call's memory where that fits: fresh memory costs page faults."""
        if self._canvas.size < np.prod(shape):
            self._canvas = np.empty(shape, np.float32)
        canvas = self._canvas.reshape(-1)[: np.prod(shape)].reshape(shape)
        canvas[:] = 0
        return canvas


def _shade(
    ids: NDArray[np.int32],  # [H, W]
    first_face: int,
    clip_vertices: NDArray[np.float32],  # [V, 4]
    normals: NDArray[np.float32],  # [V, 3]
    surfaces: Surfaces,
    lights: Lights,
    canvas: NDArray[np.float32],  # [H, W, 4]
) -> int:
    """Put the fragments of one picture behind its canvas; return how many are see-through."""
    pixels, hit, weights, backs = find_fragments(ids, first_face, clip_vertices, surfaces.faces, canvas)
    materials = surfaces.material_ids[hit]

    def textured(slot: int, uvs: NDArray[np.float32], rgba: NDArray[np.float32]) -> None:
        textures = surfaces.textures[materials, slot]
        if (textures != NO_TEXTURE).any():
            coordinates = texture_coordinates(
                pixels, hit, weights, clip_vertices, surfaces.faces, uvs, ids.shape
            )
            sample_atlas(*surfaces.atlas, textures, coordinates, rgba)

    rgba = surfaces.factors[materials]  # [n, 4]
    textured(0, surfaces.uvs, rgba)
    multiply_vertex_colors(hit, weights, surfaces.faces, surfaces.colors, rgba)
    modes = surfaces.alpha_modes[materials]
    passes = rgba[:, 3] >= surfaces.alpha_cutoffs[materials]
    rgba[:, 3] = np.select(
        [modes == ALPHA_MODES["mask"], modes == ALPHA_MODES["opaque"]], [passes, 1], rgba[:, 3]
    )
    rgba[backs & ~surfaces.double_sided[materials], 3] = 0
    base = rgba[:, :3].copy()
    light_fragments(hit, weights, backs, surfaces.faces, normals, surfaces.against_normals, *lights, rgba)
    unlit = surfaces.unlit[materials]
    rgba[unlit, :3] = base[unlit]
    if surfaces.emissive_factors.any():
        glow = np.ones_like(rgba)
        glow[:, :3] = surfaces.emissive_factors[materials]
        textured(1, surfaces.emissive_uvs, glow)
        rgba[:, :3] += glow[:, :3]
    return int(put_behind(pixels, rgba, canvas))


@njit(nogil=True, cache=True)
def _resolve(canvas, background, linear_of_code, code_of_linear, picture):  # type: ignore[no-untyped-def]
    """Average a canvas [sH, sW, 4] over s×s pixels before a background [H, W, 3], and encode it as sRGB.

    picture [H, W, 4] gets colour and coverage.
    """
    height, width = picture.shape[:2]
    factor = canvas.shape[0] // height
    share = 1.0 / (factor * factor)
    for row in range(height):
        for column in range(width):
            red, green, blue, coverage = 0.0, 0.0, 0.0, 0.0
            for y in range(row * factor, (row + 1) * factor):
                for x in range(column * factor, (column + 1) * factor):
                    red += canvas[y, x, 0]
                    green += canvas[y, x, 1]
                    blue += canvas[y, x, 2]
                    coverage += canvas[y, x, 3]
            behind = 1.0 - share * coverage
            colors = (share * red, share * green, share * blue)
            for channel in range(3):
                if coverage == 0.0:
                    picture[row, column, channel] = background[row, column, channel]
                    continue
                light = colors[channel] + behind * linear_of_code[background[row, column, channel]]
                step = int(min(max(light, 0.0), 1.0) * (len(code_of_linear) - 1) + 0.5)
                picture[row, column, channel] = code_of_linear[step]
            picture[row, column, 3] = int(255.0 * min(share * coverage, 1.0) + 0.5)
