"""The GPU rasterizer: nvdiffrast in range mode. The only file that imports nvdiffrast.

Letters: N images, B frames, L layers, H rows, W columns, V vertices, F faces.  Frame: as in `protocol`;
nvdiffrast's row 0 is the lowest y of clip space, which here is the picture's top.
Layers are shaded on the GPU too, and only covered pixels come back: whole images would take longer to copy
than to draw.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import nvdiffrast.torch as dr
import torch
from numpy.typing import NDArray

from render.rasterizers.batches import MAX_TRIANGLES, frames_at_once, images_at_once
from render.shading import PosedLayers, scatter_codes
from render.threads import available_threads, for_each
from render.torch_shading import LayerTensors, ShadedPixels, shade_pixels

BYTES_PER_PIXEL = 60  # of an image while it is drawn: four floats out, and nvdiffrast's own buffers
PIXELS_AT_ONCE = 1 << 22  # covered ones that are shaded together, in some two gigabytes


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
        vertices, faces = self._upload(clip_vertices), self._upload(triangles)
        for chosen, _, drawn in self._draw(vertices, faces, ranges, resolution, depth_layers=1):
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
        vertices, faces = self._upload(clip_vertices), self._upload(triangles)
        for chosen, layer, drawn in self._draw(vertices, faces, ranges, resolution, depth_layers):
            ids[layer, chosen] = drawn[..., 3].int().cpu().numpy()
        yield from ids

    def draw_layers(
        self,
        posed: PosedLayers,
        depth_range: tuple[float, float],
        normal_codes: NDArray[np.uint8],  # [B, L, H, W, 3]
        depth_codes: NDArray[np.uint16],  # [B, L, H, W]
    ) -> None:
        """Write the codes of covered pixels, see `Rasterizer`."""
        resolution = depth_codes.shape[2:]
        image_normals = normal_codes.reshape(-1, resolution[0] * resolution[1], 3)
        image_depth = depth_codes.reshape(-1, resolution[0] * resolution[1])
        for images, shaded in self.shaded_layers(posed, depth_range, resolution):
            codes = [tensor.cpu().numpy() for tensor in shaded]
            ends = np.linspace(0, len(codes[0]), available_threads() + 1).astype(int)

            def scatter(
                part: tuple[int, int], images: NDArray = images, codes: list[NDArray] = codes
            ) -> None:
                own = (array[part[0] : part[1]] for array in codes)
                scatter_codes(*own, images, image_normals, image_depth)

            for_each(scatter, pairwise(ends))

    def shaded_layers(
        self, posed: PosedLayers, depth_range: tuple[float, float], resolution: tuple[int, int]
    ) -> Iterator[tuple[NDArray[np.intp], ShadedPixels]]:
        """Yield some covered pixels' codes on the GPU, and which of the B·L images they count as theirs."""
        num_frames, num_vertices = posed.clip_vertices.shape[:2]
        vertices, normals = self._upload(posed.clip_vertices), self._upload(posed.normals)
        faces = self._upload(posed.faces)
        tensors = LayerTensors(vertices, normals, faces, self._upload(posed.against_normals))
        frame = torch.arange(num_frames, dtype=torch.int32, device=self._device)[:, None, None]
        triangles = (faces + frame * num_vertices).reshape(-1, 3)
        first_faces = np.arange(num_frames)[:, None, None] * np.array([len(posed.faces), 0])
        ranges = (posed.ranges + first_faces).reshape(-1, 2)
        for images, _, drawn in self._draw(vertices.reshape(-1, 4), triangles, ranges, resolution, 1):
            covered = drawn[..., 3].reshape(-1).nonzero()[:, 0]
            for places in covered.split(PIXELS_AT_ONCE):
                yield images, shade_pixels(drawn, places, tensors, depth_range)

    def _draw(
        self,
        vertices: torch.Tensor,  # [V, 4]
        triangles: torch.Tensor,  # [F, 3]
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
        # Triangles with a NaN or infinite vertex become degenerate.
        broken = ~torch.isfinite(vertices).all(dim=1)  # [V]
        faces = torch.where(broken[triangles.long()].any(dim=1, keepdim=True), 0, triangles)
        vertices = torch.where(broken[:, None], 0.0, vertices)
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

    def _upload(self, array: NDArray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
