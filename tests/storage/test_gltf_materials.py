"""Materials of GLB files: factors, textures and their coordinates as glTF defines them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from render.lighting import UNLIT
from render.six_views import SixViewConfig, canonicalize, render_six_views
from storage.sources.glb import load_glb, read_object

if TYPE_CHECKING:
    from conftest import Builder


def test_texture_takes_its_own_coordinates_through_its_transform(tmp_path: Path, builder: "Builder") -> None:
    uvs = np.array([[0, 0], [1, 0], [0, 1]], np.float32)
    attributes = {
        "POSITION": builder.accessor(builder.TRIANGLE),
        "TEXCOORD_0": builder.accessor(np.full((3, 2), 9, np.float32)),
        "TEXCOORD_1": builder.accessor(uvs),
    }
    source = builder.picture(np.zeros((2, 2, 4), np.uint8))
    # The extension's own example: the lower left quadrant, turned by a quarter.
    transform = {"offset": [0, 1], "rotation": np.pi / 2, "scale": [0.5, 0.5], "texCoord": 1}
    reference = {"index": 0, "extensions": {"KHR_texture_transform": transform}}
    material = {"pbrMetallicRoughness": {"baseColorTexture": reference}, "emissiveTexture": {"index": 0}}
    tree = builder.one_primitive(attributes=attributes, material=0) | {"materials": [material]}
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


def test_webp_texture_wins_over_its_fallback(tmp_path: Path, builder: "Builder") -> None:
    red = np.tile(np.array([255, 0, 0, 255], np.uint8), (4, 4, 1))
    webp, png = builder.picture(red, "WEBP"), builder.picture(red[..., ::-1].copy())
    attributes = {
        "POSITION": builder.accessor(builder.TRIANGLE),
        "TEXCOORD_0": builder.accessor(builder.TRIANGLE[:, :2].copy()),
    }
    tree = builder.one_primitive(attributes=attributes, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]}
    tree |= {"textures": [{"source": png, "extensions": {"EXT_texture_webp": {"source": webp}}}]}
    texture = load_glb(builder.save(tmp_path / "a.glb", **tree)).materials[0].base_color_texture
    assert texture is not None
    assert np.array_equal(texture.pixels, red)


def test_sixteen_bit_grey_texture_keeps_its_range(tmp_path: Path, builder: "Builder") -> None:
    source = builder.picture(np.array([[0, 32896], [65535, 257]], np.uint16))
    attributes = {
        "POSITION": builder.accessor(builder.TRIANGLE),
        "TEXCOORD_0": builder.accessor(builder.TRIANGLE[:, :2].copy()),
    }
    tree = builder.one_primitive(attributes=attributes, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}]}
    read = load_glb(builder.save(tmp_path / "a.glb", **tree, textures=[{"source": source}]))
    texture = read.materials[0].base_color_texture
    assert texture is not None
    assert np.array_equal(texture.pixels[..., 0], [[0, 128], [255, 1]])


def test_specular_glossiness_becomes_base_color(tmp_path: Path, builder: "Builder") -> None:
    gloss = {"diffuseFactor": [0.2, 0.4, 0.6, 0.5], "specularFactor": [0.0, 0.0, 0.0]}
    metal = {"diffuseFactor": [0.0, 0.0, 0.0, 1.0], "specularFactor": [0.9, 0.6, 0.1]}
    attributes = {"POSITION": builder.accessor(builder.TRIANGLE)}
    tree = builder.one_primitive() | {
        "meshes": [{"primitives": [{"attributes": attributes, "material": k} for k in range(2)]}],
        "materials": [{"extensions": {"KHR_materials_pbrSpecularGlossiness": g}} for g in (gloss, metal)],
    }
    plastic, golden = load_glb(builder.save(tmp_path / "a.glb", **tree)).materials
    assert np.allclose(plastic.base_color_factor, (0.2 / 0.96, 0.4 / 0.96, 0.6 / 0.96, 0.5), atol=1e-5)
    assert np.allclose(golden.base_color_factor[:3], (0.9, 0.6, 0.1), atol=0.05)


def test_emissive_strength_and_unlit(tmp_path: Path, builder: "Builder") -> None:
    extensions = {"KHR_materials_emissive_strength": {"emissiveStrength": 4}, "KHR_materials_unlit": {}}
    material = {"emissiveFactor": [0.25, 0.5, 1], "extensions": extensions}
    tree = builder.triangle(material=0) | {"materials": [material]}
    (read,) = load_glb(builder.save(tmp_path / "a.glb", **tree)).materials
    assert read.emissive_factor == (1, 2, 4)
    assert read.unlit


def test_texture_without_coordinates_leaves_the_factor(tmp_path: Path, builder: "Builder") -> None:
    source = builder.picture(np.zeros((2, 2, 4), np.uint8))
    color = {"baseColorTexture": {"index": 0}, "baseColorFactor": [1, 0, 0, 1]}
    tree = builder.triangle(material=0) | {"materials": [{"pbrMetallicRoughness": color}]}
    path = builder.save(tmp_path / "a.glb", **tree, textures=[{"source": source}])
    mesh, provenance = read_object(path)
    (read,) = mesh.materials
    assert read.base_color_texture is None
    assert read.base_color_factor == (1, 0, 0, 1)
    assert provenance["left_out"] == "textures of 1 of 1 parts, without coordinates"


@pytest.mark.parametrize(
    ("wrap", "stripes"),
    [(10497, "GRGR"), (33648, "GGRR"), (33071, "GGGG")],
)
def test_file_is_drawn_as_its_sampler_and_transform_say(
    tmp_path: Path, builder: "Builder", wrap: int, stripes: str
) -> None:
    """u runs from 0.5 to 2.5 over a texture of a red and a green half."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    attributes = {
        "POSITION": builder.accessor(corners),
        "TEXCOORD_0": builder.accessor(np.full((4, 2), 9, np.float32)),
        "TEXCOORD_1": builder.accessor((corners[:, :2] + 1) / 2),
    }
    indices = builder.accessor(np.array([0, 1, 2, 0, 2, 3], np.uint16))
    source = builder.picture(np.array([[[255, 0, 0, 255], [0, 255, 0, 255]]], np.uint8))
    transform = {"scale": [2, 1], "offset": [0.5, 0]}
    use = {"index": 0, "texCoord": 1, "extensions": {"KHR_texture_transform": transform}}
    tree = builder.one_primitive(attributes=attributes, indices=indices, material=0)
    tree |= {"materials": [{"pbrMetallicRoughness": {"baseColorTexture": use}}]}
    tree |= {"textures": [{"source": source, "sampler": 0}], "samplers": [{"wrapS": wrap, "magFilter": 9728}]}
    mesh, *_ = canonicalize(load_glb(builder.save(tmp_path / "a.glb", **tree)))
    front = render_six_views(mesh, SixViewConfig(size=64, lighting=UNLIT, rasterizer="numba"))[0]
    colors = {"R": [255, 0, 0, 255], "G": [0, 255, 0, 255]}
    places = np.array([-0.75, -0.25, 0.25, 0.75]) / np.sqrt(2) * 32 / 1.04 + 31.5
    seen = front[32, np.rint(places).astype(int)]
    np.testing.assert_array_equal(seen, [colors[stripe] for stripe in stripes])
