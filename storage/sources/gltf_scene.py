"""The node tree of a glTF scene: which meshes stand where, in float64.

Transforms are `target_from_source`, 4×4, of column vectors; the scene is +Y up, in metres.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from storage.errors import InputError
from storage.sources.gltf import Gltf
from storage.sources.gltf_geometry import Placement

_INSTANCING = "EXT_mesh_gpu_instancing"
_AT_REST = {  # its attributes, and what stands for one that is absent
    "TRANSLATION": (0.0, 0.0, 0.0),
    "ROTATION": (0.0, 0.0, 0.0, 1.0),
    "SCALE": (1.0, 1.0, 1.0),
}


def placed_meshes(gltf: Gltf) -> Iterator[tuple[int, Placement]]:
    """Yield the mesh of every node of the default scene, with where the node puts it and its instances."""
    tree = gltf.tree
    nodes = tree.get("nodes", [])
    scene_from_node = _node_transforms(gltf)
    if "scenes" in tree:
        pending = list(reversed(tree["scenes"][tree.get("scene", 0)].get("nodes", [])))
    else:
        pending = list(reversed(range(len(nodes))))
    seen = set()
    while pending:
        index = pending.pop()
        if index in seen:
            continue
        seen.add(index)
        node = nodes[index]
        pending.extend(reversed(node.get("children", [])))
        if "mesh" in node:
            weights = node.get("weights", tree["meshes"][node["mesh"]].get("weights", ()))
            joints = _joint_transforms(gltf, node, scene_from_node)
            for node_from_instance in _instances(gltf, node):
                gltf.check_time()
                scene_from_mesh = scene_from_node[index] @ node_from_instance
                yield node["mesh"], Placement(scene_from_mesh, joints, tuple(weights))


def _node_transforms(gltf: Gltf) -> dict[int, NDArray[np.float64]]:
    """Return scene_from_node [4, 4] of every node; the nodes must form trees."""
    nodes = gltf.tree.get("nodes", [])
    children = [child for node in nodes for child in node.get("children", [])]
    if len(set(children)) != len(children):
        raise InputError(f"{gltf.path}: a node has two parents", code="node-tree")
    pending = [(root, np.eye(4)) for root in set(range(len(nodes))) - set(children)]
    scene_from_node = {}
    while pending:
        index, scene_from_parent = pending.pop()
        scene_from_node[index] = scene_from_parent @ _parent_from_node(nodes[index])
        pending.extend((child, scene_from_node[index]) for child in nodes[index].get("children", []))
    if len(scene_from_node) != len(nodes):
        raise InputError(f"{gltf.path}: a node is its own ancestor", code="node-tree")
    return scene_from_node


def _parent_from_node(node: dict[str, Any]) -> NDArray[np.float64]:
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T  # stored by columns
    translation = np.array(node.get("translation", (0.0, 0.0, 0.0)), np.float64)
    rotation = np.array(node.get("rotation", (0.0, 0.0, 0.0, 1.0)), np.float64)
    return _compose(translation, rotation, np.array(node.get("scale", (1.0, 1.0, 1.0)), np.float64))


def _instances(gltf: Gltf, node: dict[str, Any]) -> NDArray[np.float64]:
    """Return node_from_instance [N, 4, 4] of a node's mesh: one unless EXT_mesh_gpu_instancing says more."""
    names = node.get("extensions", {}).get(_INSTANCING, {}).get("attributes", {})
    given = {name: gltf.accessor(names[name]) for name in _AT_REST if name in names}
    for values in given.values():
        gltf.check_limit("parts", len(values))
    counts = {len(values) for values in given.values()} or {1}
    if len(counts) > 1:
        raise InputError(
            f"{gltf.path}: {_INSTANCING}: found {sorted(counts)} values, wanted as many of each",
            code="instances",
        )
    count = counts.pop()
    return _compose(
        *(given.get(name, np.tile(value, (count, 1))).astype(np.float64) for name, value in _AT_REST.items())
    )


def _compose(
    translation: NDArray[np.float64], rotation: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return transforms [..., 4, 4] of translations [..., 3], quaternions [..., 4] xyzw, scales [..., 3]."""
    transform = np.zeros((*translation.shape[:-1], 4, 4))
    transform[..., :3, :3] = Rotation.from_quat(rotation).as_matrix() * scale[..., None, :]
    transform[..., :3, 3] = translation
    transform[..., 3, 3] = 1
    return transform


def _joint_transforms(
    gltf: Gltf, node: dict[str, Any], scene_from_node: dict[int, NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """Return scene_from_mesh [J, 4, 4] of each joint of a node's skin; None where it has no skin."""
    if "skin" not in node:
        return None
    skin = gltf.tree["skins"][node["skin"]]
    scene_from_joint = np.stack([scene_from_node[joint] for joint in skin["joints"]])
    if "inverseBindMatrices" not in skin:
        return scene_from_joint
    joint_from_mesh = gltf.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
    return scene_from_joint @ joint_from_mesh.astype(np.float64)
