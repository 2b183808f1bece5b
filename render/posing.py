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
from render.threads import for_each
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
        self._posed = np.empty((2, 0, 0, 3), np.float32)
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
        """Return camera-space vertices [B, V, 3] and unit normals [B, V, 3], valid until the next call."""
        chosen = range(*frames.indices(self._clip.num_frames))
        if self._posed.shape[1] < len(chosen):  # fresh memory for every batch costs page faults
            self._posed = np.empty((2, len(chosen), self.num_vertices, 3), np.float32)
        vertices, normals = self._posed[:, : len(chosen)]

        def place(b: int) -> None:
            first = 0
            for moving in self._clip.objects:
                part = slice(first, first + len(moving.mesh.vertices))
                camera_from_object = self._camera_from_world @ moving.world_from_object[chosen[b]]
                is_valid = moving.valid[chosen[b]]
                surface = camera_from_object, moving.mesh.vertices, moving.mesh.normals
                _place(*surface, is_valid, vertices[b, part], normals[b, part])
                first = part.stop
            for side, first in self.first_hand_vertex.items():
                hand, is_valid = self._geometry[side], self._clip.hands[side].valid[chosen[b]]
                part = slice(first, first + hand.vertices.shape[1])
                surface = self._camera_from_world, hand.vertices[chosen[b]], hand.normals[chosen[b]]
                _place(*surface, is_valid, vertices[b, part], normals[b, part])

        for_each(place, range(len(chosen)))
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


@njit(nogil=True, cache=True)
def _place(camera_from_surface, points, normals, is_valid, placed, turned):  # type: ignore[no-untyped-def]
    """Take points and normals [n, 3] to camera space: placed and turned [n, 3], of invalid surfaces NaN."""
    matrix = camera_from_surface.astype(np.float32)
    if not is_valid:
        placed[:] = np.nan
        turned[:] = np.nan
        return
    xx, xy, xz, x0 = matrix[0, 0], matrix[0, 1], matrix[0, 2], matrix[0, 3]
    yx, yy, yz, y0 = matrix[1, 0], matrix[1, 1], matrix[1, 2], matrix[1, 3]
    zx, zy, zz, z0 = matrix[2, 0], matrix[2, 1], matrix[2, 2], matrix[2, 3]
    for n in range(len(points)):
        x, y, z = points[n, 0], points[n, 1], points[n, 2]
        placed[n, 0] = xx * x + xy * y + xz * z + x0
        placed[n, 1] = yx * x + yy * y + yz * z + y0
        placed[n, 2] = zx * x + zy * y + zz * z + z0
    for n in range(len(normals)):
        x, y, z = normals[n, 0], normals[n, 1], normals[n, 2]
        turned[n, 0] = xx * x + xy * y + xz * z
        turned[n, 1] = yx * x + yy * y + yz * z
        turned[n, 2] = zx * x + zy * y + zz * z


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
