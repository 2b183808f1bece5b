"""What a rasterizer is, and which one to use.

Letters: N images, H rows, W columns, V vertices, F faces.  Frame: OpenGL clip space whose y points down, so
that row 0 of an image is the picture's top; pixel (column i, row j) is sampled at its centre,
((2i + 1)/W − 1, (2j + 1)/H − 1).

Every rasterizer: snaps vertices to 1/16 pixel; covers pixel centres on left and lowest-row edges and not
those on right and highest-row ones (a shared edge is neither cracked nor hit twice); draws both sides of
triangles; clips to the cube; keeps the nearest fragment, of equally near ones the later triangle; ignores
triangles with a NaN or infinite vertex. Barycentric weights are perspective-correct, of unsnapped vertices.
"""

import logging
from collections.abc import Iterator
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from render.rasterizers.numba import NumbaRasterizer

logger = logging.getLogger(__name__)

RasterizerName = Literal["auto", "numba", "nvdiffrast"]


class Rasterizer(Protocol):
    """Draws ranges of triangles, each range into an image of its own."""

    name: str

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


def get_rasterizer(name: RasterizerName = "auto") -> Rasterizer:
    """Return a rasterizer by name; `auto` is nvdiffrast where it is installed and sees a GPU, else numba."""
    if name != "numba":
        try:
            # Imported here: it needs packages that most machines do not have.
            from render.rasterizers.nvdiffrast import NvdiffrastRasterizer

            rasterizer = NvdiffrastRasterizer()
            logger.info("rasterizer: nvdiffrast")
            return rasterizer
        except (ImportError, RuntimeError) as error:
            if name == "nvdiffrast":
                raise ValueError(f"the nvdiffrast rasterizer does not work here: {error}") from error
            logger.info("rasterizer: numba (nvdiffrast does not work here: %s)", error)
    return NumbaRasterizer()
