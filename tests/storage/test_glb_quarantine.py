"""GLB files that cannot be rendered right are quarantined with the reason."""

import contextlib
import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from render.scene import Mesh
from storage.errors import InputError
from storage.sources.glb import digest_asset, load_glb
from storage.sources.glb_limits import GlbLimits
from storage.sources.glb_writer import encode_glb

if TYPE_CHECKING:
    from conftest import Builder


def code_of(path: Path) -> str:
    with pytest.raises(InputError, match=path.name) as caught:
        load_glb(path)
    return caught.value.code


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
def test_unusable_trees_are_quarantined(
    tmp_path: Path, builder: "Builder", change: dict[str, Any], code: str
) -> None:
    assert code_of(builder.save(tmp_path / "a.glb", **{**builder.triangle(), **change})) == code


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_points_and_lines_are_no_object(tmp_path: Path, builder: "Builder", mode: int) -> None:
    assert code_of(builder.save(tmp_path / "a.glb", **builder.triangle(mode=mode))) == "no-triangles"


def test_index_beyond_the_vertices_is_quarantined(tmp_path: Path, builder: "Builder") -> None:
    tree = builder.triangle(indices=builder.accessor(np.array([0, 1, 3], np.uint16)))
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "index-range"


def test_accessor_beyond_its_data_is_quarantined(tmp_path: Path, builder: "Builder") -> None:
    tree = builder.triangle()
    builder.tree["accessors"][0]["count"] = 4
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "accessor-range"


@pytest.mark.parametrize(("name", "width"), [("POSITION", 3), ("TEXCOORD_0", 2), ("COLOR_0", 4)])
def test_values_that_are_no_numbers_are_quarantined(
    tmp_path: Path, builder: "Builder", name: str, width: int
) -> None:
    values = {"POSITION": builder.TRIANGLE, name: np.full((3, width), np.nan, np.float32)}
    attributes = {key: builder.accessor(value) for key, value in values.items()}
    tree = builder.one_primitive(attributes=attributes)
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "non-finite"


def test_json_that_no_other_reader_knows_is_quarantined(tmp_path: Path, builder: "Builder") -> None:
    tree = builder.triangle() | {"materials": [{"emissiveFactor": [float("nan")] * 3}]}
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


@pytest.mark.parametrize(
    "uri",
    [
        "../secret.bin",
        "%2e%2e/secret.bin",
        "a/../../secret.bin",
        "/etc/hostname",
        "http://a.example/b.bin",
        "file:///etc/hostname",
        "link.bin",
        "linked/secret.bin",
    ],
)
def test_uri_must_not_leave_the_folder(tmp_path: Path, builder: "Builder", uri: str) -> None:
    (tmp_path / "secret.bin").write_bytes(builder.TRIANGLE.tobytes())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.bin").symlink_to("../secret.bin")
    (tmp_path / "in" / "linked").symlink_to("..")
    tree = {**builder.tree, **builder.triangle(), "buffers": [{"uri": uri, "byteLength": 36}]}
    path = tmp_path / "in" / "a.gltf"
    path.write_text(json.dumps(tree))
    assert code_of(path) == "unsafe-uri"


def test_meshopt_without_an_uncompressed_copy_is_quarantined(tmp_path: Path, builder: "Builder") -> None:
    """Not required, so a reader that skips the extension would read the wrong buffer or zeros."""
    tree = builder.triangle()
    builder.tree["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 0}}
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "unsupported-extension"


def test_only_the_first_buffer_is_the_binary_chunk(tmp_path: Path, builder: "Builder") -> None:
    tree = {**builder.tree, **builder.triangle()}
    tree["bufferViews"][0]["buffer"] = 1
    path = builder.save(tmp_path / "a.glb", **tree)
    data = path.read_bytes()
    first = f'"buffers": [{{"byteLength": {len(builder.binary)}}}'.encode()
    both = first + f',{{"byteLength":{len(builder.binary)}}}'.encode()
    size = struct.unpack_from("<I", data, 12)[0]
    text = data[20 : 20 + size].rstrip().replace(first, both)
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + data[20 + size :]
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
    assert code_of(path) == "truncated"


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (GlbLimits(triangles=11), "too-many-triangles"),
        (GlbLimits(mebibytes=0.001), "too-large"),
        (GlbLimits(texture_px=8), "texture-size"),
        (GlbLimits(seconds=1e-9), "too-slow"),
    ],
)
def test_file_beyond_a_limit_is_quarantined(tmp_path: Path, mesh: Mesh, limits: GlbLimits, code: str) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(encode_glb(mesh))
    assert len(load_glb(path, limits=GlbLimits(triangles=12, texture_px=16)).faces) == 12
    with pytest.raises(InputError, match=r"a\.glb: .*limits\.") as caught:
        load_glb(path, limits=limits)
    assert caught.value.code == code


