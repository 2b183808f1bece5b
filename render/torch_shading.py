"""What `shading.shade_layer` computes, for a rasterizer whose image is on a GPU: torch, on any device.

Letters: n images, H rows, W columns, B frames, V vertices, F faces, P covered pixels.  Frame: clip space as
in `rasterizers.protocol`.  Only covered pixels are computed and handed back: most of a layer is empty.
"""

from typing import NamedTuple

import torch

from render.mlo import DEPTH_STEPS, NORMAL_STEPS, NORMAL_ZERO


class LayerTensors(NamedTuple):
    """`shading.PosedLayers` on a device, without the ranges."""

    clip_vertices: torch.Tensor  # [B, V, 4] float32
    normals: torch.Tensor  # [B, V, 3] float32, camera space
    faces: torch.Tensor  # [F, 3] int32
    against_normals: torch.Tensor  # [F] bool


class ShadedPixels(NamedTuple):
    """Codes of `mlo` at some covered pixels."""

    places: torch.Tensor  # [P] int64 index into the n·H·W pixels
    normals: torch.Tensor  # [P, 3] uint8
    depth: torch.Tensor  # [P] int32, 1…65535


def shade_pixels(
    image: torch.Tensor, places: torch.Tensor, posed: LayerTensors, depth_range: tuple[float, float]
) -> ShadedPixels:
    """Shade an image [n, H, W, 4] of (u, v, z/w, number + 1) at covered pixels, [P] index into its n·H·W.

    Triangle f of frame b has the number b·F + f; depth_range is (near, far) in metres.
    """
    u, v, number = image.reshape(-1, 4)[places][:, (0, 1, 3)].double().T
    triangle = number.long() - 1
    face, frame = triangle % len(posed.faces), triangle // len(posed.faces)
    corners = posed.faces.long()[face]  # [P, 3]
    vertices = posed.clip_vertices[frame[:, None], corners].double()  # [P, 3, 4]
    weights = torch.stack([u, v, 1 - u - v], dim=-1)  # [P, 3]

    depth_m = (weights * vertices[..., 3]).sum(dim=-1)
    near, far = depth_range
    depth = torch.floor((depth_m - near) * (DEPTH_STEPS / (far - near)) + 1.5).clamp(1, 1 + DEPTH_STEPS)

    # Of the corners' (x, y, w): positive where the back of a counter-clockwise triangle is seen.
    x, y, _, w = vertices.unbind(dim=-1)
    shows_back = (torch.linalg.cross(x, y) * w).sum(dim=-1) > 0
    normals = (weights[..., None] * posed.normals[frame[:, None], corners].double()).sum(dim=1)  # [P, 3]
    length = normals.norm(dim=-1, keepdim=True)
    turned = torch.where(shows_back != posed.against_normals[face], -1.0, 1.0)[:, None]
    head_on = normals.new_tensor([0.0, 0.0, -1.0])  # opposite normals cancel
    unit = torch.where(length > 0, turned * normals / length, head_on)
    codes = torch.floor(unit * NORMAL_STEPS + (NORMAL_ZERO + 0.5))
    return ShadedPixels(places, codes.to(torch.uint8), depth.to(torch.int32))
