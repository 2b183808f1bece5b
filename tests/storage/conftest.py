"""Small scenes that the storage tests share."""

import io
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from render.scene import Camera, Clip, HandMotion, Material, Mesh, ObjectMotion, Texture

NUM_FRAMES = 5
DTYPES = {
    np.dtype(np.float32): 5126,
    np.dtype(np.uint8): 5121,
    np.dtype(np.uint16): 5123,
    np.dtype(np.int8): 5120,
}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


def box_mesh() -> Mesh:
    """A textured box, 2 × 4 × 6 cm, with flat normals and two materials."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-2, 2) for z in (-3, 3)], np.float32) / 100
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    faces = np.concatenate([[4 * k, 4 * k + 1, 4 * k + 2, 4 * k, 4 * k + 2, 4 * k + 3] for k in range(6)])
    outward = np.repeat(np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]]), 4, 0)
    rng = np.random.default_rng(0)
    checks = rng.integers(0, 256, (8, 16, 4), dtype=np.uint8)
    textured = Material(
        name="printed",
        base_color_factor=(0.123456789, 0.5, 1.0, 0.75),
        base_color_texture=Texture(checks, wrap=("clamp", "mirror"), nearest=True),
        alpha_mode="mask",
        alpha_cutoff=0.25,
        double_sided=False,
    )
    glowing = Material(
        emissive_factor=(0.1, 0.2, 0.3),
        emissive_texture=Texture(checks[::-1].copy()),
        unlit=True,
        alpha_mode="blend",
    )
    return Mesh(
        vertices=corners[quads.reshape(-1)],
        faces=faces.reshape(-1, 3).astype(np.int32),
        normals=outward.astype(np.float32),
        uvs=np.tile(np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32), (6, 1)),
        colors=rng.random((24, 4)).astype(np.float32),
        material_ids=np.repeat(np.array([0, 1], np.int32), 6),
        materials=(textured, glowing),
        emissive_uvs=rng.random((24, 2)).astype(np.float32),
    )


def tiny_clip() -> Clip:
    """Two hands and a box for five frames before two cameras; one pose of each is invalid."""
    rng = np.random.default_rng(1)
    valid = np.array([True, True, False, True, True])

    def hand() -> HandMotion:
        pose = rng.normal(size=(NUM_FRAMES, 48)).astype(np.float32) * valid[:, None]
        translation = rng.normal(size=(NUM_FRAMES, 3)).astype(np.float32) * valid[:, None]
        return HandMotion(pose, rng.normal(size=10).astype(np.float32), translation, valid)

    moving = np.tile(np.eye(4, dtype=np.float32), (NUM_FRAMES, 1, 1))
    moving[:, 0, 3] = np.arange(NUM_FRAMES) / 10 * valid
    box = ObjectMotion("box", box_mesh(), moving, valid, digest="", provenance={"licence": "CC0"})
    eye = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1]])
    front = Camera(48, 32, np.array([[40.0, 0, 23.5], [0, 40.0, 15.5], [0, 0, 1]]), eye)
    side = replace(front, width=32, distortion=np.array([0.1, 0.01, 0.0, 0.0]))
    plate = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    return Clip(
        id="take 1",
        fps=29.97,
        num_frames=NUM_FRAMES,
        cameras={"front": front, "side": side},
        hands={"left": hand(), "right": hand()},
        objects=(box,),
        backgrounds={"front": plate},
        participant="p01",
        split="test",
    )


class Builder:
    """A glTF file put together by hand."""

    TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]], np.float32)

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [], "bufferViews": []}
        self.binary = b""

    def view(self, data: bytes) -> int:
        self.tree["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)}
        )
        self.binary += data + bytes(-len(data) % 4)
        return len(self.tree["bufferViews"]) - 1

    def accessor(self, values: NDArray[Any], **more: Any) -> int:
        values = values.reshape(len(values), -1)
        accessor = {"bufferView": self.view(values.tobytes()), "componentType": DTYPES[values.dtype]}
        accessor |= {"count": len(values), "type": TYPES[values.shape[1]], **more}
        self.tree["accessors"].append(accessor)
        return len(self.tree["accessors"]) - 1

    def picture(self, pixels: NDArray[np.uint8], kind: str = "PNG") -> int:
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, kind, **({"lossless": True} if kind == "WEBP" else {}))
        self.tree.setdefault("images", []).append({"bufferView": self.view(data.getvalue())})
        return len(self.tree["images"]) - 1

    def save(self, path: Path, **tree: Any) -> Path:
        tree = {**self.tree, **tree, "buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(tree).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(self.binary), b"BIN\0") + self.binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path

    def one_primitive(self, **primitive: Any) -> dict[str, Any]:
        """Return a scene of one node with one primitive."""
        return {
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [{"primitives": [primitive]}],
        }

    def triangle(self, **more: Any) -> dict[str, Any]:
        """Return a scene of one triangle."""
        return self.one_primitive(attributes={"POSITION": self.accessor(self.TRIANGLE)}, **more)


@pytest.fixture
def mesh() -> Mesh:
    return box_mesh()


@pytest.fixture
def clip() -> Clip:
    return tiny_clip()


@pytest.fixture
def builder() -> Builder:
    return Builder()
