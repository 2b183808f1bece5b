"""GLB files become meshes: the geometry of a scene as glTF defines it."""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import DracoPy
import numpy as np
import pytest

from render.scene import Mesh
from storage.errors import InputError
from storage.sources.glb import GlbFolder, load_glb, read_object
from storage.sources.glb_writer import encode_glb, write_glb

if TYPE_CHECKING:
    from conftest import Builder


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
    assert read_object(tmp_path / "box.glb")[1]["licence"] == "CC0"


def test_same_mesh_gives_the_same_bytes(mesh: Mesh) -> None:
    assert encode_glb(mesh) == encode_glb(mesh)


def test_no_normals_means_flat_ones(tmp_path: Path, builder: "Builder") -> None:
    strip = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 1]], np.float32)
    tree = builder.one_primitive(attributes={"POSITION": builder.accessor(strip)}, mode=5)
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert read.faces.shape == (2, 3)
    edges = read.vertices[read.faces[:, 1:]] - read.vertices[read.faces[:, :1]]
    geometric = np.cross(edges[:, 0], edges[:, 1])
    geometric /= np.linalg.norm(geometric, axis=1, keepdims=True)
    assert np.allclose(read.normals[read.faces], geometric[:, None], atol=1e-6)
    assert geometric[:, 2].min() > 0  # a strip's second triangle is turned so that both face the same way


def test_fan_and_unindexed_triangles(tmp_path: Path, builder: "Builder") -> None:
    ring = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
    tree = builder.one_primitive(attributes={"POSITION": builder.accessor(ring)}, mode=6)
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.array_equal(read.vertices[read.faces], ring[[[0, 1, 2], [0, 2, 3]]])


def test_mirrored_node_keeps_its_outside_outside(tmp_path: Path, builder: "Builder", mesh: Mesh) -> None:
    data = encode_glb(mesh)
    size = struct.unpack_from("<I", data, 12)[0]
    tree = json.loads(data[20 : 20 + size])
    tree["nodes"] = [
        {"children": [1], "scale": [-2.0, 1.0, 1.0]},
        {"mesh": 0, "translation": [1.0, 2.0, 3.0]},
    ]
    builder.tree, builder.binary = tree, data[28 + size :]
    read = load_glb(builder.save(tmp_path / "a.glb"))
    assert np.allclose(read.vertices, (mesh.vertices + np.array([1, 2, 3])) * (-2, 1, 1), atol=1e-6)
    a, b, c = (read.vertices[read.faces[:, k]] for k in range(3))
    geometric = np.cross(b - a, c - a)
    assert np.einsum("fi,fi->f", geometric, read.normals[read.faces[:, 0]]).min() > 0


def test_normals_turn_with_uneven_scale(tmp_path: Path, builder: "Builder") -> None:
    slope = np.array([[0, 0, 0], [1, 0, -1], [0, 1, 0]], np.float32)
    normal = np.tile(np.array([1, 0, 1], np.float32) / np.sqrt(2).astype(np.float32), (3, 1))
    attributes = {"POSITION": builder.accessor(slope), "NORMAL": builder.accessor(normal)}
    tree = builder.one_primitive(attributes=attributes)
    tree["nodes"] = [{"mesh": 0, "scale": [3, 1, 1]}]
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.allclose(read.normals, np.array([1, 0, 3]) / np.sqrt(10), atol=1e-6)


def test_bad_normals_are_computed_anew(tmp_path: Path, builder: "Builder") -> None:
    normals = np.array([[0, 0, 0], [np.nan, 0, 0], [0, 0, 5]], np.float32)
    attributes = {"POSITION": builder.accessor(builder.TRIANGLE), "NORMAL": builder.accessor(normals)}
    read = load_glb(builder.save(tmp_path / "a.glb", **builder.one_primitive(attributes=attributes)))
    assert np.allclose(read.normals, (0, 0, 1))


