"""Rendering records: from scene types to what the store keeps.

Letters: T frames.
"""

from collections.abc import Mapping

import numpy as np

from render.hands.model import HandModel
from render.layers import LayersConfig, render_layers
from render.scene import Camera, Clip, Mesh
from render.six_views import SixViewConfig, canonicalize, render_six_views, sample_points
from storage.records import LayersData, ObjectData

POINTS_SEED = 0  # points of a mesh are the same wherever it is used


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
