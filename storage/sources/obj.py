"""Wavefront OBJ files as meshes, with the materials and textures beside them.

The mesh's frame and unit are the file's.  OBJ's texture rows run upwards, glTF's and `Mesh`'s downwards.
"""

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from render.scene import Material, Mesh, Texture
from storage.digests import digest_file, digest_json
from storage.errors import InputError
from storage.pictures import FORMATS


def load_obj(path: Path) -> Mesh:
    """Read a file as one mesh; textures outside its folder are not followed.

    Raises InputError: "missing-file", "obj", "no-triangles" or "picture".
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file", code="missing-file")
    try:
        scene = trimesh.load_scene(path, process=False)
        parts = [part for part in scene.geometry.values() if isinstance(part, trimesh.Trimesh)]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not an OBJ file: {error}", code="obj") from error
    parts = [part for part in parts if len(part.faces)]
    if not parts:
        raise InputError(f"{path}: no triangles in it", code="no-triangles")
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    vertices = np.concatenate([np.asarray(part.vertices) for part in parts]).astype(np.float32)
    if not np.isfinite(vertices).all():
        raise InputError(f"{path}: vertices that are not finite", code="obj")
    pairs = zip(parts, starts, strict=False)
    faces = np.concatenate([np.asarray(part.faces) + start for part, start in pairs]).astype(np.int32)
    return Mesh(
        vertices=vertices,
        faces=faces,
        normals=smooth_normals(vertices, faces),
        uvs=np.concatenate([_uvs(part) for part in parts]).astype(np.float32),
        colors=np.ones((len(vertices), 4), np.float32),
        material_ids=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.faces) for part in parts]),
        materials=tuple(_material(part, path) for part in parts),
    )


def digest_obj(path: Path) -> str:
    """Return the sha256 of the file's bytes and of those of the materials and pictures in its folder."""
    if not path.is_file():
        raise InputError(f"{path}: no such file", code="missing-file")
    beside = {".mtl", ".png", ".jpg", ".jpeg"}
    files = [file for file in sorted(path.parent.iterdir()) if file.suffix.lower() in beside]
    return digest_json({file.name: digest_file(file) for file in (path, *files)})


def smooth_normals(vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return unit normals [V, 3], averaged by area over all vertices in one place (seams do not show)."""
    _, place = np.unique(vertices, axis=0, return_inverse=True)
    corners = vertices[faces].astype(np.float64)
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros((place.max() + 1, 3))
    for corner in range(3):
        np.add.at(total, place[faces[:, corner]], face_normals)
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    normals = np.where(lengths > 0, total / np.maximum(lengths, 1e-300), (0.0, 1.0, 0.0))
    return normals[place].astype(np.float32)


def _uvs(part: trimesh.Trimesh) -> NDArray[np.float64]:
    uvs = getattr(part.visual, "uv", None)
    if uvs is None or len(uvs) != len(part.vertices):
        return np.zeros((len(part.vertices), 2))
    return np.asarray(uvs) * (1, -1) + (0, 1)


def _material(part: trimesh.Trimesh, path: Path) -> Material:
    """Return the diffuse texture, or the diffuse colour where there is none."""
    material: Any = getattr(part.visual, "material", None)
    picture = getattr(material, "image", None)
    if isinstance(picture, Image.Image):
        if picture.format not in FORMATS:
            raise InputError(f"{path}: a texture is {picture.format}, wanted {FORMATS}", code="picture")
        try:
            return Material(base_color_texture=Texture(np.asarray(picture.convert("RGBA"))))
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{path}: a texture cannot be decoded: {error}", code="picture") from error
    diffuse = getattr(material, "diffuse", None)
    if diffuse is None:
        return Material(base_color_factor=(0.6, 0.6, 0.6, 1.0))
    red, green, blue = ((np.asarray(diffuse[:3]) / 255.0) ** 2.2).tolist()
    return Material(base_color_factor=(red, green, blue, 1.0))
