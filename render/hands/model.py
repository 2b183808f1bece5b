"""Hands of a clip: MANO's linear blend skinning (smplx) from a `HandMotion` to vertices, joints and normals.

Letters: T frames, V = 778 vertices, F faces.  World frame, metres.
Joints are the 21 keypoints: the wrist, then four of each digit from its base to its tip, in the order
thumb, index, middle, ring, little.
"""

from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO

import numpy as np
import smplx
import torch
from numba import njit
from numpy.typing import NDArray
from smplx.utils import Struct

from render.hands.procedural import build_hand
from render.scene import SIDES, HandMotion, Layer

# Of each of MANO's 16 joints (wrist, index 1-3, middle 1-3, little 1-3, ring 1-3, thumb 1-3).
JOINT_LAYERS: tuple[Layer, ...] = (
    Layer.PALM,
    *(Layer.INDEX,) * 3,
    *(Layer.MIDDLE,) * 3,
    *(Layer.LITTLE,) * 3,
    *(Layer.RING,) * 3,
    *(Layer.THUMB,) * 3,
)
# Fingertip vertices of MANO's topology, as in smplx: thumb, index, middle, ring, little.
TIPS = (744, 320, 443, 554, 671)
# MANO's 16 joints followed by the five tips, in keypoint order.
KEYPOINTS = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
FRAMES_PER_BATCH = 256  # skinning matrices take 50 kB a frame


@dataclass(frozen=True)
class HandGeometry:
    """One hand's surface and keypoints over a clip."""

    vertices: NDArray[np.float32]  # [T, 778, 3]
    joints: NDArray[np.float32]  # [T, 21, 3]
    normals: NDArray[np.float32]  # [T, 778, 3] unit, smooth


class HandModel:
    """A hand of one side in MANO's schema, be it the licensed model or the procedural one."""

    faces: NDArray[np.int32]  # [F, 3]
    parts: NDArray[np.int8]  # [F] Layer of each face
    mean_pose: NDArray[np.float32]  # [45] axis-angle
    pca: NDArray[np.float32]  # [45, 45] one component a row
    template: NDArray[np.float32]  # [778, 3] rest pose, mean shape
    rest_joints: NDArray[np.float32]  # [16, 3] MANO's joints of the template
    weights: NDArray[np.float32]  # [778, 16] skinning
    tips: tuple[int, ...] = TIPS

    def __init__(self, data: Mapping[str, NDArray], side: str) -> None:
        self.side = side
        self.faces = np.asarray(data["f"], np.int32)
        self.weights = np.asarray(data["weights"], np.float32)
        self.template = np.asarray(data["v_template"], np.float32)
        self.rest_joints = np.asarray(data["J_regressor"] @ data["v_template"], np.float32)
        self.mean_pose = np.asarray(data["hands_mean"], np.float32)
        self.pca = np.asarray(data["hands_components"], np.float32)
        self.parts = face_parts(self.faces, self.weights)
        # Full axis-angle: with 45 PCA components smplx would read them as angles anyway, and with
        # flat_hand_mean off it would add the mean pose to poses that already include it.
        with redirect_stdout(StringIO()):  # smplx prints that ten shape components are few
            self._mano = smplx.MANO(
                model_path="",
                data_struct=Struct(**data),
                is_rhand=side == "right",
                use_pca=False,
                flat_hand_mean=True,
            )

    def __call__(self, motion: HandMotion) -> HandGeometry:
        """Pose the hand in every frame, valid or not."""
        batches = [
            self._pose(motion, slice(start, start + FRAMES_PER_BATCH))
            for start in range(0, len(motion.pose), FRAMES_PER_BATCH)
        ]
        vertices, joints = (torch.cat(parts).numpy() for parts in zip(*batches, strict=True))
        return HandGeometry(vertices, joints, vertex_normals(vertices, self.faces))

    @torch.no_grad()
    def _pose(self, motion: HandMotion, frames: slice) -> tuple[torch.Tensor, torch.Tensor]:
        pose = torch.from_numpy(np.asarray(motion.pose[frames], np.float32))  # [t, 48]
        shape = torch.from_numpy(np.asarray(motion.shape, np.float32))  # [10]
        output = self._mano(
            betas=shape.expand(len(pose), -1),
            global_orient=pose[:, :3],
            hand_pose=pose[:, 3:],
            transl=torch.from_numpy(np.asarray(motion.translation[frames], np.float32)),
        )
        vertices = output.vertices  # [t, 778, 3]
        joints = torch.cat([output.joints, vertices[:, TIPS]], dim=1)[:, KEYPOINTS]  # [t, 21, 3]
        return vertices, joints


def vertex_normals(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Area-weighted unit normals [T, V, 3] of vertices [T, V, 3] and faces [F, 3]."""
    normals: NDArray[np.float32] = _vertex_normals(vertices, faces)
    return normals


@njit(nogil=True, cache=True)
def _vertex_normals(vertices, faces):  # type: ignore[no-untyped-def]
    normals = np.zeros_like(vertices)
    for t in range(len(vertices)):
        for f in range(len(faces)):
            a, b, c = vertices[t, faces[f, 0]], vertices[t, faces[f, 1]], vertices[t, faces[f, 2]]
            x1, y1, z1 = b[0] - a[0], b[1] - a[1], b[2] - a[2]
            x2, y2, z2 = c[0] - a[0], c[1] - a[1], c[2] - a[2]
            for corner in range(3):
                normals[t, faces[f, corner], 0] += y1 * z2 - z1 * y2
                normals[t, faces[f, corner], 1] += z1 * x2 - x1 * z2
                normals[t, faces[f, corner], 2] += x1 * y2 - y1 * x2
        for v in range(vertices.shape[1]):
            x, y, z = normals[t, v]
            length = max(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))
            normals[t, v, 0], normals[t, v, 1], normals[t, v, 2] = x / length, y / length, z / length
    return normals


def face_parts(faces: NDArray[np.int32], weights: NDArray[np.float32]) -> NDArray[np.int8]:
    """The Layer [F] of each face [F, 3]: the one with the largest summed weight [V, 16] of its vertices."""
    layer_weights = np.zeros((len(weights), len(Layer)), np.float32)  # [V, L]
    for joint, layer in enumerate(JOINT_LAYERS):
        layer_weights[:, layer] += weights[:, joint]
    return layer_weights[faces].sum(axis=1).argmax(axis=1).astype(np.int8)


@cache
def default_hands() -> dict[str, HandModel]:
    """Both procedural hands by side; they need no licensed file."""
    return {side: HandModel(build_hand(side), side) for side in SIDES}
