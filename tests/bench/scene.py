"""The scene that benchmarks render: an object of so many triangles, turning, and two moving hands around it.

Letters: T frames, V vertices, F faces.  World frame, metres.
"""

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from render.camera import Camera
from render.hands.model import default_hands
from render.scene import SIDES, Clip, HandMotion, Material, Mesh, ObjectMotion
from render.transforms import look_at, rigid

FPS = 30.0


def torus(num_triangles: int, radius: float = 0.06, thickness: float = 0.03) -> Mesh:
    """Return a smooth ring of about so many triangles."""
    around = max(round((num_triangles / 2 * radius / thickness) ** 0.5), 3)
    shape = trimesh.creation.torus(radius, thickness, around, max(round(num_triangles / 2 / around), 3))
    return Mesh(
        vertices=shape.vertices.astype(np.float32),
        faces=shape.faces.astype(np.int32),
        normals=shape.vertex_normals.astype(np.float32),
        uvs=np.zeros((len(shape.vertices), 2), np.float32),
        colors=np.ones((len(shape.vertices), 4), np.float32),
        material_ids=np.zeros(len(shape.faces), np.int32),
        materials=(Material(),),
    )


def bimanual_clip(num_triangles: int = 50_000, num_frames: int = 24) -> Clip:
    """Return a ring that turns between two hands, which close and drift."""
    angles = np.linspace(0, 2, num_frames)
    axis = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    rotation = Rotation.from_rotvec(angles[:, None] * axis).as_matrix()
    drift = 0.01 * np.stack([np.sin(angles), np.cos(angles), angles], axis=1)  # [T, 3]
    moving = ObjectMotion(
        "ring", torus(num_triangles), rigid(rotation, drift).astype(np.float32), np.ones(num_frames, bool), ""
    )
    hands = {}
    for side, x in zip(SIDES, (-0.07, 0.07), strict=True):
        pose = np.zeros((num_frames, 48), np.float32)
        pose[:, 3:] = np.linspace(0, 1.2, num_frames)[:, None] * default_hands()[side].mean_pose
        pose[:, 0] = np.pi / 2  # palm towards the camera
        hands[side] = HandMotion(
            pose=pose,
            shape=np.zeros(10, np.float32),
            translation=(drift + np.array([x, 0, 0.02])).astype(np.float32),
            valid=np.ones(num_frames, bool),
        )
    return Clip("bench", FPS, num_frames, {}, hands, (moving,))


def front_camera(size: int) -> Camera:
    """Return a camera that the scene of `bimanual_clip` fills."""
    focal = 1.75 * size
    intrinsics = np.array([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]])
    return Camera(size, size, intrinsics, look_at((0.02, 0.1, 0.5), (0, 0, 0)))
