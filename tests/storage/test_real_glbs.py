"""Real files: good ones load; each awkward one ends as the manifest expects: loaded whole, or set aside.

The collection lacks the files that some of them refer to; those are tried again with stand-ins beside them.
"""

import csv
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from render.scene import Mesh
from storage.errors import InputError
from storage.sources.glb import GlbFolder, load_glb

# By file: why it is set aside, or the triangles it has.
OUTCOMES: dict[str, str | int] = {
    "accessor_overrun_bowl.glb": "accessor-range",
    "bad_normals.glb": 12,
    "cameras_lights_only.glb": 12,
    "draco_box.glb": 12,
    "draco_chess_board.glb": 178848,
    "draco_embedded_banana.gltf": 104,
    "draco_embedded_headphones.gltf": 122944,
    "draco_heart.glb": 180,
    "draco_ktx2_blend_jet.glb": 36446,
    "draco_unlit_3dtile.glb": 28222,
    "ecef_offset_bowl.glb": 256,
    "emissive_only_icosahedron.glb": 260,
    "far_outlier_instance_bowl.glb": 256,
    "git_lfs_pointer.glb": "not-gltf",
    "glb_external_png/box-textured-binary-separate.glb": "missing-file",
    "gltf1_binary.glb": "gltf-version",
    "index_out_of_range/IndexOutOfRange.gltf": "missing-file",
    "json_bom.glb": "not-gltf",
    "lines_only/Mesh_PrimitiveMode_03.gltf": "no-triangles",
    "missing_bin.gltf": "missing-file",
    "morph_stress.glb": 2412,
    "negative_scale_04/Node_NegativeScale_04.gltf": "missing-file",
    "negative_scale_11/Node_NegativeScale_11.gltf": "missing-file",
    "no_indices_building.glb": 72,
    "no_texture_dagger.glb": 1298,
    "normalmap_only_controller.glb": 5246,
    "occlusion_uv1_cube.glb": 1532,
    "points_only/Mesh_PrimitiveMode_00.gltf": "no-triangles",
    "quantized_watermelon.glb": 304,
    "scale_1e-6_bowl.glb": 256,
    "scene_without_nodes.gltf": "no-triangles",
    "skinned_animated_fox.glb": 576,
    "sparse_accessor.glb": 12,
    "texture_but_no_uv_bowl.glb": 256,
    "triangle_strip/Mesh_PrimitiveMode_04.gltf": "missing-file",
    "truncated_half_duck.glb": "truncated",
    "truncated_tail_duck.glb": "truncated",
    "uri_spaces/CubeImageUriSpaces.gltf": "missing-file",
    "vertex_colour_fish.glb": 2754,
    "vertex_colour_only_box.glb": 12,
    "wrong_reported_length.glb": "truncated",
    "zero_bytes.glb": "empty-file",
    "茶碗 ☕ (unicode name) mug.glb": 256,
}
# What those end as once the files that they refer to are there.
COMPLETED: dict[str, str | int] = {
    "glb_external_png/box-textured-binary-separate.glb": 12,
    "index_out_of_range/IndexOutOfRange.gltf": "index-range",
    "negative_scale_04/Node_NegativeScale_04.gltf": 54,
    "negative_scale_11/Node_NegativeScale_11.gltf": 54,
    "triangle_strip/Mesh_PrimitiveMode_04.gltf": 2,
    "uri_spaces/CubeImageUriSpaces.gltf": 12,
}
ALLOWED = {  # by the words with which the manifest's expectation starts: may it load, may it be set aside
    "valid glTF2: should load": (True, False),
    "valid glTF2 needing decoder: load or reject": (True, True),
    "should load after recomputing normals": (True, False),
    "load untextured or reject": (True, True),
    "invalid: must be rejected": (False, True),
    "valid but unusable as object: must be skipped": (False, True),
}
# As the file states them; the manifest has those of a reader that knows no Draco, skins or strays.
OTHER_EXTENTS = {
    "draco_box.glb": (1, 1, 1),
    "far_outlier_instance_bowl.glb": (0.95, 0.3, 0.95),
}


@pytest.fixture(scope="session")
def manifest(shared_data: Path) -> dict[str, dict[str, str]]:
    """Rows of the awkward files, by their path in their folder."""
    with (shared_data / "MANIFEST.tsv").open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        prefix = "objects/nasty/"
        return {row["file"].removeprefix(prefix): row for row in rows if row["file"].startswith(prefix)}


def outcome(path: Path) -> str | int:
    try:
        mesh = load_glb(path, centred=True)
    except InputError as error:
        return error.code
    check_sound(mesh)
    return len(mesh.faces)


def check_sound(mesh: Mesh) -> None:
    num_vertices = len(mesh.vertices)
    assert np.isfinite(mesh.vertices).all()
    assert np.ptp(mesh.vertices, axis=0).max() > 0
    assert mesh.faces.min() >= 0
    assert mesh.faces.max() < num_vertices
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
    assert np.isfinite(mesh.uvs).all()
    assert mesh.uvs.shape == (num_vertices, 2)
    assert mesh.colors.shape == (num_vertices, 4)
    assert len(mesh.material_ids) == len(mesh.faces)
    assert mesh.material_ids.max() < len(mesh.materials)