def test_sparse_and_normalised_values_are_decoded(tmp_path: Path, builder: "Builder") -> None:
    positions = builder.accessor(np.zeros((3, 3), np.float32))
    builder.tree["accessors"][positions]["sparse"] = {
        "count": 2,
        "indices": {"bufferView": builder.view(np.array([1, 2], np.uint16).tobytes()), "componentType": 5123},
        "values": {"bufferView": builder.view(builder.TRIANGLE[1:].tobytes())},
    }
    colors = np.array([[255, 0, 51]] * 3, np.uint8)
    uvs = np.array([[65535, 0], [0, 65535], [32768, 32768]], np.uint16)
    attributes = {
        "POSITION": positions,
        "COLOR_0": builder.accessor(colors, normalized=True),
        "TEXCOORD_0": builder.accessor(uvs, normalized=True),
    }
    source = builder.picture(np.zeros((2, 2, 4), np.uint8))
    tree = builder.one_primitive(attributes=attributes, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]}
    read = load_glb(builder.save(tmp_path / "a.glb", **tree, textures=[{"source": source}]))
    assert np.array_equal(read.vertices, builder.TRIANGLE)
    assert np.allclose(read.colors, (1, 0, 0.2, 1))
    assert np.allclose(read.uvs, [[1, 0], [0, 1], [0.5, 0.5]], atol=1e-4)


def test_interleaved_vertices_are_read(tmp_path: Path, builder: "Builder") -> None:
    normals = np.tile(np.array([0, 0, 1], np.float32), (3, 1))
    view = builder.view(np.concatenate([builder.TRIANGLE, normals], axis=1).tobytes())
    builder.tree["bufferViews"][view]["byteStride"] = 24
    item = {"bufferView": view, "componentType": 5126, "count": 3, "type": "VEC3"}
    builder.tree["accessors"] = [item, {**item, "byteOffset": 12}]
    tree = builder.one_primitive(attributes={"POSITION": 0, "NORMAL": 1})
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.array_equal(read.vertices, builder.TRIANGLE)
    assert np.array_equal(read.normals, normals)


def test_morph_targets_stand_at_their_weights(tmp_path: Path, builder: "Builder") -> None:
    target = {"POSITION": builder.accessor(np.tile(np.array([0, 0, 4], np.float32), (3, 1)))}
    tree = builder.triangle(targets=[target])
    tree["meshes"][0]["weights"] = [0.5]
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.allclose(read.vertices, builder.TRIANGLE + np.array([0, 0, 2]))


def test_skin_stands_in_the_pose_of_its_joints(tmp_path: Path, builder: "Builder") -> None:
    attributes = {
        "POSITION": builder.accessor(builder.TRIANGLE),
        "JOINTS_0": builder.accessor(np.tile(np.array([0, 1, 0, 0], np.uint8), (3, 1))),
        "WEIGHTS_0": builder.accessor(np.tile(np.array([0.25, 0.75, 0, 0], np.float32), (3, 1))),
    }
    tree = builder.one_primitive(attributes=attributes)
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
    assert np.allclose(read.vertices, builder.TRIANGLE + np.array([-1, 3, 0]))


def test_only_used_vertices_are_kept(tmp_path: Path, builder: "Builder") -> None:
    positions = np.concatenate([np.full((2, 3), 1e6, np.float32), builder.TRIANGLE])
    normals = np.tile(np.array([0, 0, 1], np.float32), (5, 1))
    attributes = {"POSITION": builder.accessor(positions), "NORMAL": builder.accessor(normals)}
    indices = builder.accessor(np.array([2, 3, 4], np.uint16))
    read = load_glb(
        builder.save(tmp_path / "a.glb", **builder.one_primitive(attributes=attributes, indices=indices))
    )
    assert np.array_equal(read.vertices, builder.TRIANGLE)


def test_far_object_keeps_its_shape_when_centred(tmp_path: Path, builder: "Builder") -> None:
    tree = builder.triangle()
    tree["nodes"][0]["translation"] = [6.4e6, 0, 0]
    path = builder.save(tmp_path / "a.glb", **tree)
    assert code_of(path) == "far-from-origin"
    assert np.allclose(load_glb(path, centred=True).vertices, builder.TRIANGLE - (0.5, 1, 0), atol=1e-6)


def test_scene_without_its_own_list_takes_every_node(tmp_path: Path, builder: "Builder") -> None:
    tree = builder.triangle()
    del tree["scenes"]
    assert len(load_glb(builder.save(tmp_path / "a.glb", **tree)).faces) == 1


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


