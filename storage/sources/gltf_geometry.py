"""The triangles of glTF primitives, as arrays in the frame of their scene.

Letters: V vertices, F triangles, J joints of a skin. Morph targets stand at the file's own weights and skins
in the pose of the file's own nodes: what a viewer shows before any animation plays. All in float64, because
node transforms may be far larger or smaller than the object.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from trimesh.util import triangle_strips_to_faces

from storage.errors import InputError
from storage.sources.gltf import Gltf

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_DRACO = "KHR_draco_mesh_compression"


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


def read_primitive(gltf: Gltf, tree: dict[str, Any], placement: Placement) -> Primitive | None:
    """Return a primitive's triangles in the scene; None where it has none (points, lines)."""
    if tree.get("mode", _TRIANGLES) not in (_TRIANGLES, _STRIP, _FAN):
        return None
    attributes = tree["attributes"]
    if _DRACO in tree.get("extensions", {}) and "bufferView" not in _accessor(gltf, attributes["POSITION"]):
        raise InputError(f"{gltf.path}: needs {_DRACO}", code="unsupported-extension")
    positions = _morphed(gltf, tree, "POSITION", placement.weights)
    faces = _read_faces(gltf, tree, len(positions))
    if not len(faces):
        return None
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    scene_from_mesh = _vertex_transforms(gltf, attributes, placement, used)  # [V or 1, 3, 4]
    if np.linalg.det(scene_from_mesh[0, :, :3]) < 0:  # a mirror turns triangles inside out
        faces = faces[:, ::-1]
    positions = _apply(scene_from_mesh, positions[used])
    colors = gltf.accessor(attributes["COLOR_0"])[used] if "COLOR_0" in attributes else None
    uv_sets = _read_uv_sets(gltf, attributes, used)
    _check_finite(gltf, [positions, *uv_sets.values(), *([] if colors is None else [colors])])
    if "NORMAL" not in attributes:
        return _flat(positions, faces, colors, uv_sets)
    normals = _morphed(gltf, tree, "NORMAL", placement.weights)[used]
    normals = np.einsum("vij,vj->vi", _cofactors(scene_from_mesh), normals)
    return Primitive(positions, _repaired(normals, positions, faces), faces, _rgba(colors), uv_sets)


def _accessor(gltf: Gltf, index: int) -> dict[str, Any]:
    return gltf.tree["accessors"][index]


def _read_uv_sets(
    gltf: Gltf, attributes: dict[str, int], used: NDArray[np.int64]
) -> dict[int, NDArray[np.float64]]:
    """Return the texture coordinates [V, 2] of every set."""
    names = [name for name in attributes if name.startswith("TEXCOORD_")]
    return {int(name.removeprefix("TEXCOORD_")): gltf.accessor(attributes[name])[used] for name in names}


def _check_finite(gltf: Gltf, arrays: list[NDArray[np.float64]]) -> None:
    if not all(np.isfinite(values).all() for values in arrays):
        raise InputError(
            f"{gltf.path}: a vertex's position, colour or texture coordinate is not finite", code="non-finite"
        )


def _morphed(gltf: Gltf, tree: dict[str, Any], name: str, weights: tuple[float, ...]) -> NDArray[np.float64]:
    """Return an attribute [V, 3] with the weighted displacements of the morph targets added."""
    values = gltf.accessor(tree["attributes"][name]).astype(np.float64)
    for weight, target in zip(weights, tree.get("targets", []), strict=False):
        if weight and name in target:
            values = values + weight * gltf.accessor(target[name])
    return values


def _read_faces(gltf: Gltf, tree: dict[str, Any], num_vertices: int) -> NDArray[np.int64]:
    """Return vertex indices [F, 3] of triangles, whatever mode they are stored in."""
    if "indices" in tree:
        indices = gltf.accessor(tree["indices"])[:, 0].astype(np.int64)
    else:
        indices = np.arange(num_vertices)
    if len(indices) and indices.max() >= num_vertices:
        found, wanted = f"index {indices.max()}", f"below {num_vertices}"
        raise InputError.mismatch(gltf.path, "indices", found=found, wanted=wanted, code="index-range")
    mode = tree.get("mode", _TRIANGLES)
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == _STRIP:
        return triangle_strips_to_faces([indices])
    if mode == _FAN:
        return np.stack([np.full(len(indices) - 2, indices[0]), indices[1:-1], indices[2:]], axis=1)
    return indices[: len(indices) // 3 * 3].reshape(-1, 3)


def _vertex_transforms(
    gltf: Gltf, attributes: dict[str, int], placement: Placement, used: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return scene_from_mesh [V, 3, 4] of each used vertex of a skin, else [1, 3, 4] for all of them."""
    if placement.joints is None or "JOINTS_0" not in attributes:
        return placement.scene_from_mesh[None, :3]
    transforms = np.zeros((len(used), 3, 4))
    total = np.zeros((len(used), 1, 1))
    influences = [name.removeprefix("JOINTS_") for name in attributes if name.startswith("JOINTS_")]
    for influence in influences:
        joints = gltf.accessor(attributes[f"JOINTS_{influence}"])[used].astype(np.int64)
        weights = gltf.accessor(attributes[f"WEIGHTS_{influence}"])[used]
        for joint, weight in zip(joints.T, weights.T, strict=True):
            transforms += weight[:, None, None] * placement.joints[joint, :3]
            total += weight[:, None, None]
    return transforms / np.where(total > 0, total, 1.0)


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
