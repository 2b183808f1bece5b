"""GLB and glTF files as meshes, and folders of them as a source of objects.

A mesh is the file's default scene with every node transform baked in: +Y up, +Z front, metres. What cannot be
rendered right raises InputError, whose code is the reason for its quarantine.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from render.scene import Material, Mesh
from storage.digests import digest_file, digest_json
from storage.errors import InputError
from storage.sources.gltf import Gltf, open_gltf, reporting_invalid
from storage.sources.gltf_geometry import Placement, Primitive, read_primitive
from storage.sources.gltf_materials import MaterialReader, UvUse

SUFFIXES = (".glb", ".gltf")
_SUPPORTED_EXTENSIONS = {
    "EXT_texture_avif",
    "EXT_texture_webp",
    "KHR_lights_punctual",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
    "KHR_xmp_json_ld",
}
_SUPPORTED_PREFIX = "KHR_materials_"  # they change how a surface reflects, not what it is
_FINEST_STEP = 1e-4  # of the extents: the coarsest that float32 coordinates may resolve


@dataclass(frozen=True)
class _Part:
    """A primitive in the scene with the coordinates of its textures."""

    primitive: Primitive
    uvs: NDArray[np.float64]  # [V, 2]
    emissive_uvs: NDArray[np.float64] | None  # [V, 2]; None: no emissive texture
    material_id: int


def load_glb(path: Path, *, centred: bool = False) -> Mesh:
    """Read the default scene of a file as one mesh, in metres as the file states them.

    centred: subtract the bounding box's centre before rounding to float32, so that an object far from the
    origin keeps its shape. Raises InputError.
    """
    gltf = open_gltf(path)
    with reporting_invalid(path), np.errstate(over="ignore", invalid="ignore"):  # results are checked
        _check_extensions(gltf)
        parts, materials = _read_parts(gltf)
        if not parts:
            raise InputError(f"{path}: no triangles in its scene", code="no-triangles")
        return _join(path, parts, materials, centred)


def read_provenance(path: Path) -> dict[str, str]:
    """Return what the file says of its own origin: source, licence, author (absent where it says nothing)."""
    asset = open_gltf(path).tree["asset"]
    extras = asset.get("extras")
    extras = extras if isinstance(extras, dict) else {}
    found = {
        "source": extras.get("source", path.name),
        "licence": extras.get("license", asset.get("copyright")),
        "author": extras.get("author"),
    }
    return {key: str(value) for key, value in found.items() if value}


class GlbFolder:
    """Every .glb and .gltf file below a folder, as a source of objects."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise InputError(f"{path}: no such folder", code="missing-folder")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise InputError(f"{path}: no .glb or .gltf file in it", code="empty-folder")
        stems = [file.stem for file in files]
        self._paths = {
            file.stem if stems.count(file.stem) == 1 else file.relative_to(path).as_posix(): file
            for file in files
        }

    def ids(self) -> list[str]:
        """Return the objects' names, sorted: file stems where they are unique, else relative paths."""
        return sorted(self._paths)

    def load(self, object_id: str) -> tuple[Mesh, dict[str, str]]:
        """Return a mesh centred on its bounding box, and its provenance."""
        path = self._paths[object_id]
        return load_glb(path, centred=True), read_provenance(path)

    def digest(self, object_id: str) -> str:
        """Return the sha256 of the file's bytes, and of those it refers to."""
        return digest_asset(self._paths[object_id])


def digest_asset(path: Path) -> str:
    """Return the sha256 of a file's bytes and of those of the files it refers to."""
    digest = digest_file(path)
    try:
        gltf = open_gltf(path)
        with reporting_invalid(path):
            beside = gltf.external_files()
    except InputError:  # whoever loads it hears why; its bytes name it all the same
        return digest
    if not beside:
        return digest
    names = {file.name: digest_file(file) if file.is_file() else "" for file in beside}
    return digest_json({"file": digest, "beside": names})


def _check_extensions(gltf: Gltf) -> None:
    required = set(gltf.tree.get("extensionsRequired", ())) - _SUPPORTED_EXTENSIONS
    unknown = sorted(name for name in required if not name.startswith(_SUPPORTED_PREFIX))
    if unknown:
        raise InputError(f"{gltf.path}: needs {', '.join(unknown)}", code="unsupported-extension")


