"""GLB files become meshes: transforms, materials and texture coordinates as glTF defines them."""

import contextlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from render.scene import Mesh
from storage.errors import InputError
from storage.sources.glb import GlbFolder, digest_asset, load_glb, read_provenance
from storage.sources.glb_writer import encode_glb, write_glb

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]], np.float32)
DTYPES = {
    np.dtype(np.float32): 5126,
    np.dtype(np.uint8): 5121,
    np.dtype(np.uint16): 5123,
    np.dtype(np.int8): 5120,
}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Builder:
    """A glTF file put together by hand."""

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


def one_primitive(**primitive: Any) -> dict[str, Any]:
    """A scene of one node with one primitive."""
    return {
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
    }


def triangle(builder: Builder, **more: Any) -> dict[str, Any]:
    return one_primitive(attributes={"POSITION": builder.accessor(TRIANGLE)}, **more)


def code_of(path: Path) -> str:
    with pytest.raises(InputError, match=path.name) as caught:
        load_glb(path)
    return caught.value.code


def test_written_mesh_reads_back_exactly(tmp_path: Path, mesh: Mesh) -> None:
    write_glb(mesh, tmp_path / "box.glb", copyright="CC0")
    read = load_glb(tmp_path / "box.glb")
    for name in ("vertices", "faces", "normals", "uvs", "colors", "material_ids"):
        assert np.array_equal(getattr(read, name), getattr(mesh, name)), name
    assert read.emissive_uvs is not None
    assert mesh.emissive_uvs is not None
    glowing = np.unique(mesh.faces[mesh.material_ids == 1])
    assert np.array_equal(read.emissive_uvs[glowing], mesh.emissive_uvs[glowing])
    for got, wanted in zip(read.materials, mesh.materials, strict=True):
        for texture in ("base_color_texture", "emissive_texture"):
            a, b = getattr(got, texture), getattr(wanted, texture)
            assert (a is None) == (b is None)
            if b is not None:
                assert np.array_equal(a.pixels, b.pixels)
                assert (a.wrap, a.nearest) == (b.wrap, b.nearest)
        names = ("name", "base_color_factor", "emissive_factor", "alpha_mode", "alpha_cutoff", "double_sided")
        for name in (*names, "unlit"):
            assert getattr(got, name) == getattr(wanted, name), name
    assert read_provenance(tmp_path / "box.glb")["licence"] == "CC0"


def test_same_mesh_gives_the_same_bytes(mesh: Mesh) -> None:
    assert encode_glb(mesh) == encode_glb(mesh)


def test_no_normals_means_flat_ones(tmp_path: Path) -> None:
    builder = Builder()
    strip = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1]], np.float32)
    tree = one_primitive(attributes={"POSITION": builder.accessor(strip)}, mode=5)
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert read.faces.shape == (2, 3)
    edges = read.vertices[read.faces[:, 1:]] - read.vertices[read.faces[:, :1]]
    geometric = np.cross(edges[:, 0], edges[:, 1])
    geometric /= np.linalg.norm(geometric, axis=1, keepdims=True)
    assert np.allclose(read.normals[read.faces], geometric[:, None], atol=1e-6)
    assert geometric[:, 2].min() > 0  # a strip's second triangle is turned so that both face the same way


def test_fan_and_unindexed_triangles(tmp_path: Path) -> None:
    builder = Builder()
    ring = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    tree = one_primitive(attributes={"POSITION": builder.accessor(ring)}, mode=6)
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.array_equal(read.vertices[read.faces], ring[[[0, 1, 2], [0, 2, 3]]])


def test_mirrored_node_keeps_its_outside_outside(tmp_path: Path, mesh: Mesh) -> None:
    data = encode_glb(mesh)
    size = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + size])
    tree["nodes"] = [
        {"children": [1], "scale": [-2.0, 1.0, 1.0]},
        {"mesh": 0, "translation": [1.0, 2.0, 3.0]},
    ]
    builder = Builder()
    builder.tree, builder.binary = tree, data[28 + size :]
    read = load_glb(builder.save(tmp_path / "a.glb"))
    assert np.allclose(read.vertices, (mesh.vertices + np.array([1, 2, 3])) * (-2, 1, 1), atol=1e-6)
    a, b, c = (read.vertices[read.faces[:, k]] for k in range(3))
    geometric = np.cross(b - a, c - a)
    assert np.einsum("fi,fi->f", geometric, read.normals[read.faces[:, 0]]).min() > 0


