"""The GPU rasterizer: nvdiffrast in range mode. The only file that imports nvdiffrast.

Letters: N images, H rows, W columns, V vertices, F faces.  Frame: as in `protocol`; nvdiffrast's row 0 is the
lowest y of clip space, which here is the picture's top.
"""

from collections.abc import Iterator

import numpy as np
import nvdiffrast.torch as dr
import torch
from numpy.typing import NDArray

from render.rasterizers.batches import MAX_TRIANGLES, frames_at_once, images_at_once

BYTES_PER_PIXEL = 60  # of an image while it is drawn: four floats out, and nvdiffrast's own buffers


class NvdiffrastRasterizer:
    """Rasterizes on one NVIDIA GPU, as many images at once as a third of its free memory holds."""

    name = "nvdiffrast"

    def __init__(self, device: str = "cuda") -> None:
        if not torch.cuda.is_available():
            raise RuntimeError("torch sees no CUDA device")
        self._device = torch.device(device)
        self._context = dr.RasterizeCudaContext(device)

    def frames_at_once(
        self, images_per_frame: int, triangles_per_frame: int, resolution: tuple[int, int]
    ) -> int:
        """Return how many frames fit into a third of the free memory and into nvdiffrast's numbers."""
        return frames_at_once(self._images_at_once(resolution), images_per_frame, triangles_per_frame)

    def _images_at_once(self, resolution: tuple[int, int]) -> int:
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        return images_at_once(resolution, free_bytes // 3, BYTES_PER_PIXEL)

    def rasterize(
        self,
        clip_vertices: NDArray[np.float32],  # [V, 4]
        triangles: NDArray[np.int32],  # [F, 3]
        ranges: NDArray[np.int32],  # [N, 2]
        resolution: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Return [N, H, W, 4] (u, v, z/w, triangle number + 1), see `Rasterizer`."""
        image = np.zeros((len(ranges), *resolution, 4), np.float32)
        for chosen, _, drawn in self._draw(clip_vertices, triangles, ranges, resolution, depth_layers=1):
            image[chosen] = drawn.cpu().numpy()
        return image

    def nearest_ids(
        self,
        clip_vertices: NDArray[np.float32],  # [V, 4]
        triangles: NDArray[np.int32],  # [F, 3]
        ranges: NDArray[np.int32],  # [N, 2]
        resolution: tuple[int, int],
        depth_layers: int = 1,
    ) -> Iterator[NDArray[np.int32]]:
        """Yield [N, H, W] triangle number + 1, nearest fragments first, see `Rasterizer`."""
        ids = np.zeros((depth_layers, len(ranges), *resolution), np.int32)
        for chosen, layer, drawn in self._draw(clip_vertices, triangles, ranges, resolution, depth_layers):
            ids[layer, chosen] = drawn[..., 3].int().cpu().numpy()
        yield from ids

    def _draw(
        self,
        clip_vertices: NDArray[np.float32],
        triangles: NDArray[np.int32],
        ranges: NDArray[np.int32],
        resolution: tuple[int, int],
        depth_layers: int,
    ) -> Iterator[tuple[NDArray[np.intp], int, torch.Tensor]]:
        """Yield which images were drawn, the depth layer, and the images [n, H, W, 4] on the GPU."""
        if len(triangles) >= MAX_TRIANGLES:
            raise ValueError(
                f"{len(triangles)} triangles in one call; nvdiffrast numbers {MAX_TRIANGLES - 1}"
            )
        if len(ranges) and not (ranges.min() >= 0 and ranges.sum(axis=1).max() <= len(triangles)):
            raise ValueError(f"ranges reach outside the {len(triangles)} triangles")
        filled = np.flatnonzero(ranges[:, 1] > 0)
        if not len(filled):
            return
        vertices, faces = self._upload(clip_vertices, triangles)
        at_once = self._images_at_once(resolution)
        for start in range(0, len(filled), at_once):
            chosen = filled[start : start + at_once]
            own_ranges = torch.from_numpy(np.ascontiguousarray(ranges[chosen], np.int32))  # stays on the CPU
            if depth_layers == 1:
                drawn, _ = dr.rasterize(
                    self._context, vertices, faces, list(resolution), ranges=own_ranges, grad_db=False
                )
                yield chosen, 0, drawn
                continue
            with dr.DepthPeeler(
                self._context, vertices, faces, list(resolution), ranges=own_ranges, grad_db=False
            ) as peeler:
                for layer in range(depth_layers):
                    yield chosen, layer, peeler.rasterize_next_layer()[0]

    def _upload(
        self, clip_vertices: NDArray[np.float32], triangles: NDArray[np.int32]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move geometry to the GPU; triangles with a NaN or infinite vertex become degenerate there."""
        vertices = torch.from_numpy(np.ascontiguousarray(clip_vertices, np.float32)).to(self._device)
        faces = torch.from_numpy(np.ascontiguousarray(triangles, np.int32)).to(self._device)
        broken = ~torch.isfinite(vertices).all(dim=1)  # [V]
        faces = torch.where(broken[faces.long()].any(dim=1, keepdim=True), 0, faces)
        return torch.where(broken[:, None], 0.0, vertices), faces
