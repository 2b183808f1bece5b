"""Real files: good ones load, broken ones are quarantined with a reason."""

from pathlib import Path

import numpy as np
import pytest

from render.scene import Mesh
from storage.errors import InputError
from storage.sources.glb import GlbFolder

# What is missing or broken in each file; every other one loads.
QUARANTINED = {
    "IndexOutOfRange": "missing-file",
    "Mesh_PrimitiveMode_00": "no-triangles",
    "Mesh_PrimitiveMode_03": "no-triangles",
    "Mesh_PrimitiveMode_04": "missing-file",
    "Node_NegativeScale_04": "missing-file",
    "Node_NegativeScale_11": "missing-file",
    "CubeImageUriSpaces": "missing-file",
    "box-textured-binary-separate": "missing-file",
    "accessor_overrun_bowl": "accessor-range",
    "draco_box": "unsupported-extension",
    "draco_chess_board": "unsupported-extension",
    "draco_embedded_banana": "unsupported-extension",
    "draco_embedded_headphones": "unsupported-extension",
    "draco_heart": "unsupported-extension",
    "draco_ktx2_blend_jet": "unsupported-extension",
    "draco_unlit_3dtile": "unsupported-extension",
    "git_lfs_pointer": "not-gltf",
    "gltf1_binary": "gltf-version",
    "json_bom": "not-gltf",
    "missing_bin": "missing-file",
    "scene_without_nodes": "no-triangles",
    "truncated_half_duck": "truncated",
    "truncated_tail_duck": "truncated",
    "wrong_reported_length": "truncated",
    "zero_bytes": "empty-file",
}


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


def test_every_good_object_loads(shared_data: Path) -> None:
    folder = GlbFolder(shared_data / "objects" / "good")
    assert len(folder.ids()) == 45
    for object_id in folder.ids():
        mesh, provenance = folder.load(object_id)
        check_sound(mesh)
        assert any(material.base_color_texture is not None for material in mesh.materials), object_id
        assert provenance["source"]


def test_every_nasty_object_loads_or_says_why_not(shared_data: Path) -> None:
    folder = GlbFolder(shared_data / "objects" / "nasty")
    codes = {}
    for object_id in folder.ids():
        folder.digest(object_id)
        try:
            check_sound(folder.load(object_id)[0])
        except InputError as error:
            codes[object_id] = error.code
    assert codes == QUARANTINED


@pytest.mark.parametrize(
    ("object_id", "extents"),
    [
        ("ecef_offset_bowl", (0.95, 0.3, 0.95)),
        ("scale_1e-6_bowl", (9.5e-7, 3e-7, 9.5e-7)),
        ("quantized_watermelon", (0.312, 0.144, 0.1851)),
        ("sparse_accessor", (1, 1, 1)),
    ],
)
def test_extents_are_those_of_the_object(
    shared_data: Path, object_id: str, extents: tuple[float, float, float]
) -> None:
    mesh, _ = GlbFolder(shared_data / "objects" / "nasty").load(object_id)
    assert np.allclose(np.ptp(mesh.vertices, axis=0), extents, rtol=1e-3)


def test_webp_cat_is_textured(shared_data: Path) -> None:
    mesh, provenance = GlbFolder(shared_data / "objects" / "good").load("pc_egyptian_cat_statue")
    texture = mesh.materials[0].base_color_texture
    assert texture is not None
    assert texture.pixels[..., :3].std() > 10
    assert "CC-BY-4.0" in provenance["licence"]
    assert "Ankledot" in provenance["author"]