def test_normals_turn_with_uneven_scale(tmp_path: Path) -> None:
    builder = Builder()
    slope = np.array([[0, 0, 0], [1, 0, -1], [0, 1, 0]], np.float32)
    normal = np.tile(np.array([1, 0, 1], np.float32) / np.sqrt(2).astype(np.float32), (3, 1))
    attributes = {"POSITION": builder.accessor(slope), "NORMAL": builder.accessor(normal)}
    tree = one_primitive(attributes=attributes)
    tree["nodes"] = [{"mesh": 0, "scale": [3, 1, 1]}]
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.allclose(read.normals, np.array([1, 0, 3]) / np.sqrt(10), atol=1e-6)


def test_bad_normals_are_computed_anew(tmp_path: Path) -> None:
    builder = Builder()
    normals = np.array([[0, 0, 0], [np.nan, 0, 0], [0, 0, 5]], np.float32)
    attributes = {"POSITION": builder.accessor(TRIANGLE), "NORMAL": builder.accessor(normals)}
    read = load_glb(builder.save(tmp_path / "a.glb", **one_primitive(attributes=attributes)))
    assert np.allclose(read.normals, (0, 0, 1))


def test_sparse_and_normalised_values_are_decoded(tmp_path: Path) -> None:
    builder = Builder()
    positions = builder.accessor(np.zeros((3, 3), np.float32))
    builder.tree["accessors"][positions]["sparse"] = {
        "count": 2,
        "indices": {"bufferView": builder.view(np.array([1, 2], np.uint16).tobytes()), "componentType": 5123},
        "values": {"bufferView": builder.view(TRIANGLE[1:].tobytes())},
    }
    colors = np.array([[255, 0, 51]] * 3, np.uint8)
    uvs = np.array([[65535, 0], [0, 65535], [32768, 32768]], np.uint16)
    attributes = {
        "POSITION": positions,
        "COLOR_0": builder.accessor(colors, normalized=True),
        "TEXCOORD_0": builder.accessor(uvs, normalized=True),
    }
    source = builder.picture(np.zeros((2, 2, 4), np.uint8))
    tree = one_primitive(attributes=attributes, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]}
    read = load_glb(builder.save(tmp_path / "a.glb", **tree, textures=[{"source": source}]))
    assert np.array_equal(read.vertices, TRIANGLE)
    assert np.allclose(read.colors, (1, 0, 0.2, 1))
    assert np.allclose(read.uvs, [[1, 0], [0, 1], [0.5, 0.5]], atol=1e-4)


def test_interleaved_vertices_are_read(tmp_path: Path) -> None:
    builder = Builder()
    normals = np.tile(np.array([0, 0, 1], np.float32), (3, 1))
    view = builder.view(np.concatenate([TRIANGLE, normals], axis=1).tobytes())
    builder.tree["bufferViews"][view]["byteStride"] = 24
    item = {"bufferView": view, "componentType": 5126, "count": 3, "type": "VEC3"}
    builder.tree["accessors"] = [item, {**item, "byteOffset": 12}]
    tree = one_primitive(attributes={"POSITION": 0, "NORMAL": 1})
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.array_equal(read.vertices, TRIANGLE)
    assert np.array_equal(read.normals, normals)


def test_texture_takes_its_own_coordinates_through_its_transform(tmp_path: Path) -> None:
    builder = Builder()
    uvs = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    attributes = {
        "POSITION": builder.accessor(TRIANGLE),
        "TEXCOORD_0": builder.accessor(np.full((3, 2), 9, np.float32)),
        "TEXCOORD_1": builder.accessor(uvs),
    }
    source = builder.picture(np.zeros((2, 2, 4), np.uint8))
    # The extension's own example: the lower left quadrant, turned by a quarter.
    transform = {"offset": [0, 1], "rotation": np.pi / 2, "scale": [0.5, 0.5], "texCoord": 1}
    reference = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    material = {"pbrMetallicRoughness": {"baseColorTexture": reference}, "emissiveTexture": {"index": 0}}
    tree = one_primitive(attributes=attributes, material=0) | {"materials": [material]}
    path = builder.save(
        tmp_path / "a.glb",
        **tree,
        textures=[{"source": source, "sampler": 0}],
        samplers=[{"wrapS": 33071, "wrapT": 33648, "magFilter": 9728}],
        extensionsRequired=["KHR_texture_transform"],
    )
    read = load_glb(path)
    assert np.allclose(read.uvs, [[0, 1], [0, 0.5], [0.5, 1]], atol=1e-6)
    assert read.emissive_uvs is not None
    assert np.array_equal(read.emissive_uvs, np.full((3, 2), 9))
    texture = read.materials[0].base_color_texture
    assert texture is not None
    assert (texture.wrap, texture.nearest) == (("clamp", "mirror"), True)


