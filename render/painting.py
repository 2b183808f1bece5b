"""Lit, textured pictures of surfaces before a background.

Letters: N pictures, H rows, W columns, V vertices, F faces, n fragments.  Frame: clip space as in
`rasterizers.protocol`; points and normals in the space of an OpenCV camera.
See-through materials are exact up to `depth_layers` surfaces before one another: fragments are found nearest
first, and each is put behind those that are there already; then the background shines through. They cast
shadows as if they were opaque. The backs of single-sided materials are not drawn. Pictures are drawn
`supersample` times as large and averaged in linear light.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel

from render.appearance import ALPHA_MODES, NO_TEXTURE, Surfaces
from render.fragment_colors import light_fragments, multiply_vertex_colors, put_behind
from render.lighting import LightingConfig, Lights
from render.rasterizers.protocol import RasterizerName, get_rasterizer
from render.shading import find_fragments, fragment_normals, texture_coordinates
from render.shadows import light_clip_vertices, lit_shares
from render.textures import CODE_OF_LINEAR, LINEAR_OF_CODE, sample_atlas
from render.threads import for_each


class PaintingConfig(BaseModel, frozen=True, extra="forbid"):
    """How surfaces become pictures."""

    supersample: int = 2
    """Pictures are drawn this many times as large, then averaged: against shimmer."""
    depth_layers: int = 6
    """Surfaces before one another that see-through materials (mask, blend) can show."""
    lighting: LightingConfig = LightingConfig()
    """All light."""
    shadow_texels: int = 512
    """Texels on a side of the first light's picture, from which shadows come; 0: no shadows."""
    rasterizer: RasterizerName = "auto"
    """auto, numba or nvdiffrast."""


@dataclass(frozen=True)
class PosedSurfaces:
    """Where surfaces are in each of N pictures."""

    points: NDArray[np.float32]  # [N, V, 3]
    normals: NDArray[np.float32]  # [N, V, 3] unit
    clip_vertices: NDArray[np.float32]  # [N, V, 4]


class Fragments(NamedTuple):
    """Covered pixels of one picture."""

    pixels: NDArray[np.int32]  # [n, 2] row, column
    hit: NDArray[np.int32]  # [n] face
    weights: NDArray[np.float32]  # [n, 3] of the face's vertices
    backs: NDArray[np.bool_]  # [n] whether the back is seen


