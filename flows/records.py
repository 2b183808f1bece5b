"""Rendering records: from scene types to what the store keeps.

Letters: T frames.
"""

from collections.abc import Mapping
from functools import cache
from typing import TypeVar

import numpy as np
from pydantic import BaseModel

from render.hands.model import HandModel
from render.layers import LayersConfig, render_layers
from render.rasterizers.numba import NumbaRasterizer
from render.rasterizers.protocol import RasterizerName, get_rasterizer
from render.scene import Camera, Clip, Mesh
from render.six_views import SixViewConfig, canonicalize, render_six_views, sample_points
from storage.records import LayersData, ObjectData

Drawn = TypeVar("Drawn", bound=BaseModel)

POINTS_SEED = 0  # points of a mesh are the same wherever it is used


def on_this_machine(config: Drawn) -> Drawn:
    """Return a config with the rasterizer that each part's `auto` stands for here: their bytes differ."""
    parts = {name: getattr(config, name) for name in type(config).model_fields}
    drawn = {name: part for name, part in parts.items() if hasattr(part, "rasterizer")}
    chosen = {
        name: part.model_copy(update={"rasterizer": backend(part.rasterizer)}) for name, part in drawn.items()
    }
    return config.model_copy(update=chosen)


@cache
def backend(name: RasterizerName) -> RasterizerName:
    """Return the rasterizer that a name stands for on this machine."""
    return "numba" if isinstance(get_rasterizer(name), NumbaRasterizer) else "nvdiffrast"


def object_data(name: str, mesh: Mesh, provenance: Mapping[str, str], config: SixViewConfig) -> ObjectData:
    """Render an object's references."""
    canonical, scale_m, centre = canonicalize(mesh)
    return ObjectData(
        views=render_six_views(canonical, config),
        points=sample_points(canonical, np.random.default_rng(POINTS_SEED)),
        centre=np.asarray(centre, np.float64),
        scale_m=float(scale_m),
        name=name,
        provenance=dict(provenance),
    )


def off_centre(mesh: Mesh) -> tuple[int, ...]:
    """Return where a mesh's middle is in its own frame, in ten-thousandths of its radius."""
    _, scale_m, centre = canonicalize(mesh)
    return tuple(np.round(centre / scale_m * 10_000).astype(int).tolist())


def layers_data(
    clip: Clip, camera: Camera, hands: Mapping[str, HandModel], config: LayersConfig
) -> LayersData:
    """Render a clip's layers for a camera that is cropped already."""
    rendered = render_layers(clip, camera, hands, config)
    if clip.objects:
        first = clip.objects[0]
        world_from_object = np.where(first.valid[:, None, None], first.world_from_object, np.nan)
    else:
        world_from_object = np.full((clip.num_frames, 4, 4), np.nan)
    return LayersData(
        normals=rendered.normals,
        depth=rendered.depth,
        joints_2d=rendered.joints_2d,
        joints_3d=rendered.joints_3d_camera,
        world_from_object=world_from_object.astype(np.float32),
        intrinsics=camera.intrinsics,
        camera_from_world=camera.camera_from_world,
        near_m=rendered.near_m,
        far_m=rendered.far_m,
    )
