"""GLB and glTF files as meshes, and folders of them as a source of objects.

A mesh is the file's default scene with every node transform baked in: +Y up, +Z front, metres. What cannot be
rendered right raises InputError, whose code is the reason for its quarantine.
"""

import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from render.scene import Material, Mesh
from storage.digests import digest_file, digest_json
from storage.errors import InputError
from storage.sources.glb_limits import USUAL_LIMITS, GlbLimits
from storage.sources.gltf import Gltf, open_gltf, reporting_invalid
from storage.sources.gltf_arrays import PrimitiveArrays
from storage.sources.gltf_geometry import Primitive, read_primitive
from storage.sources.gltf_materials import MaterialReader, UvUse
from storage.sources.gltf_scene import placed_meshes
from storage.sources.outliers import main_cluster

logger = logging.getLogger(__name__)

SUFFIXES = (".glb", ".gltf")
_SUPPORTED_EXTENSIONS = {
    "EXT_mesh_gpu_instancing",
    "EXT_texture_avif",
    "EXT_texture_webp",
    "KHR_draco_mesh_compression",
    "KHR_lights_punctual",
    "KHR_mesh_quantization",
    "KHR_texture_basisu",
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
    lost_texture: bool  # the material has a texture, the primitive no coordinates for it


def load_glb(path: Path, *, centred: bool = False, limits: GlbLimits = USUAL_LIMITS) -> Mesh:
    """Read the default scene of a file as one mesh, see `read_object`."""
    return read_object(path, centred=centred, limits=limits)[0]


def read_object(
    path: Path, *, centred: bool = False, limits: GlbLimits = USUAL_LIMITS
) -> tuple[Mesh, dict[str, str]]:
    """Read the default scene of a file as one mesh, in metres as the file states them, and its provenance.

    Parts that stand far away from the rest are left out, and textures without coordinates; the provenance
    then says so (`left_out`).
    centred: subtract the bounding box's centre before rounding to float32, so that an object far from the
    origin keeps its shape. Raises InputError.
    """
    gltf = open_gltf(path, limits)
    with reporting_invalid(path), np.errstate(over="ignore", invalid="ignore"):  # results are checked
        _check_extensions(gltf)
        parts, materials = _read_parts(gltf)
        if not parts:
            raise InputError(f"{path}: no triangles in its scene", code="no-triangles")
        kept = _without_strays(parts)
        provenance = _provenance(gltf)
        if left_out := _left_out(parts, kept):
            logger.warning("%s: left out: %s", path, left_out)
            provenance["left_out"] = left_out
        return _join(path, kept, materials, centred), provenance


def _provenance(gltf: Gltf) -> dict[str, str]:
    """Return what the file says of its own origin: source, licence, author (absent where it says nothing)."""
    asset = gltf.tree["asset"]
    extras = asset.get("extras")
    extras = extras if isinstance(extras, dict) else {}
    found = {
        "source": extras.get("source", gltf.path.name),
        "licence": extras.get("license", asset.get("copyright")),
        "author": extras.get("author"),
    }
    return {key: str(value) for key, value in found.items() if value}


class GlbFolder:
    """Every .glb and .gltf file below a folder, as a source of objects."""

    def __init__(self, path: Path, limits: GlbLimits = USUAL_LIMITS) -> None:
        self._limits = limits
        if not path.is_dir():
            raise InputError(f"{path}: no such folder", code="missing-folder")
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise InputError(f"{path}: no .glb or .gltf file in it", code="empty-folder")
        stems = Counter(file.stem for file in files)
        self._paths = {
            file.stem if stems[file.stem] == 1 else file.relative_to(path).as_posix(): file for file in files
        }

    def ids(self) -> list[str]:
        """Return the objects' names, sorted: file stems where they are unique, else relative paths."""
        return sorted(self._paths)

    def load(self, object_id: str) -> tuple[Mesh, dict[str, str]]:
        """Return a mesh centred on its bounding box, and its provenance."""
        return read_object(self._paths[object_id], centred=True, limits=self._limits)

    def digest(self, object_id: str) -> str:
        """Return the sha256 of the file's bytes, and of those it refers to."""
        return digest_asset(self._paths[object_id], self._limits)

    def files(self, object_id: str) -> list[Path]:
        """Return the file, and those it refers to, whether or not they are there."""
        path = self._paths[object_id]
        return [path, *_external_files(path, self._limits)]

    def is_here(self, object_id: str) -> bool:
        """Tell whether an object can be loaded without bringing it here: all of a folder can."""
        return object_id in self._paths

    def fetch(self, object_id: str) -> Path:
        """Return the file of an object."""
        return self._paths[object_id]


def digest_asset(path: Path, limits: GlbLimits = USUAL_LIMITS) -> str:
    """Return the sha256 of a file's bytes and those of the files it refers to; InputError where it is not."""
    try:
        digest = digest_file(path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", code="missing-file") from error
    beside = _external_files(path, limits)
    if not beside:
        return digest
    folder = path.parent.resolve()
    names = {str(file.relative_to(folder)): digest_file(file) if file.is_file() else "" for file in beside}
    return digest_json({"file": digest, "beside": names})


def _external_files(path: Path, limits: GlbLimits) -> list[Path]:
    """Return the files that a file refers to; none where it cannot be read, which its loading reports."""
    try:
        gltf = open_gltf(path, limits)
        with reporting_invalid(path):
            return gltf.external_files()
    except InputError:
        return []


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
    arrays: dict[tuple[int, int], PrimitiveArrays] = {}
    parts: list[_Part] = []
    triangles = 0
    for mesh, placement in placed_meshes(gltf):
        for number, tree in enumerate(gltf.tree["meshes"][mesh]["primitives"]):
            primitive = read_primitive(
                arrays.setdefault((mesh, number), PrimitiveArrays(gltf, tree)), placement
            )
            if primitive is None:
                continue
            triangles += len(primitive.faces)
            gltf.check_limit("triangles", triangles)
            gltf.check_limit("parts", len(parts) + 1)
            loaded = reader.read(tree.get("material"))
            base_uvs = _texture_uvs(primitive, loaded.base_color_uv)
            emissive_uvs = _texture_uvs(primitive, loaded.emissive_uv)
            key = tree.get("material"), base_uvs is not None, emissive_uvs is not None
            if key not in material_ids:
                material_ids[key] = len(materials)
                materials.append(_without_lost_textures(loaded.material, base_uvs, emissive_uvs))
            uvs = _any_uvs(primitive) if base_uvs is None else base_uvs
            lost = (loaded.base_color_uv is not None and base_uvs is None) or (
                loaded.emissive_uv is not None and emissive_uvs is None
            )
            parts.append(_Part(primitive, uvs, emissive_uvs, material_ids[key], lost))
    return parts, tuple(materials)


def _without_strays(parts: list[_Part]) -> list[_Part]:
    lows = np.stack([part.primitive.positions.min(axis=0) for part in parts])
    highs = np.stack([part.primitive.positions.max(axis=0) for part in parts])
    kept = main_cluster(lows, highs, np.array([len(part.primitive.faces) for part in parts]))
    return [part for part, keep in zip(parts, kept, strict=True) if keep]


def _left_out(parts: list[_Part], kept: list[_Part]) -> str:
    """Say what of the file the mesh lacks; empty where it lacks nothing."""
    strays, lost = len(parts) - len(kept), sum(part.lost_texture for part in kept)
    said = [f"{strays} of {len(parts)} parts, far from the others"] if strays else []
    said += [f"textures of {lost} of {len(kept)} parts, without coordinates"] if lost else []
    return "; ".join(said)


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
