"""The triangles of glTF primitives, as arrays in the frame of their scene.

Letters: V vertices, F triangles, J joints of a skin. Morph targets stand at the file's own weights and skins
in the pose of the file's own nodes: what a viewer shows before any animation plays. All in float64, because
node transforms may be far larger or smaller than the object.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError
from storage.sources.gltf_arrays import PrimitiveArrays


@dataclass(frozen=True)
class Placement:
    """Where a mesh node puts its primitives, and in which shape."""

    scene_from_mesh: NDArray[np.float64]  # [4, 4]
    joints: NDArray[np.float64] | None  # [J, 4, 4] scene_from_mesh of each joint of a skin
    weights: tuple[float, ...]  # of the morph targets


@dataclass(frozen=True)
class Primitive:
    """One primitive in the scene: only the vertices that its triangles use."""

    positions: NDArray[np.float64]  # [V, 3]
    normals: NDArray[np.float64]  # [V, 3] unit
    faces: NDArray[np.int64]  # [F, 3]
    colors: NDArray[np.float64] | None  # [V, 4] linear
    uv_sets: dict[int, NDArray[np.float64]]  # [V, 2] by set


def read_primitive(arrays: PrimitiveArrays, placement: Placement) -> Primitive | None:
    """Return a primitive's triangles in the scene; None where it has none (points, lines)."""
    if not arrays.has_triangles:
        return None
    faces = arrays.faces()
    if not len(faces):
        return None
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    scene_from_mesh = _vertex_transforms(arrays, placement, used)  # [V or 1, 3, 4]
    if np.linalg.det(scene_from_mesh[0, :, :3]) < 0:  # a mirror turns triangles inside out
        faces = faces[:, ::-1]
    positions = _apply(scene_from_mesh, _morphed(arrays, "POSITION", placement.weights)[used])
    colors = arrays.attribute("COLOR_0")[used] if arrays.names("COLOR_0") else None
    uv_sets = {
        int(name.removeprefix("TEXCOORD_")): arrays.attribute(name)[used]
        for name in arrays.names("TEXCOORD_")
    }
    _check_finite(arrays, [positions, *uv_sets.values(), *([] if colors is None else [colors])])
    if not arrays.names("NORMAL"):
        return _flat(positions, faces, colors, uv_sets)
    normals = _morphed(arrays, "NORMAL", placement.weights)[used]
    normals = np.einsum("vij,vj->vi", _cofactors(scene_from_mesh), normals)
    return Primitive(positions, _repaired(normals, positions, faces), faces, _rgba(colors), uv_sets)


def _check_finite(arrays: PrimitiveArrays, values: list[NDArray[np.float64]]) -> None:
    if not all(np.isfinite(each).all() for each in values):
        raise InputError(
            f"{arrays.gltf.path}: a vertex's position, colour or texture coordinate is not finite",
            code="non-finite",
        )


def _morphed(arrays: PrimitiveArrays, name: str, weights: tuple[float, ...]) -> NDArray[np.float64]:
    """Return an attribute [V, 3] with the weighted displacements of the morph targets added."""
    values = arrays.attribute(name).astype(np.float64)
    for number, weight in enumerate(weights):
        displacements = arrays.target(number, name) if weight else None
        if displacements is not None:
            values = values + weight * displacements
    return values


def _vertex_transforms(
    arrays: PrimitiveArrays, placement: Placement, used: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return scene_from_mesh [V, 3, 4] of each used vertex of a skin, else [1, 3, 4] for all of them."""
    if placement.joints is None or not arrays.names("JOINTS_0"):
        return placement.scene_from_mesh[None, :3]
    transforms = np.zeros((len(used), 3, 4))
    total = np.zeros((len(used), 1, 1))
    for name in arrays.names("JOINTS_"):
        joints = arrays.attribute(name)[used].astype(np.int64)
        weights = arrays.attribute(name.replace("JOINTS", "WEIGHTS"))[used]
        for joint, weight in zip(joints.T, weights.T, strict=True):
            transforms += weight[:, None, None] * placement.joints[joint, :3]
            total += weight[:, None, None]
    # A vertex without weights follows its first joint, rather than collapse into the origin.
    first = placement.joints[arrays.attribute("JOINTS_0")[used, 0].astype(np.int64), :3]
    return np.where(total > 0, transforms / np.where(total > 0, total, 1.0), first)


def _apply(transforms: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Transform points [V, 3] by [V or 1, 3, 4]."""
    return np.einsum("vij,vj->vi", transforms[:, :, :3], points) + transforms[:, :, 3]


def _cofactors(transforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices [V or 1, 3, 3] that turn normals: inverse transposes up to a positive factor.

    Cofactors exist for singular matrices too (a scale of zero along one axis).
    """
    x, y, z = (transforms[:, :, axis] for axis in range(3))
    cofactors = np.stack([np.cross(y, z), np.cross(z, x), np.cross(x, y)], axis=2)
    mirrored = np.linalg.det(transforms[:, :, :3]) < 0
    return np.where(mirrored[:, None, None], -cofactors, cofactors)


def _flat(
    positions: NDArray[np.float64],
    faces: NDArray[np.int64],
    colors: NDArray[np.float64] | None,
    uv_sets: dict[int, NDArray[np.float64]],
) -> Primitive:
    """Give every triangle vertices and a normal of its own, as glTF asks where normals are absent."""
    corners = faces.reshape(-1)
    normals = np.repeat(_face_normals(positions, faces), 3, axis=0)
    alone = np.arange(len(corners)).reshape(-1, 3)
    return Primitive(
        positions=positions[corners],
        normals=_repaired(normals, positions[corners], alone),
        faces=alone,
        colors=None if colors is None else _rgba(colors[corners]),
        uv_sets={uv_set: uvs[corners] for uv_set, uvs in uv_sets.items()},
    )


def _face_normals(positions: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return normals [F, 3] as long as twice the triangles' areas."""
    a, b, c = (positions[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def _repaired(
    normals: NDArray[np.float64], positions: NDArray[np.float64], faces: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Scale normals [V, 3] to unit length; where that fails, average those of the triangles around."""
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    good = np.isfinite(lengths) & (lengths > 0)
    if not good.all():
        around = np.zeros_like(positions)
        for corner in range(3):
            np.add.at(around, faces[:, corner], _face_normals(positions, faces))
        normals = np.where(good, normals, around)
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        upright = np.array([0.0, 0.0, 1.0])  # a vertex of triangles without area: any unit vector will do
        normals = np.where(lengths > 0, normals, upright)
        lengths = np.where(lengths > 0, lengths, 1.0)
    return normals / lengths


def _rgba(colors: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Add an alpha of one to colours [V, 3]."""
    if colors is None or colors.shape[1] == 4:
        return colors
    return np.concatenate([colors, np.ones((len(colors), 1))], axis=1)