class Painter:
    """Paints pictures of the same surfaces in the same light; one instance serves one caller at a time."""

    def __init__(self, surfaces: Surfaces, lights: Lights, config: PaintingConfig) -> None:
        self._surfaces = surfaces
        self._lights = lights
        self._config = config
        self._rasterizer = get_rasterizer(config.rasterizer)
        self._has_vertex_colors = bool((surfaces.colors != 1).any())
        self._canvas = np.zeros(0, np.float32)

    def paint(
        self, posed: PosedSurfaces, background: NDArray[np.uint8], straight_alpha: bool = False
    ) -> NDArray[np.uint8]:
        """Return [N, H, W, 4]: sRGB before the background [H, W, 3], and how much surfaces cover a pixel.

        With straight alpha the background shows where nothing is covered only, and colours are the surfaces'.
        """
        num_pictures, num_vertices = posed.clip_vertices.shape[:2]
        faces, num_faces = self._surfaces.faces, len(self._surfaces.faces)
        picture = np.arange(num_pictures, dtype=np.int32)
        triangles = (faces + picture[:, None, None] * np.int32(num_vertices)).reshape(-1, 3)
        ranges = np.stack([picture * num_faces, np.full_like(picture, num_faces)], axis=1)
        lights_view = self._draw_lights_view(posed.points, triangles, ranges)
        single_sided = ~self._surfaces.double_sided[self._surfaces.material_ids]
        if single_sided.any():
            for n, seen in enumerate(triangles.reshape(num_pictures, num_faces, 3)):
                _remove_backs(posed.clip_vertices[n], faces, single_sided, seen)
        height, width = (self._config.supersample * extent for extent in background.shape[:2])
        canvas = self._blank_canvas((num_pictures, height, width, 4))
        see_through = np.zeros(num_pictures, np.int64)
        depth_layers = self._config.depth_layers if self._surfaces.see_through else 1
        for ids in self._rasterizer.nearest_ids(
            posed.clip_vertices.reshape(-1, 4), triangles, ranges, (height, width), depth_layers
        ):

            def shade(n: int, ids: NDArray[np.int32] = ids) -> None:
                clip_vertices = posed.clip_vertices[n]
                found = Fragments(*find_fragments(ids[n], n * num_faces, clip_vertices, faces, canvas[n]))
                lit = np.ones(len(found.hit), np.float32)
                if lights_view is not None:
                    lit = lit_shares(found.hit, found.weights, faces, lights_view[0][n], lights_view[1][n])
                rgba = self._shade(found, clip_vertices, posed.normals[n], lit, (height, width))
                see_through[n] = put_behind(found.pixels, rgba, canvas[n])

            for_each(shade, range(num_pictures))
            if not see_through.any():
                break
        pictures = np.empty((num_pictures, *background.shape[:2], 4), np.uint8)

        def resolve(n: int) -> None:
            _resolve(canvas[n], background, straight_alpha, LINEAR_OF_CODE, CODE_OF_LINEAR, pictures[n])

        for_each(resolve, range(num_pictures))
        return pictures

    def _draw_lights_view(
        self, points: NDArray[np.float32], triangles: NDArray[np.int32], ranges: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Return light-space vertices [N, V, 4] and the first light's pictures [N, S, S, 4] of them."""
        size = self._config.shadow_texels
        if not size or not len(self._lights.towards):
            return None
        vertices = light_clip_vertices(points, self._lights.towards[0])
        image = self._rasterizer.rasterize(vertices.reshape(-1, 4), triangles, ranges, (size, size))
        return vertices, image

    def _shade(
        self,
        found: Fragments,
        clip_vertices: NDArray[np.float32],  # [V, 4]
        normals: NDArray[np.float32],  # [V, 3]
        lit: NDArray[np.float32],  # [n]
        resolution: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Return the light [n, 4] that fragments send to the viewer (linear RGB) and their alpha."""
        surfaces = self._surfaces
        materials = surfaces.material_ids[found.hit]

        def multiply_texture(slot: int, uvs: NDArray[np.float32], rgba: NDArray[np.float32]) -> None:
            textures = surfaces.textures[materials, slot]
            if (textures != NO_TEXTURE).any():
                coordinates = texture_coordinates(
                    found.pixels, found.hit, found.weights, clip_vertices, surfaces.faces, uvs, resolution
                )
                sample_atlas(*surfaces.atlas, textures, coordinates, rgba)

        rgba = surfaces.factors[materials]
        multiply_texture(0, surfaces.uvs, rgba)
        if self._has_vertex_colors:
            multiply_vertex_colors(found.hit, found.weights, surfaces.faces, surfaces.colors, rgba)
        rgba[:, 3] = self._alpha(materials, rgba[:, 3]) if surfaces.see_through else 1
        unlit = np.flatnonzero(surfaces.unlit[materials])
        base = rgba[unlit, :3]
        seen_normals = fragment_normals(*found[1:], surfaces.faces, normals, surfaces.against_normals)
        light_fragments(rgba, seen_normals, lit, *self._lights)
        rgba[unlit, :3] = base
        if surfaces.emissive_factors.any():
            glow = np.ones_like(rgba)
            glow[:, :3] = surfaces.emissive_factors[materials]
            multiply_texture(1, surfaces.emissive_uvs, glow)
            rgba[:, :3] += glow[:, :3]
        return rgba

    def _alpha(self, materials: NDArray[np.int32], alpha: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return alpha [n] by each material's mode."""
        modes = self._surfaces.alpha_modes[materials]
        passes = alpha >= self._surfaces.alpha_cutoffs[materials]
        alpha = np.where(modes == ALPHA_MODES["mask"], passes, alpha)
        return np.where(modes == ALPHA_MODES["opaque"], 1, alpha)

    def _blank_canvas(self, shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
        """Return zeros, in the last call's memory where that fits: fresh memory costs page faults."""
        if self._canvas.size < np.prod(shape):
            self._canvas = np.empty(np.prod(shape), np.float32)
        canvas = self._canvas[: np.prod(shape)].reshape(shape)
        canvas[:] = 0
        return canvas


@njit(nogil=True, cache=True)
def _remove_backs(clip_vertices, faces, single_sided, triangles):  # type: ignore[no-untyped-def]
    """Make triangles [F, 3] (faces in another numbering) pointless where a single-sided face shows its back.

    The determinant of its corners' (x, y, w) has the sign of the facing at every point of it with w > 0.
    """
    for face in range(len(faces)):
        if not single_sided[face]:
            continue
        a, b, c = clip_vertices[faces[face, 0]], clip_vertices[faces[face, 1]], clip_vertices[faces[face, 2]]
        ax, ay, aw = np.float64(a[0]), np.float64(a[1]), np.float64(a[3])
        bx, by, bw = np.float64(b[0]), np.float64(b[1]), np.float64(b[3])
        cx, cy, cw = np.float64(c[0]), np.float64(c[1]), np.float64(c[3])
        facing = ax * (by * cw - bw * cy) + ay * (bw * cx - bx * cw) + aw * (bx * cy - by * cx)
        if facing > 0.0:
            triangles[face, 1] = triangles[face, 0]
            triangles[face, 2] = triangles[face, 0]


@njit(nogil=True, cache=True)
def _resolve(canvas, background, straight_alpha, linear_of_code, code_of_linear, picture):  # type: ignore[no-untyped-def]
    """Average a canvas [sH, sW, 4] over s×s pixels before a background [H, W, 3], and encode it as sRGB.

    picture [H, W, 4] gets colour and coverage; with straight alpha, what is covered at all keeps its colour.
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
            picture[row, column, 3] = int(255.0 * min(share * coverage, 1.0) + 0.5)
            if coverage == 0.0:
                picture[row, column, :3] = background[row, column]
                continue
            behind = 0.0 if straight_alpha else 1.0 - share * coverage
            scale = 1.0 / coverage if straight_alpha else share
            colors = (scale * red, scale * green, scale * blue)
            for channel in range(3):
                light = colors[channel] + behind * linear_of_code[background[row, column, channel]]
                step = int(min(max(light, 0.0), 1.0) * (len(code_of_linear) - 1) + 0.5)
                picture[row, column, channel] = code_of_linear[step]
