"""What a rasterizer is, and which one to use.

Letters: N images, B frames, L layers, H rows, W columns, V vertices, F faces.  Frame: OpenGL clip space whose
y points down, so that row 0 of an image is the picture's top; pixel (column i, row j) is sampled at its
centre, ((2i + 1)/W − 1, (2j + 1)/H − 1).

Every rasterizer: snaps vertices to 1/16 pixel; covers pixel centres on left and lowest-row edges and not
those on right and highest-row ones (a shared edge is neither cracked nor hit twice); draws both sides of
triangles; clips to the cube; keeps the nearest fragment, of equally near ones the later triangle; ignores
triangles with a NaN or infinite vertex. Barycentric weights are perspective-correct, of unsnapped vertices.
"""

import logging
from collections.abc import Iterator
from functools import cache
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from render.rasterizers.numba import NumbaRasterizer
from render.shading import PosedLayers

logger = logging.getLogger(__name__)

RasterizerName = Literal["auto", "numba", "nvdiffrast"]


class Rasterizer(Protocol):
    """Draws ranges of triangles, each range into an image of its own."""

    name: str

    def frames_at_once(
        self, images_per_frame: int, triangles_per_frame: int, resolution: tuple[int, int]
    ) -> int:
        """Return how many frames of so many images and triangles one call should draw: at least one."""
        ...

    def rasterize(
        self,
        clip_vertices: NDArray[np.float32],  # [V, 4]
        triangles: NDArray[np.int32],  # [F, 3]
        ranges: NDArray[np.int32],  # [N, 2] first triangle and how many
        resolution: tuple[int, int],  # (H, W)
    ) -> NDArray[np.float32]:
        """Return [N, H, W, 4]: weights u, v of vertices 0 and 1, z/w, triangle number + 1; background 0."""
        ...

    def nearest_ids(
        self,
        clip_vertices: NDArray[np.float32],  # [V, 4]
        triangles: NDArray[np.int32],  # [F, 3]
        ranges: NDArray[np.int32],  # [N, 2]
        resolution: tuple[int, int],  # (H, W)
        depth_layers: int = 1,
    ) -> Iterator[NDArray[np.int32]]:
        """Yield `depth_layers` images [N, H, W] of triangle number + 1: nearest fragments, then those behind.

        An image is valid until the next one is asked for or the next call is made.
        """
        ...

    def draw_layers(
        self,
        posed: PosedLayers,
        depth_range: tuple[float, float],  # metres of depth codes 1 and 65535
        normal_codes: NDArray[np.uint8],  # [B, L, H, W, 3]
        depth_codes: NDArray[np.uint16],  # [B, L, H, W]
    ) -> None:
        """Draw each layer of each frame and write the codes of `mlo` at covered pixels of empty arrays."""
        ...


def get_rasterizer(name: RasterizerName = "auto") -> Rasterizer:
    """Return a rasterizer by name; `auto` is nvdiffrast where it works, else numba."""
    missing = "" if name == "numba" else why_not_nvdiffrast()
    if name == "nvdiffrast" and missing:
        raise ValueError(f"the nvdiffrast rasterizer does not work here: {missing}")
    if name == "numba" or missing:
        return NumbaRasterizer()
    # Imported here: it needs packages that most machines do not have.
    from render.rasterizers.nvdiffrast import NvdiffrastRasterizer

    return NvdiffrastRasterizer()


@cache
def why_not_nvdiffrast() -> str:
    """Return why nvdiffrast does not work here, empty where it does; it is tried once, on a triangle."""
    try:
        from render.rasterizers.nvdiffrast import NvdiffrastRasterizer

        _try_out(NvdiffrastRasterizer())
    except (ImportError, RuntimeError) as error:
        logger.info("rasterizer: auto is numba, for nvdiffrast does not work here: %s", error)
        return str(error)
    logger.info("rasterizer: auto is nvdiffrast, which works here")
    return ""


def _try_out(rasterizer: Rasterizer) -> None:
    """Raise RuntimeError where a rasterizer does not find a triangle that fills the picture."""
    vertices = np.array([[-3, -3, 0, 1], [3, -3, 0, 1], [0, 9, 0, 1]], np.float32)
    triangle, ranges = np.array([[0, 1, 2]], np.int32), np.array([[0, 1]], np.int32)
    if not next(rasterizer.nearest_ids(vertices, triangle, ranges, (8, 8))).all():
        raise RuntimeError("a triangle that fills the picture does not")