def test_instances_stand_where_their_attributes_say(tmp_path: Path, builder: "Builder") -> None:
    turned = np.array([[0, 0, 0, 1], [0, 0, np.sqrt(0.5), np.sqrt(0.5)]], np.float32)  # by 0 and 90° about z
    attributes = {
        "TRANSLATION": builder.accessor(np.array([[0, 0, 0], [5, 0, 0]], np.float32)),
        "ROTATION": builder.accessor(turned),
        "SCALE": builder.accessor(np.array([[1, 1, 1], [2, 2, 2]], np.float32)),
    }
    tree = builder.triangle()
    tree["nodes"][0]["translation"] = [0, 0, 7]
    tree["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    tree["extensionsRequired"] = ["EXT_mesh_gpu_instancing"]
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    x, y, z = builder.TRIANGLE.T
    second = np.stack([5 - 2 * y, 2 * x, z], axis=1)
    assert np.allclose(
        read.vertices, np.concatenate([builder.TRIANGLE, second]) + np.array([0, 0, 7]), atol=1e-5
    )


def test_unequal_instance_attributes_are_quarantined(tmp_path: Path, builder: "Builder") -> None:
    attributes = {
        "TRANSLATION": builder.accessor(np.zeros((2, 3), np.float32)),
        "SCALE": builder.accessor(np.ones((3, 3), np.float32)),
    }
    tree = builder.triangle()
    tree["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "instances"


def test_vertex_without_weights_follows_its_first_joint(tmp_path: Path, builder: "Builder") -> None:
    attributes = {
        "POSITION": builder.accessor(builder.TRIANGLE),
        "JOINTS_0": builder.accessor(np.tile(np.array([1, 0, 0, 0], np.uint8), (3, 1))),
        "WEIGHTS_0": builder.accessor(np.zeros((3, 4), np.float32)),
    }
    tree = builder.one_primitive(attributes=attributes)
    tree["nodes"] = [{"mesh": 0, "skin": 0}, {}, {"translation": [0, 4, 0]}]
    tree["scenes"] = [{"nodes": [0, 1, 2]}]
    tree["skins"] = [{"joints": [1, 2]}]
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.allclose(read.vertices, builder.TRIANGLE + np.array([0, 4, 0]))


@pytest.mark.parametrize(("distance_m", "kept"), [(20.0, 3), (1000.0, 2)])
def test_stray_copy_is_left_out_and_reported(
    tmp_path: Path, builder: "Builder", distance_m: float, kept: int
) -> None:
    tree = builder.triangle()
    places = ([0, 0, 0], [1, 0, 0], [distance_m, 0, 0])
    tree["nodes"] = [{"mesh": 0, "translation": place} for place in places]
    tree["scenes"] = [{"nodes": [0, 1, 2]}]
    mesh, provenance = read_object(builder.save(tmp_path / "a.glb", **tree))
    assert len(mesh.faces) == kept
    assert provenance.get("left_out") == (None if kept == 3 else "1 of 3 parts, far from the others")


def test_draco_geometry_is_decoded(tmp_path: Path, builder: "Builder") -> None:
    rng = np.random.default_rng(0)
    points, faces = rng.random((50, 3)).astype(np.float32), rng.integers(0, 50, (90, 3)).astype(np.uint32)
    data = DracoPy.encode(points, faces, quantization_bits=20, preserve_order=True)
    builder.tree["accessors"] = [{"componentType": 5126, "count": 50, "type": "VEC3"}]
    compressed = {"bufferView": builder.view(data), "attributes": {"POSITION": 0}}
    tree = builder.one_primitive(
        attributes={"POSITION": 0}, extensions={"KHR_draco_mesh_compression": compressed}
    )
    tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    read = load_glb(builder.save(tmp_path / "a.glb", **tree))
    assert np.allclose(read.vertices[read.faces], points[faces], atol=1e-5)
    builder.tree["accessors"][0]["count"] = 60
    assert code_of(builder.save(tmp_path / "b.glb", **tree)) == "draco"
    builder.binary = bytes(len(builder.binary))
    assert code_of(builder.save(tmp_path / "c.glb", **tree)) == "draco"