def _read_parts(gltf: Gltf) -> tuple[list[_Part], tuple[Material, ...]]:
    """Return every primitive of the scene that has triangles, and the materials they use."""
    reader = MaterialReader(gltf)
    material_ids: dict[tuple[int | None, bool, bool], int] = {}
    materials: list[Material] = []
    parts = []
    for mesh, placement in _placed_meshes(gltf):
        for tree in gltf.tree["meshes"][mesh]["primitives"]:
            primitive = read_primitive(gltf, tree, placement)
            if primitive is None:
                continue
            loaded = reader.read(tree.get("material"))
            base_uvs = _texture_uvs(primitive, loaded.base_color_uv)
            emissive_uvs = _texture_uvs(primitive, loaded.emissive_uv)
            key = tree.get("material"), base_uvs is not None, emissive_uvs is not None
            if key not in material_ids:
                material_ids[key] = len(materials)
                materials.append(_without_lost_textures(loaded.material, base_uvs, emissive_uvs))
            uvs = _any_uvs(primitive) if base_uvs is None else base_uvs
            parts.append(_Part(primitive, uvs, emissive_uvs, material_ids[key]))
    return parts, tuple(materials)


def _texture_uvs(primitive: Primitive, use: UvUse | None) -> NDArray[np.float64] | None:
    """Return a texture's coordinates [V, 2]; None where there is no texture or the mesh lacks the set."""
    if use is None or use.uv_set not in primitive.uv_sets:
        return None
    return primitive.uv_sets[use.uv_set] @ use.uv_from_set[:2, :2].T + use.uv_from_set[:2, 2]


def _any_uvs(primitive: Primitive) -> NDArray[np.float64]:
    """Return coordinates [V, 2] for a primitive that no texture needs them for."""
    return primitive.uv_sets.get(0, np.zeros((len(primitive.positions), 2)))


def _without_lost_textures(
    material: Material, base_uvs: NDArray[np.float64] | None, emissive_uvs: NDArray[np.float64] | None
) -> Material:
    """Drop the textures that a primitive has no coordinates for: their factors remain."""
    if base_uvs is None:
        material = replace(material, base_color_texture=None)
    if emissive_uvs is None:
        material = replace(material, emissive_texture=None)
    return material


def _placed_meshes(gltf: Gltf) -> Iterator[tuple[int, Placement]]:
    """Yield the mesh of every node of the default scene, with where the node puts it."""
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
            yield node["mesh"], Placement(scene_from_node[index], joints, tuple(weights))


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
    transform = np.eye(4)
    rotation = Rotation.from_quat(node.get("rotation", (0.0, 0.0, 0.0, 1.0))).as_matrix()
    transform[:3, :3] = rotation * np.array(node.get("scale", (1.0, 1.0, 1.0)), np.float64)
    transform[:3, 3] = node.get("translation", (0.0, 0.0, 0.0))
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


def _join(path: Path, parts: list[_Part], materials: tuple[Material, ...], centred: bool) -> Mesh:
    """Concatenate parts into one mesh, in float32."""
    positions = np.concatenate([part.primitive.positions for part in parts])
    low, high = positions.min(axis=0), positions.max(axis=0)
    extent, farthest = (high - low).max(), np.abs(positions).max()
    if farthest > np.finfo(np.float32).max:
        raise InputError(f"{path}: reaches {farthest:g} m", code="non-finite")
    if extent == 0:
        raise InputError(f"{path}: all its vertices are in one place", code="no-extent")
    if centred:
        positions -= (low + high) / 2
    elif farthest * np.finfo(np.float32).eps > _FINEST_STEP * extent:
        raise InputError(
            f"{path}: {extent:g} m of object at {farthest:g} m: float32 cannot hold its shape",
            code="far-from-origin",
        )
    starts = np.cumsum([0, *(len(part.primitive.positions) for part in parts)])
    faces = [part.primitive.faces + start for part, start in zip(parts, starts, strict=False)]
    ids = [np.full(len(part.primitive.faces), part.material_id, np.int32) for part in parts]
    return Mesh(
        vertices=positions.astype(np.float32),
        faces=np.concatenate(faces).astype(np.int32),
        normals=np.concatenate([part.primitive.normals for part in parts]).astype(np.float32),
        uvs=np.concatenate([part.uvs for part in parts]).astype(np.float32),
        colors=np.concatenate([_colors(part.primitive) for part in parts]).astype(np.float32),
        material_ids=np.concatenate(ids),
        materials=materials,
        emissive_uvs=_join_emissive_uvs(parts),
    )


def _colors(primitive: Primitive) -> NDArray[np.float64]:
    return np.ones((len(primitive.positions), 4)) if primitive.colors is None else primitive.colors


def _join_emissive_uvs(parts: list[_Part]) -> NDArray[np.float32] | None:
    """Return the emissive textures' coordinates [V, 2] if they differ from the base colour's."""
    uvs = [part.uvs if part.emissive_uvs is None else part.emissive_uvs for part in parts]
    if all(np.array_equal(part.uvs, own) for part, own in zip(parts, uvs, strict=True)):
        return None
    return np.concatenate(uvs).astype(np.float32)
