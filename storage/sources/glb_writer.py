"""Meshes as .glb files that `load_glb` reads back with every value exact.

trimesh's exporter is not used for this: it rounds colours to 8 bits and has no texture samplers. The same
mesh always gives the same bytes.
"""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from render.scene import Material, Mesh, Texture

_FLOAT, _UINT32 = 5126, 5125
_WRAPS = {"repeat": 10497, "clamp": 33071, "mirror": 33648}
_NEAREST, _LINEAR = 9728, 9729
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


def write_glb(mesh: Mesh, path: Path, *, copyright: str = "") -> None:
    """Write a mesh as one node with one primitive a material; `copyright` states its licence."""
    path.write_bytes(encode_glb(mesh, copyright=copyright))


def encode_glb(mesh: Mesh, *, copyright: str = "") -> bytes:
    """Return the bytes of a mesh's .glb file."""
    writer = _Writer()
    attributes = {
        "POSITION": writer.add_array(mesh.vertices, bounds=True),
        "NORMAL": writer.add_array(mesh.normals),
        "TEXCOORD_0": writer.add_array(mesh.uvs),
    }
    if mesh.emissive_uvs is not None:
        attributes["TEXCOORD_1"] = writer.add_array(mesh.emissive_uvs)
    if (mesh.colors != 1).any():
        attributes["COLOR_0"] = writer.add_array(mesh.colors)
    primitives = [
        {
            "attributes": attributes,
            "indices": writer.add_array(mesh.faces[mesh.material_ids == index].reshape(-1, 1)),
            "material": index,
        }
        for index in np.unique(mesh.material_ids).tolist()
    ]
    emissive_set = 0 if mesh.emissive_uvs is None else 1
    asset = {"version": "2.0", **({"copyright": copyright} if copyright else {})}
    tree = {
        "asset": asset,
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": primitives}],
        "materials": [writer.describe(material, emissive_set) for material in mesh.materials],
    }
    return writer.pack(tree)


class _Writer:
    """Collects the binary chunk and the parts of the tree that point into it."""

    def __init__(self) -> None:
        self.binary = bytearray()
        self.lists: dict[str, list[dict[str, Any]]] = {}

    def add(self, name: str, item: dict[str, Any]) -> int:
        """Append an item to one of the tree's lists and return its index."""
        items = self.lists.setdefault(name, [])
        items.append(item)
        return len(items) - 1

    def add_bytes(self, data: bytes) -> int:
        """Append a buffer view, on a boundary of four bytes."""
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        self.binary += data + bytes(-len(data) % 4)
        return self.add("bufferViews", view)

    def add_array(self, values: NDArray[Any], *, bounds: bool = False) -> int:
        """Append an accessor to [count, columns] floats or whole numbers."""
        is_float = np.issubdtype(values.dtype, np.floating)
        values = values.astype("<f4" if is_float else "<u4")
        accessor: dict[str, Any] = {
            "bufferView": self.add_bytes(values.tobytes()),
            "componentType": _FLOAT if is_float else _UINT32,
            "count": len(values),
            "type": _TYPES[values.shape[1]],
        }
        if bounds:
            accessor |= {"min": values.min(axis=0).tolist(), "max": values.max(axis=0).tolist()}
        return self.add("accessors", accessor)

    def add_texture(self, texture: Texture) -> int:
        """Append a texture with its picture (PNG) and sampler."""
        picture = io.BytesIO()
        Image.fromarray(texture.pixels, "RGBA").save(picture, "PNG")
        image = {"bufferView": self.add_bytes(picture.getvalue()), "mimeType": "image/png"}
        sampler = {
            "magFilter": _NEAREST if texture.nearest else _LINEAR,
            "wrapS": _WRAPS[texture.wrap[0]],
            "wrapT": _WRAPS[texture.wrap[1]],
        }
        source = self.add("images", image)
        return self.add("textures", {"source": source, "sampler": self.add("samplers", sampler)})

    def describe(self, material: Material, emissive_set: int) -> dict[str, Any]:
        """Return a material's part of the tree."""
        color: dict[str, Any] = {"baseColorFactor": list(material.base_color_factor)}
        if material.base_color_texture is not None:
            color["baseColorTexture"] = {"index": self.add_texture(material.base_color_texture)}
        tree: dict[str, Any] = {
            "name": material.name,
            "pbrMetallicRoughness": color,
            "emissiveFactor": list(material.emissive_factor),
            "alphaMode": material.alpha_mode.upper(),
            "doubleSided": material.double_sided,
        }
        if material.alpha_mode == "mask":
            tree["alphaCutoff"] = material.alpha_cutoff
        if material.emissive_texture is not None:
            index = self.add_texture(material.emissive_texture)
            tree["emissiveTexture"] = {"index": index, "texCoord": emissive_set}
        if material.unlit:
            tree["extensions"] = {"KHR_materials_unlit": {}}
        return tree

    def pack(self, tree: dict[str, Any]) -> bytes:
        """Join tree and binary chunk into a .glb file."""
        if any("extensions" in material for material in tree["materials"]):
            tree["extensionsUsed"] = ["KHR_materials_unlit"]
        tree = {**tree, **self.lists, "buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(tree, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self.binary)
        return b"".join(
            [
                struct.pack("<4sII", b"glTF", 2, length),
                struct.pack("<I4s", len(text), b"JSON"),
                text,
                struct.pack("<I4s", len(self.binary), b"BIN\0"),
                bytes(self.binary),
            ]
        )