def test_webp_texture_wins_over_its_fallback(tmp_path: Path) -> None:
    builder = Builder()
    red = np.tile(np.array([255, 0, 0, 255], np.uint8), (4, 4, 1))
    webp, png = builder.picture(red, "WEBP"), builder.picture(red[..., ::-1].copy())
    attributes = {
        "POSITION": builder.accessor(TRIANGLE),
        "TEXCOORD_0": builder.accessor(TRIANGLE[:, :2].copy()),
    }
    tree = one_primitive(attributes=attributes, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]}
    tree |= {"textures": [{"source": png, "extensions": {"EXT_texture_webp": {"source": webp}}}]}
    texture = load_glb(builder.save(tmp_path / "a.glb", **tree)).materials[0].base_color_texture
    assert texture is not None
    assert np.array_equal(texture.pixels, red)


def test_sixteen_bit_grey_texture_keeps_its_range(tmp_path: Path) -> None:
    builder = Builder()
    source = builder.picture(np.array([[0, 32896], [65535, 257]], np.uint16))
    attributes = {
        "POSITION": builder.accessor(TRIANGLE),
        "TEXCOORD_0": builder.accessor(TRIANGLE[:, :2].copy()),
    }
    tree = one_primitive(attributes=attributes, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]}
    read = load_glb(builder.save(tmp_path / "a.glb", **tree, textures=[{"source": source}]))
    texture = read.materials[0].base_color_texture
    assert texture is not None
    assert np.array_equal(texture.pixels[..., 0], [[0, 128], [255, 1]])


def test_specular_glossiness_becomes_base_color(tmp_path: Path) -> None:
    builder = Builder()
    gloss = {"diffuseFactor": [0.2, 0.4, 0.6, 0.5], "specularFactor": [0.0, 0.0, 0.0]}
    metal = {"diffuseFactor": [0.0, 0.0, 0.0, 1.0], "specularFactor": [0.9, 0.6, 0.1]}
    attributes = {"POSITION": builder.accessor(TRIANGLE)}
    tree = one_primitive() | {
        "meshes": [{"primitives": [{"attributes": attributes, "material": k} for k in range(2)]}],
        "materials": [{"extensions": {"KHR_materials_pbrSpecularGlossiness": g}} for g in (gloss, metal)],
    }
    plastic, golden = load_glb(builder.save(tmp_path / "a.glb", **tree)).materials
    assert np.allclose(plastic.base_color_factor, (0.2 / 0.96, 0.4 / 0.96, 0.6 / 0.96, 0.5), atol=1e-5)
    assert np.allclose(golden.base_color_factor[:3], (0.9, 0.6, 0.1), atol=0.05)


def test_emissive_strength_and_unlit(tmp_path: Path) -> None:
    builder = Builder()
    extensions = {"KHR_materials_emissive_strength": {"emissiveStrength": 4}, "KHR_materials_unlit": {}}
    material = {"emissiveFactor": [0.25, 0.5, 1], "extensions": extensions}
    tree = triangle(builder, material=0) | {"materials": [material]}
    (read,) = load_glb(builder.save(tmp_path / "a.glb", **tree)).materials
    assert read.emissive_factor == (1, 2, 4)
    assert read.unlit


def test_texture_without_coordinates_leaves_the_factor(tmp_path: Path) -> None:
    builder = Builder()
    source = builder.picture(np.zeros((2, 2, 4), np.uint8))
    color = {"baseColorTexture": {"index": 0}, "baseColorFactor": [1, 0, 0, 1]}
    tree = triangle(builder, material=0) | {"materials": [{"pbrMetallicRoughness": color}]}
    (read,) = load_glb(builder.save(tmp_path / "a.glb", **tree, textures=[{"source": source}])).materials
    assert read.base_color_texture is None
    assert read.base_color_factor == (1, 0, 0, 1)


