"""All surfaces of a clip as one list of triangles, posed in camera space batch by batch.

Letters: T frames, B frames of a batch, L layers, V vertices and F faces of one frame, J = 21 joints.
Frame: OpenCV camera, metres.  What is invalid in a frame has NaN vertices, which no rasterizer draws.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from numpy.typing import NDArray

from render.scene import HAND_LAYERS, SIDES, STORED_LAYERS, Camera, Clip, Mesh
from render.transforms import transform

if TYPE_CHECKING:  # importing torch takes seconds
    from render.hands.model import HandGeometry, HandModel


class PosedClip:
    """Objects first, then the left and the right hand; faces sorted so that each layer is one range."""

    faces: NDArray[np.int32]  # [F, 3] of one frame
    against_normals: NDArray[np.bool_]  # [F] winding and vertex normals point to opposite sides
    layer_ranges: NDArray[np.int32]  # [13, 2] first face and how many, in the order of STORED_LAYERS
    num_vertices: int  # V
    first_hand_vertex: Mapping[str, int]  # by side, of the hands that the clip has

    def __init__(self, clip: Clip, camera: Camera, hands: Mapping[str, "HandModel"]) -> None:
        self._clip = clip
        self._camera_from_world = camera.camera_from_world
        self._geometry: dict[str, HandGeometry] = {side: hands[side](clip.hands[side]) for side in clip.hands}
        faces, against = [np.zeros((0, 3), np.int32)], [np.zeros(0, bool)]
        num_vertices = 0
        for moving in clip.objects:
            faces.append(moving.mesh.faces + np.int32(num_vertices))
            against.append(winding_against_normals(moving.mesh))
            num_vertices += len(moving.mesh.vertices)
        counts = dict.fromkeys(STORED_LAYERS, 0)
        counts["object"] = sum(map(len, faces))
        self.first_hand_vertex = {}
        for side in SIDES:
            if side not in clip.hands:
                continue
            self.first_hand_vertex[side] = num_vertices
            hand = hands[side]
            faces.append(hand.faces[np.argsort(hand.parts, kind="stable")] + np.int32(num_vertices))
            against.append(np.zeros(len(hand.faces), bool))
            for layer in HAND_LAYERS:
                counts[f"{side}_{layer.name.lower()}"] = int(np.count_nonzero(hand.parts == layer))
            num_vertices += self._geometry[side].vertices.shape[1]
        self.num_vertices = num_vertices
        self.faces = np.concatenate(faces)
        self.against_normals = np.concatenate(against)
        sizes = np.array([counts[name] for name in STORED_LAYERS], np.int32)
        self.layer_ranges = np.stack([np.cumsum(sizes, dtype=np.int32) - sizes, sizes], axis=1)

    def pose(self, frames: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return camera-space vertices [B, V, 3] and unit normals [B, V, 3]."""
        num_frames = len(range(*frames.indices(self._clip.num_frames)))
        vertices = np.empty((num_frames, self.num_vertices, 3), np.float32)
        normals = np.empty_like(vertices)
        first = 0
        for moving in self._clip.objects:
            camera_from_object = self._camera_from_world @ moving.world_from_object[frames]  # [B, 4, 4]
            camera_from_object = camera_from_object.astype(np.float32)
            part = slice(first, first + len(moving.mesh.vertices))
            for frame, matrix in enumerate(camera_from_object):  # a stack of products would not reach BLAS
                vertices[frame, part] = transform(matrix, moving.mesh.vertices)
                normals[frame, part] = moving.mesh.normals @ matrix[:3, :3].T
            vertices[~moving.valid[frames], part] = np.nan
            first = part.stop
        camera_from_world = self._camera_from_world.astype(np.float32)
        for side, first in self.first_hand_vertex.items():
            geometry = self._geometry[side]
            part = slice(first, first + geometry.vertices.shape[1])
            vertices[:, part] = transform(camera_from_world, geometry.vertices[frames])
            normals[:, part] = geometry.normals[frames] @ camera_from_world[:3, :3].T
            vertices[~self._clip.hands[side].valid[frames], part] = np.nan
        return vertices, normals

    def depth_range(self, nearest: float) -> tuple[float, float]:
        """Return the least and greatest depth of all surfaces in all frames, none less than `nearest`."""
        low, high = np.inf, -np.inf
        axis = self._camera_from_world[2]  # depth = axis · (x, y, z, 1)
        for moving in self._clip.objects:
            is_used = np.zeros(len(moving.mesh.vertices), bool)
            is_used[moving.mesh.faces] = True
            used = moving.mesh.vertices[is_used & np.isfinite(moving.mesh.vertices).all(axis=1)]
            if not len(used):
                continue
            for world_from_object in moving.world_from_object[moving.valid]:
                row = axis @ world_from_object
                depth = used @ row[:3].astype(np.float32) + np.float32(row[3])
                low, high = min(low, depth.min()), max(high, depth.max())
        for side, geometry in self._geometry.items():
            points = geometry.vertices[self._clip.hands[side].valid]
            if points.size:
                depth = points @ axis[:3].astype(np.float32) + np.float32(axis[3])
                low, high = min(low, depth.min()), max(high, depth.max())
        if high <= nearest:  # nothing is in front of the camera
            return nearest, nearest + 1.0
        near = max(float(low), nearest)
        return near, max(float(high), near * 1.001)

    def joints(self) -> NDArray[np.float32]:
        """Return camera-space joints [T, 2, J, 3] of the left and right hand, NaN where invalid."""
        joints = np.full((self._clip.num_frames, len(SIDES), 21, 3), np.nan, np.float32)
        for side, geometry in self._geometry.items():
            valid = self._clip.hands[side].valid
            joints[valid, SIDES.index(side)] = transform(self._camera_from_world, geometry.joints[valid])
        return joints


def winding_against_normals(mesh: Mesh) -> NDArray[np.bool_]:
    """Return [F] whether the counter-clockwise side of a face is the back of its vertex normals."""
    against: NDArray[np.bool_] = _winding_against_normals(mesh.vertices, mesh.faces, mesh.normals)
    return against


@njit(nogil=True, cache=True)
def _winding_against_normals(vertices, faces, normals):  # type: ignore[no-untyped-def]
    against = np.empty(len(faces), np.bool_)
    for f in range(len(faces)):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        x1, y1, z1 = _side(vertices, i, j)
        x2, y2, z2 = _side(vertices, i, k)
        agreement = 0.0
        for v in (i, j, k):
            agreement += (y1 * z2 - z1 * y2) * normals[v, 0]
            agreement += (z1 * x2 - x1 * z2) * normals[v, 1]
            agreement += (x1 * y2 - y1 * x2) * normals[v, 2]
        against[f] = agreement < 0.0
    return against


@njit(nogil=True, cache=True)
def _side(vertices, i, j):  # type: ignore[no-untyped-def]
    return vertices[j, 0] - vertices[i, 0], vertices[j, 1] - vertices[i, 1], vertices[j, 2] - vertices[i, 2]