def test_no_file_of_the_manifest_is_missing_here(manifest: dict[str, dict[str, str]]) -> None:
    assert manifest.keys() == OUTCOMES.keys()


@pytest.mark.parametrize("name", OUTCOMES)
def test_file_ends_as_expected(shared_data: Path, manifest: dict[str, dict[str, str]], name: str) -> None:
    path, row = shared_data / "objects" / "nasty" / name, manifest[name]
    found = outcome(path)
    assert found == OUTCOMES[name]
    expectation = row["notes"].partition("expect: ")[2]
    (allowed,) = (may for words, may in ALLOWED.items() if expectation.startswith(words))
    assert allowed[isinstance(found, str)] or found == "missing-file"
    if isinstance(found, int):
        assert found == int(row["faces"])
        extents = OTHER_EXTENTS.get(name) or tuple(map(float, row["extents_file_units"].split("x")))
        if max(extents) > 0 and name != "skinned_animated_fox.glb":
            assert np.allclose(np.ptp(load_glb(path, centred=True).vertices, axis=0), extents, rtol=2e-3)


@pytest.mark.parametrize("name", COMPLETED)
def test_file_with_what_it_refers_to_ends_as_expected(
    shared_data: Path, manifest: dict[str, dict[str, str]], tmp_path: Path, name: str
) -> None:
    path = tmp_path / Path(name).name
    shutil.copyfile(shared_data / "objects" / "nasty" / name, path)
    write_stand_ins(path)
    found = outcome(path)
    assert found == COMPLETED[name]
    expected_to_load = manifest[name]["notes"].partition("expect: ")[2].startswith("valid")
    assert expected_to_load == isinstance(found, int)
    if manifest[name]["textured"] == "yes":
        materials = load_glb(path, centred=True).materials
        assert any(material.base_color_texture is not None for material in materials)


def write_stand_ins(path: Path) -> None:
    """Write the files beside a glTF that it refers to, with values in the ranges that its accessors state."""
    data = path.read_bytes()
    if data[:4] == b"glTF":
        data = data[20 : 20 + struct.unpack_from("<I", data, 12)[0]]
    tree = json.loads(data)
    for image in tree.get("images", []):
        picture = path.parent / image["uri"].replace("%20", " ")
        picture.parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2), (200, 30, 30)).save(picture)
    for number, buffer in enumerate(tree["buffers"]):
        if "uri" in buffer:
            (path.parent / buffer["uri"]).write_bytes(buffer_bytes(tree, number))


def buffer_bytes(tree: dict[str, Any], number: int) -> bytes:
    data = bytearray(tree["buffers"][number]["byteLength"])
    rng = np.random.default_rng(0)
    for accessor in tree["accessors"]:
        view = tree["bufferViews"][accessor["bufferView"]]
        if view["buffer"] != number:
            continue
        columns, count = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]], accessor["count"]
        if accessor["componentType"] == 5126:
            low, high = (
                np.array(accessor.get(key, [value] * columns)) for key, value in (("min", 0), ("max", 1))
            )
            values = rng.uniform(low, high, (count, columns)).astype(np.float32)
            values[0], values[-1] = low, high
        else:
            dtype = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32}[accessor["componentType"]]
            values = (np.arange(count) % (accessor.get("max", [17])[0] + 1)).astype(dtype)
            values[-1] = accessor.get("max", [17])[0]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        data[start : start + values.nbytes] = values.tobytes()
    return bytes(data)


def test_jet_has_its_ktx2_textures(shared_data: Path) -> None:
    jet = load_glb(shared_data / "objects" / "nasty" / "draco_ktx2_blend_jet.glb")
    pictures = [m.base_color_texture.pixels for m in jet.materials if m.base_color_texture is not None]
    assert pictures
    assert all(picture[..., :3].std() > 5 for picture in pictures)
    assert {material.alpha_mode for material in jet.materials} == {"opaque", "blend"}


def test_every_good_object_loads(shared_data: Path) -> None:
    folder = GlbFolder(shared_data / "objects" / "good")
    assert len(folder.ids()) == 45
    for object_id in folder.ids():
        mesh, provenance = folder.load(object_id)
        check_sound(mesh)
        assert any(material.base_color_texture is not None for material in mesh.materials), object_id
        assert provenance["source"]


def test_webp_cat_is_textured(shared_data: Path) -> None:
    mesh, provenance = GlbFolder(shared_data / "objects" / "good").load("pc_egyptian_cat_statue")
    texture = mesh.materials[0].base_color_texture
    assert texture is not None
    assert texture.pixels[..., :3].std() > 10
    assert "CC-BY-4.0" in provenance["licence"]
    assert "Ankledot" in provenance["author"]