def test_morph_targets_stand_at_their_weights(tmp_path: Path) -> None:
    builder = Builder()
    target = {"POSITION": builder.accessor(np.tile(np.array([0, 0, 4], np.float32), (3, 1)))}
    tree = triangle(builder, targets=[target])
    tree["meshes"][0]["weights"] = [0.5]
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.allclose(read.vertices, TRIANGLE + np.array([0, 0, 2]))


def test_skin_stands_in_the_pose_of_its_joints(tmp_path: Path) -> None:
    builder = Builder()
    attributes = {
        "POSITION": builder.accessor(TRIANGLE),
        "JOINTS_0": builder.accessor(np.tile(np.array([0, 1, 0, 0], np.uint8), (3, 1))),
        "WEIGHTS_0": builder.accessor(np.tile(np.array([0.25, 0.75, 0, 0], np.float32), (3, 1))),
    }
    tree = one_primitive(attributes=attributes)
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    inverse_bind[:, 3, 0] = -1  # stored by columns: a translation by -1 along x
    tree["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},  # which a skin does not take part in
        {"translation": [0, 0, 0]},
        {"translation": [0, 4, 0]},
    ]
    tree["scenes"] = [{"nodes": [0, 1, 2]}]
    tree["skins"] = [{"joints": [1, 2], "inverseBindMatrices": builder.accessor(inverse_bind)}]
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.allclose(read.vertices, TRIANGLE + np.array([-1, 3, 0]))


def test_only_used_vertices_are_kept(tmp_path: Path) -> None:
    builder = Builder()
    positions = np.concatenate([np.full((2, 3), 1e6, np.float32), TRIANGLE])
    normals = np.tile(np.array([0, 0, 1], np.float32), (5, 1))
    attributes = {"POSITION": builder.accessor(positions), "NORMAL": builder.accessor(normals)}
    indices = builder.accessor(np.array([2, 3, 4], np.uint16))
    read = load_glb(builder.save(tmp_path / "a.glb", **one_primitive(attributes=attributes, indices=indices)))
    assert np.array_equal(read.vertices, TRIANGLE)


def test_far_object_keeps_its_shape_when_centred(tmp_path: Path) -> None:
    builder = Builder()
    tree = triangle(builder)
    tree["nodes"][0]["translation"] = [6.4e6, 0, 0]
    path = builder.save(tmp_path / "a.glb", **tree)
    assert code_of(path) == "far-from-origin"
    assert np.allclose(load_glb(path, centred=True).vertices, TRIANGLE - (0.5, 1, 0), atol=1e-6)


def test_scene_without_its_own_list_takes_every_node(tmp_path: Path) -> None:
    builder = Builder()
    tree = triangle(builder)
    del tree["scenes"]
    assert len(load_glb(builder.save(tmp_path / "a.glb", **tree)).faces) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"extensionsRequired": ["EXT_meshopt_compression"]}, "unsupported-extension"),
        ({"nodes": [{"mesh": 0, "children": [1]}, {"children": [0]}]}, "node-tree"),
        ({"nodes": [{"mesh": 0}, {"children": [0]}, {"children": [0]}]}, "node-tree"),
        ({"nodes": [{"mesh": 0, "scale": [0, 0, 0]}]}, "no-extent"),
        ({"nodes": [{"mesh": 0, "scale": [1e300, 1e300, 1e300]}]}, "non-finite"),
        ({"nodes": [{"mesh": 0, "scale": [1e39, 1, 1]}]}, "non-finite"),
        ({"nodes": [{"mesh": 7}]}, "invalid-gltf"),
        ({"nodes": "many"}, "invalid-gltf"),
        ({"scenes": [{}]}, "no-triangles"),
        ({"accessors": []}, "invalid-gltf"),
        ({"asset": {"version": "1.0"}}, "gltf-version"),
    ],
)
def test_unusable_trees_are_quarantined(tmp_path: Path, change: dict[str, Any], code: str) -> None:
    builder = Builder()
    assert code_of(builder.save(tmp_path / "a.glb", **{**triangle(builder), **change})) == code


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_points_and_lines_are_no_object(tmp_path: Path, mode: int) -> None:
    builder = Builder()
    assert code_of(builder.save(tmp_path / "a.glb", **triangle(builder, mode=mode))) == "no-triangles"


def test_index_beyond_the_vertices_is_quarantined(tmp_path: Path) -> None:
    builder = Builder()
    tree = triangle(builder, indices=builder.accessor(np.array([0, 1, 3], np.uint16)))
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "index-range"


