"""Multi-layer occlusion conditions of a clip (paper, Sec. 3.1.1): each part rendered alone, nothing hides it.

Letters: T frames, L = 13 layers, H rows, W columns, J = 21 joints.  Frame: OpenCV camera, metres.
All layers of a batch of frames go through one rasterizer call, in which each layer is a range of triangles;
covered pixels are then written as u8 normals and u16 depth, see `mlo`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from render.camera import clip_vertices, project
from render.posing import PosedClip
from render.rasterizers.protocol import RasterizerName, get_rasterizer
from render.scene import STORED_LAYERS, Camera, Clip
from render.shading import PosedLayers

if TYPE_CHECKING:  # importing torch takes seconds
    from render.hands.model import HandModel


class LayersConfig(BaseModel, frozen=True, extra="forbid"):
    """How a clip's layers are rendered."""

    size: int = 256
    """Pixels on a side of the square layers."""
    nearest_m: float = 0.05
    """Surfaces nearer to the camera than this many metres are not drawn."""
    rasterizer: RasterizerName = "auto"
    """auto, numba or nvdiffrast."""


@dataclass(frozen=True)
class RenderedLayers:
    """The thirteen layers of a clip seen by one camera, as stored."""

    normals: NDArray[np.uint8]  # [T, L, H, W, 3] camera space, codes of `mlo`
    depth: NDArray[np.uint16]  # [T, L, H, W] codes of `mlo`; 0 = empty
    near_m: float  # depth of code 1; one for all layers and frames
    far_m: float  # depth of code 65535
    joints_2d: NDArray[np.float32]  # [T, 2, J, 2] pixels of the left and right hand; NaN where invalid
    joints_3d_camera: NDArray[np.float32]  # [T, 2, J, 3]; NaN where invalid


def render_layers(
    clip: Clip, camera: Camera, hands: Mapping[str, "HandModel"], config: LayersConfig
) -> RenderedLayers:
    """Render all layers of all frames; `camera` is already cropped to the configured size."""
    if (camera.width, camera.height) != (config.size, config.size):
        raise ValueError(
            f"camera is {camera.width} by {camera.height}, layers are to be {config.size} px square"
        )
    posed = PosedClip(clip, camera, hands)
    near, far = posed.depth_range(config.nearest_m)
    shape = clip.num_frames, len(STORED_LAYERS), config.size, config.size
    layers = RenderedLayers(
        normals=np.zeros(
            (*shape, 3), np.uint8
        ),  # zeros are not backed by memory until a surface touches them
        depth=np.zeros(shape, np.uint16),
        near_m=near,
        far_m=far,
        joints_2d=_joint_pixels(posed.joints(), camera),
        joints_3d_camera=posed.joints(),
    )
    rasterizer = get_rasterizer(config.rasterizer)
    per_batch = rasterizer.frames_at_once(len(STORED_LAYERS), len(posed.faces), (config.size, config.size))
    for start in range(0, clip.num_frames, per_batch):
        frames = slice(start, min(start + per_batch, clip.num_frames))
        points, point_normals = posed.pose(frames)  # [B, V, 3]
        # A little beyond near and far, so that rounding does not clip the outermost vertices.
        vertices = clip_vertices(points, camera, near * 0.999, far * 1.001)
        batch = PosedLayers(vertices, point_normals, posed.faces, posed.against_normals, posed.layer_ranges)
        rasterizer.draw_layers(batch, (near, far), layers.normals[frames], layers.depth[frames])
    return layers


def _joint_pixels(joints_camera: NDArray[np.float32], camera: Camera) -> NDArray[np.float32]:
    """Project camera-space joints [..., 3] to pixels [..., 2]; NaN behind the camera."""
    pixels, depth = project(joints_camera, replace(camera, camera_from_world=np.eye(4)))
    return np.where(depth[..., None] > 0, pixels, np.nan).astype(np.float32)
