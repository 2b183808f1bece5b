"""Lit, textured frames of a clip: objects and hands before a background, as a camera would film them.

Letters: T frames, H rows, W columns, V = 778 vertices of a hand.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from render.appearance import build_surfaces
from render.camera import clip_vertices
from render.lighting import lights_in_camera
from render.painting import Painter, PaintingConfig, PosedSurfaces
from render.posing import PosedClip
from render.scene import Camera, Clip, Material, Mesh

if TYPE_CHECKING:  # importing torch takes seconds
    from render.hands.model import HandModel

PLAIN_SKIN = (0.58, 0.34, 0.25)  # linear RGB
FRAMES_AT_ONCE = 4  # in one rasterizer call


class FramesConfig(PaintingConfig, frozen=True, extra="forbid"):
    """How a clip's frames are rendered."""

    background: tuple[int, int, int] = (128, 128, 128)
    """sRGB colour behind everything where there is no background picture."""
    nearest_m: float = 0.05
    """Surfaces nearer to the camera than this many metres are not drawn."""


def render_frames(
    clip: Clip,
    camera: Camera,
    hands: Mapping[str, "HandModel"],
    config: FramesConfig,
    background: NDArray[np.uint8] | None = None,
    skin: Mapping[str, NDArray[np.float32]] | None = None,
) -> NDArray[np.uint8]:
    """Return sRGB frames [T, H, W, 3] at the camera's size.

    `background` [H, W, 3] is sRGB; `skin` [V, 3] by side is linear RGB, an even tone where there is none.
    """
    if background is None:
        background = np.full((camera.height, camera.width, 3), config.background, np.uint8)
    if background.shape != (camera.height, camera.width, 3):
        raise ValueError(f"background is {background.shape}, the camera {(camera.height, camera.width)}")
    posed = PosedClip(clip, camera, hands)
    near, far = posed.depth_range(config.nearest_m)
    meshes = [moving.mesh for moving in clip.objects]
    meshes += [_skinned(hands[side], (skin or {}).get(side)) for side in posed.first_hand_vertex]
    surfaces = build_surfaces(meshes, posed.faces, posed.against_normals)
    lights = lights_in_camera(config.lighting, camera.camera_from_world)
    painter = Painter(surfaces, lights, config)
    frames = np.empty((clip.num_frames, camera.height, camera.width, 3), np.uint8)
    for start in range(0, clip.num_frames, FRAMES_AT_ONCE):
        batch = slice(start, min(start + FRAMES_AT_ONCE, clip.num_frames))
        points, normals = posed.pose(batch)
        vertices = clip_vertices(points, camera, near * 0.999, far * 1.001)
        frames[batch] = painter.paint(PosedSurfaces(points, normals, vertices), background)[..., :3]
    return frames


def _skinned(hand: "HandModel", colors: NDArray[np.float32] | None) -> Mesh:
    """Return a hand at rest with its skin colours [V, 3]; positions and normals come from its pose."""
    num_vertices = len(hand.template)
    rgba = np.ones((num_vertices, 4), np.float32)
    rgba[:, :3] = PLAIN_SKIN if colors is None else colors
    return Mesh(
        vertices=hand.template,
        faces=hand.faces,
        normals=np.zeros_like(hand.template),
        uvs=np.zeros((num_vertices, 2), np.float32),
        colors=rgba,
        material_ids=np.zeros(len(hand.faces), np.int32),
        materials=(Material(name="skin"),),
    )