def test_too_many_instances_are_quarantined(tmp_path: Path, builder: "Builder") -> None:
    attributes = {"TRANSLATION": builder.accessor(np.zeros((5, 3), np.float32))}
    tree = builder.triangle()
    tree["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": attributes}}
    path = builder.save(tmp_path / "a.glb", **tree)
    assert len(load_glb(path, limits=GlbLimits(parts=5)).faces) == 5
    with pytest.raises(InputError, match=r"limits\.parts") as caught:
        load_glb(path, limits=GlbLimits(parts=4))
    assert caught.value.code == "too-many-parts"


def test_files_beside_count_towards_the_size(tmp_path: Path, builder: "Builder") -> None:
    tree = {**builder.tree, **builder.triangle(), "buffers": [{"uri": "data.bin", "byteLength": 36}]}
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(tree))
    (tmp_path / "data.bin").write_bytes(builder.TRIANGLE.tobytes() + bytes(2**21))
    assert len(load_glb(path).faces) == 1
    with pytest.raises(InputError, match=r"limits\.mebibytes"):
        load_glb(path, limits=GlbLimits(mebibytes=1))


def test_accessor_of_zeros_cannot_ask_for_more_memory_than_triangles_need(
    tmp_path: Path, builder: "Builder"
) -> None:
    tree = builder.triangle()
    builder.tree["accessors"][0] = {"componentType": 5126, "count": 10**9, "type": "VEC3"}
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "too-many-triangles"


def test_gltf_with_files_beside_it(tmp_path: Path, builder: "Builder") -> None:
    tree = {**builder.tree, **builder.triangle(), "buffers": [{"uri": "the%20data.bin", "byteLength": 36}]}
    path = tmp_path / "a.gltf"
    path.write_text(json.dumps(tree))
    assert code_of(path) == "missing-file"
    (tmp_path / "the data.bin").symlink_to("the data.bin")
    assert code_of(path) == "missing-file"
    (tmp_path / "the data.bin").unlink()
    before = digest_asset(path)
    (tmp_path / "the data.bin").write_bytes(builder.TRIANGLE.tobytes())
    assert np.array_equal(load_glb(path).vertices, builder.TRIANGLE)
    assert digest_asset(path) != before


def test_each_of_two_files_of_one_name_in_different_folders_counts(tmp_path: Path) -> None:
    path, uris = tmp_path / "a.gltf", ("body/skin.png", "lid/skin.png")
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "images": [{"uri": uri} for uri in uris]}))
    digests = {digest_asset(path)}
    for uri in uris:
        (tmp_path / uri).parent.mkdir()
        (tmp_path / uri).write_bytes(b"a picture")
        digests.add(digest_asset(path))
    assert len(digests) == 3


@pytest.mark.parametrize("kept", [0, 3, 11, 19, 40, 200, -1])
def test_truncated_file_is_quarantined(tmp_path: Path, mesh: Mesh, kept: int) -> None:
    path = tmp_path / "cut.glb"
    path.write_bytes(encode_glb(mesh)[:kept])
    assert code_of(path) in {"empty-file", "not-gltf", "truncated"}


def test_undecodable_texture_is_quarantined(tmp_path: Path, builder: "Builder") -> None:
    attributes = {
        "POSITION": builder.accessor(builder.TRIANGLE),
        "TEXCOORD_0": builder.accessor(builder.TRIANGLE[:, :2].copy()),
    }
    tree = builder.one_primitive(attributes=attributes, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]}
    tree |= {"images": [{"bufferView": builder.view(b"\x89PNG no")}], "textures": [{"source": 0}]}
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "texture"
    tree["images"] = [{"bufferView": builder.view(b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(80))}]
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "texture"
    tree["textures"] = [{"extensions": {"MSFT_texture_dds": {"source": 0}}}]
    assert code_of(builder.save(tmp_path / "a.glb", **tree)) == "unsupported-texture"
