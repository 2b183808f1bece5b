"""Small scenes that tests of layers render.

Letters: T frames, H rows, W columns.  World and object frames: metres.
"""

from dataclasses import replace

import numpy as np
import trimesh
from numpy.typing import NDArray

from render.layers import LayersConfig
from render.scene import Camera, Clip, HandMotion, Material, Mesh, ObjectMotion
from render.transforms import look_at

SIZE = 96
CONFIG = LayersConfig(size=SIZE, rasterizer="numba")


def mesh_of(shape: trimesh.Trimesh, smooth: bool) -> Mesh:
    vertices, faces, normals = shape.vertices, shape.faces, shape.vertex_normals
    if not smooth:
        vertices = vertices[faces].reshape(-1, 3)
        normals = np.repeat(shape.face_normals, 3, axis=0)
        faces = np.arange(len(vertices)).reshape(-1, 3)
    return Mesh(
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        normals=normals.astype(np.float32),
        uvs=np.zeros((len(vertices), 2), np.float32),
        colors=np.ones((len(vertices), 4), np.float32),
        material_ids=np.zeros(len(faces), np.int32),
        materials=(Material(),),
    )


def camera_at(eye: tuple[float, float, float]) -> Camera:
    intrinsics = np.array([[150.0, 0, 47.0], [0, 150.0, 48.5], [0, 0, 1]])
    return Camera(SIZE, SIZE, intrinsics, look_at(eye, (0, 0, 0)))


def clip_of(mesh: Mesh, world_from_object: NDArray, **changes: object) -> Clip:
    num_frames = len(world_from_object)
    moving = ObjectMotion(
        "thing", mesh, world_from_object.astype(np.float32), np.ones(num_frames, bool), digest=""
    )
    clip = Clip("clip", 30.0, num_frames, {}, {}, (moving,))
    return replace(clip, **changes)  # type: ignore[arg-type]


def still(num_frames: int = 1) -> NDArray:
    return np.tile(np.eye(4), (num_frames, 1, 1))


def rays(camera: Camera) -> NDArray:
    """Directions [H, W, 3] through pixel centres with z = 1, in camera space."""
    column, row = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack([column, row, np.ones_like(row)], axis=-1)
    return pixels @ np.linalg.inv(camera.intrinsics).T


def hand_motion(translation: tuple[float, float, float], num_frames: int = 1) -> HandMotion:
    pose = np.zeros((num_frames, 48), np.float32)
    pose[:, 0] = np.pi / 2  # palm towards a camera on the z axis
    return HandMotion(
        pose=pose,
        shape=np.zeros(10, np.float32),
        translation=np.tile(np.array(translation, np.float32), (num_frames, 1)),
        valid=np.ones(num_frames, bool),
    )