def test_accessor_beyond_its_data_is_quarantined(tmp_path: Path) -> None:
    builder = Builder()
    tree = triangle(builder)
    builder.tree["accessors"][0]["count"] = 4
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "accessor-range"


def test_coordinates_that_are_no_numbers_are_quarantined(tmp_path: Path) -> None:
    for name, width in (("POSITION", 3), ("TEXCOORD_0", 2), ("COLOR_0", 4)):
        builder = Builder()
        values = {"POSITION": TRIANGLE, name: np.full((3, width), np.nan, np.float32)}
        attributes = {key: builder.accessor(value) for key, value in values.items()}
        path = builder.save(tmp_path / "a.glb", **one_primitive(attributes=attributes))
        assert code_of(path) == "non-finite"
    builder = Builder()
    tree = triangle(builder) | {"materials": [{"emissiveFactor": [float("nan")] * 3}]}
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "not-gltf"


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_load_or_are_quarantined(tmp_path: Path, mesh: Mesh, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(encode_glb(mesh))
    for place in rng.integers(0, len(data), rng.integers(1, 30)):
        data[place] = rng.integers(256)
    (tmp_path / "a.glb").write_bytes(data)
    with contextlib.suppress(InputError):  # any other error fails the test
        assert np.isfinite(load_glb(tmp_path / "a.glb").vertices).all()


def test_undecodable_texture_is_quarantined(tmp_path: Path) -> None:
    builder = Builder()
    attributes = {
        "POSITION": builder.accessor(TRIANGLE),
        "TEXCOORD_0": builder.accessor(TRIANGLE[:, :2].copy()),
    }
    tree = one_primitive(attributes=attributes, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]}
    tree |= {"images": [{"bufferView": builder.view(b"\x89PNG no")}], "textures": [{"source": 0}]}
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "texture"
    tree["textures"] = [{"extensions": {"KHR_texture_basisu": {"source": 0}}}]
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "unsupported-texture"


@pytest.mark.parametrize(
    "uri", ["../secret.bin", "/etc/hostname", "http://a.example/b.bin", "a/../../secret.bin"]
)
def test_uri_must_not_leave_the_folder(tmp_path: Path, uri: str) -> None:
    (tmp_path / "secret.bin").write_bytes(TRIANGLE.tobytes())
    (tmp_path / "in").mkdir()
    builder = Builder()
    tree = {**builder.tree, **triangle(builder), "buffers": [{"uri": uri, "byteLength": 36}]}
    path = tmp_path / "in" / "a.gltf"
    path.write_text(json.dumps(tree))
    assert code_of(path) == "unsafe-uri"


def test_gltf_with_files_beside_it(tmp_path: Path) -> None:
    builder = Builder()
    tree = {**builder.tree, **triangle(builder), "buffers": [{"uri": "the%20data.bin", "byteLength": 36}]}
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(tree))
    assert code_of(path) == "missing-file"
    before = digest_asset(path)
    (tmp_path / "the data.bin").write_bytes(TRIANGLE.tobytes())
    assert np.array_equal(load_glb(path).vertices, TRIANGLE)
    assert digest_asset(path) != before


@pytest.mark.parametrize("kept", [0, 3, 11, 19, 40, 200, -1])
def test_truncated_file_is_quarantined(tmp_path: Path, mesh: Mesh, kept: int) -> None:
    path = tmp_path / "cut.glb"
    path.write_bytes(encode_glb(mesh)[:kept])
    assert code_of(path) in {"empty-file", "not-gltf", "truncated"}


def test_folder_names_objects_by_stem_where_it_can(tmp_path: Path, mesh: Mesh) -> None:
    for name in ("a/mug.glb", "b/mug.glb", "b/jar é.GLB"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_glb(mesh, tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    folder = GlbFolder(tmp_path)
    assert folder.ids() == ["a/mug.glb", "b/mug.glb", "jar é"]
    read, provenance = folder.load("jar é")
    assert np.allclose(read.vertices.min(axis=0) + read.vertices.max(axis=0), 0, atol=1e-7)
    assert provenance == {"source": "jar é.GLB"}
    assert folder.digest("a/mug.glb") == folder.digest("b/mug.glb")


def test_unusable_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none: no such folder"):
        GlbFolder(tmp_path / "none")
    with pytest.raises(InputError, match=r"no \.glb or \.gltf file"):
        GlbFolder(tmp_path)
