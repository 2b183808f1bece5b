"""Painted pictures have the colours that materials, light and what lies behind one another give."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from render.appearance import build_surfaces
from render.lighting import DirectionalLight, LightingConfig, lights_in_camera
from render.painting import Painter, PaintingConfig, PosedSurfaces
from render.posing import winding_against_normals
from render.scene import Material, Mesh, Texture
from render.textures import srgb_from_linear

SIZE = 8
DARK = LightingConfig(sky=(0, 0, 0), ground=(0, 0, 0), lights=())
UNLIT = Material(unlit=True)


def square(material: Material = UNLIT, z: float = 0.0, tilt: float = 0.0) -> Mesh:
    """The picture's square at depth z, its front to the viewer; normals tilted about the picture's x axis."""
    vertices = np.array([[-1, -1, z], [1, -1, z], [1, 1, z], [-1, 1, z]], np.float32)
    normal = np.array([0, -np.sin(tilt), -np.cos(tilt)], np.float32)
    return Mesh(
        vertices=vertices,
        faces=np.array([[0, 2, 1], [0, 3, 2]], np.int32),
        normals=np.tile(normal, (4, 1)),
        uvs=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
        colors=np.ones((4, 4), np.float32),
        material_ids=np.zeros(2, np.int32),
        materials=(material,),
    )


def paint(
    *meshes: Mesh, lighting: LightingConfig = DARK, background: int = 0, shadow_texels: int = 0
) -> NDArray[np.uint8]:
    """Paint meshes whose vertices are clip-space positions; returns [H, W, 4]."""
    firsts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    faces = np.concatenate(
        [mesh.faces + np.int32(first) for mesh, first in zip(meshes, firsts, strict=False)]
    )
    vertices = np.concatenate([mesh.vertices for mesh in meshes])
    clip_vertices = np.concatenate([vertices, np.ones_like(vertices[:, :1])], axis=1)
    against = np.concatenate([winding_against_normals(mesh) for mesh in meshes])
    camera_from_world = np.diag([1.0, -1.0, -1.0, 1.0])  # the light's world: +Y up, +Z to the viewer
    painter = Painter(
        build_surfaces(meshes, faces, against),
        lights_in_camera(lighting, camera_from_world),
        PaintingConfig(supersample=2, shadow_texels=shadow_texels, rasterizer="numba"),
    )
    normals = np.concatenate([mesh.normals for mesh in meshes])
    posed = PosedSurfaces(vertices[None], normals[None], clip_vertices[None])
    return painter.paint(posed, np.full((SIZE, SIZE, 3), background, np.uint8))[0]


def code(linear: float) -> int:
    return round(255 * float(srgb_from_linear(np.array(linear))))


def test_unlit_texture_is_shown_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    texture = Texture(pixels, nearest=True)
    picture = paint(square(replace(UNLIT, base_color_texture=texture)))
    assert np.abs(picture.astype(int) - pixels).max() <= 1


def test_factor_texture_and_vertex_colour_multiply_in_linear_light() -> None:
    texture = Texture(np.full((1, 1, 4), 188, np.uint8))  # linear 0.5
    material = replace(UNLIT, base_color_factor=(0.5, 1.0, 1.0, 1.0), base_color_texture=texture)
    mesh = replace(square(material), colors=np.tile(np.array([1, 0.25, 1, 1], np.float32), (4, 1)))
    np.testing.assert_allclose(paint(mesh)[4, 4], [code(0.5 * 0.503), code(0.25 * 0.503), 188, 255], atol=1)


@pytest.mark.parametrize("tilt", [0.0, 0.5, 1.2])
def test_matte_surface_follows_lamberts_law(tilt: float) -> None:
    light = DirectionalLight(towards=(0, 0, 2), color=(0.8, 0.4, 0.2))
    lighting = LightingConfig(sky=(0, 0, 0), ground=(0, 0, 0), lights=(light,), specular=0)
    material = Material(base_color_factor=(0.5, 0.5, 0.5, 1))
    expected = [code(0.5 * channel * np.cos(tilt)) for channel in (0.8, 0.4, 0.2)]
    picture = paint(square(material, tilt=tilt), lighting=lighting)
    np.testing.assert_allclose(picture[4, 4, :3], expected, atol=1)


def test_hemisphere_lights_from_above() -> None:
    lighting = LightingConfig(sky=(0.8, 0.8, 0.8), ground=(0.2, 0.2, 0.2), lights=(), specular=0)
    for tilt, expected in ((0.0, 0.5), (np.pi / 2 - 0.01, 0.8), (-np.pi / 2 + 0.01, 0.2)):
        assert paint(square(Material(), tilt=tilt), lighting=lighting)[4, 4, 0] == pytest.approx(
            code(expected), abs=1
        )


def test_back_of_a_surface_is_lit_as_its_front() -> None:
    lighting = LightingConfig(lights=(DirectionalLight(towards=(0, 0, 1)),))
    front = square(Material())
    back = replace(front, faces=front.faces[:, ::-1].copy(), normals=-front.normals)
    np.testing.assert_array_equal(paint(front, lighting=lighting), paint(back, lighting=lighting))


def test_emission_is_added_to_what_is_lit() -> None:
    texture = Texture(np.full((1, 1, 4), 255, np.uint8))
    material = Material(
        base_color_factor=(1, 1, 1, 1), emissive_factor=(0.25, 0.0, 0.5), emissive_texture=texture
    )
    lighting = LightingConfig(sky=(0.1, 0.1, 0.1), ground=(0.1, 0.1, 0.1), lights=())
    expected = [code(0.35), code(0.1), code(0.6)]
    np.testing.assert_allclose(paint(square(material), lighting=lighting)[4, 4, :3], expected, atol=1)


def test_shadow_falls_where_the_first_light_does_not_reach() -> None:
    """A small screen before a wall darkens the wall beside it, and nothing else."""
    light = DirectionalLight(towards=(0.5, 0, 1), color=(0.6, 0.6, 0.6))
    lighting = LightingConfig(sky=(0.3, 0.3, 0.3), ground=(0.3, 0.3, 0.3), lights=(light,), specular=0)
    wall = square(Material(), z=0.9)
    screen = square(Material())
    screen = replace(screen, vertices=screen.vertices * np.float32([0.2, 0.4, 1]) + np.float32([0.6, 0, 0]))
    picture = paint(wall, screen, lighting=lighting, shadow_texels=128)[..., 0]
    lit = code(0.3 + 0.6 / np.hypot(0.5, 1))
    # The way to the light leans right, so the shadow of the screen at x = 0.6 lies 0.45 to its left.
    np.testing.assert_allclose(picture[4, [0, 1, 2, 4, 6, 7]], [lit, lit, lit, code(0.3), lit, lit], atol=2)
    np.testing.assert_allclose(picture[[0, 1, 6, 7]], lit, atol=2)


def test_unlit_material_ignores_light() -> None:
    assert paint(square(), lighting=DARK)[4, 4, 0] == 255


@pytest.mark.parametrize("nearer_first", [True, False])
def test_blended_surfaces_mix_by_depth_whatever_their_order(nearer_first: bool) -> None:
    red = square(replace(UNLIT, base_color_factor=(1, 0, 0, 0.5), alpha_mode="blend"), z=-0.5)
    green = square(replace(UNLIT, base_color_factor=(0, 1, 0, 0.5), alpha_mode="blend"), z=0.0)
    blue = square(replace(UNLIT, base_color_factor=(0, 0, 1, 1)), z=0.5)
    meshes = (red, green, blue) if nearer_first else (blue, green, red)
    expected = [code(0.5), code(0.25), code(0.25), 255]
    np.testing.assert_allclose(paint(*meshes)[4, 4], expected, atol=1)


def test_what_shines_through_is_the_background_and_alpha_says_how_much() -> None:
    glass = square(replace(UNLIT, base_color_factor=(0, 0, 0, 0.25), alpha_mode="blend"))
    np.testing.assert_allclose(
        paint(glass, background=255)[4, 4], [code(0.75), code(0.75), code(0.75), 64], atol=1
    )


def test_mask_cuts_at_its_cutoff_and_shows_what_is_behind() -> None:
    pixels = np.full((1, 2, 4), 255, np.uint8)
    pixels[0, :, 3] = (120, 135)
    mask = Material(
        unlit=True, base_color_texture=Texture(pixels, nearest=True), alpha_mode="mask", alpha_cutoff=0.5
    )
    behind = square(replace(UNLIT, base_color_factor=(1, 0, 0, 1)), z=0.5)
    picture = paint(square(mask), behind)
    np.testing.assert_array_equal(picture[4, [2, 6]], [[255, 0, 0, 255], [255, 255, 255, 255]])


def test_opaque_material_ignores_alpha() -> None:
    np.testing.assert_array_equal(
        paint(square(replace(UNLIT, base_color_factor=(1, 1, 1, 0))))[4, 4], [255] * 4
    )


def test_single_sided_surface_is_invisible_from_behind() -> None:
    front = square(replace(UNLIT, double_sided=False))
    back = replace(front, faces=front.faces[:, ::-1].copy())
    assert paint(front)[4, 4, 3] == 255
    np.testing.assert_array_equal(paint(back, background=77)[4, 4], [77, 77, 77, 0])


def test_what_is_behind_many_backs_is_seen() -> None:
    """More of them than depth layers: backs are no see-through surfaces, they are not there at all."""
    front = square(replace(UNLIT, double_sided=False), z=0.5)
    back = replace(square(front.materials[0]), faces=front.faces[:, ::-1].copy())
    backs = [
        replace(back, vertices=back.vertices + np.array([0, 0, z], np.float32))
        for z in np.linspace(-0.9, 0.4, 12)
    ]
    np.testing.assert_array_equal(paint(front, *backs), np.full((SIZE, SIZE, 4), 255))


@pytest.mark.parametrize(("w", "front"), [(1.5, [0, 3, 2]), (-0.5, [0, 2, 3])])
def test_back_seen_in_perspective_is_not_drawn(w: float, front: list[int]) -> None:
    """A corner that passes behind the viewer turns the triangle's other side to the picture."""
    for corners, covered in ((front, True), (front[::-1], False)):
        mesh = replace(square(replace(UNLIT, double_sided=False)), faces=np.array([corners], np.int32))
        mesh = replace(mesh, material_ids=np.zeros(1, np.int32))
        painter = Painter(
            build_surfaces([mesh], mesh.faces, winding_against_normals(mesh)),
            lights_in_camera(DARK, np.eye(4)),
            PaintingConfig(rasterizer="numba"),
        )
        depths = np.array([[1], [2], [3], [w]], np.float32)
        clip_vertices = np.concatenate([mesh.vertices * depths, depths], axis=1)[None]
        posed = PosedSurfaces(mesh.vertices[None], mesh.normals[None], clip_vertices)
        picture = painter.paint(posed, np.zeros((SIZE, SIZE, 3), np.uint8))
        assert (picture[..., 3] > 0).any() == covered


@pytest.mark.parametrize("texels", [64, 200, 1024])
def test_fine_texture_does_not_shimmer(texels: int) -> None:
    """A checkerboard finer than pixels is its mean light wherever it moves."""
    row, column = np.indices((texels, texels))
    pixels = np.full((texels, texels, 4), 255, np.uint8)
    pixels[..., :3] *= ((row + column) % 2)[..., None].astype(np.uint8)
    mesh = square(replace(UNLIT, base_color_texture=Texture(pixels)))
    for shift in np.linspace(0, 0.1, 5):
        moved = replace(mesh, vertices=mesh.vertices + np.array([shift, shift / 3, 0], np.float32))
        inside = paint(moved)[1:-1, 1:-1, :3].astype(int)
        assert np.abs(inside - code(0.5)).max() <= 8


def test_half_covered_pixels_are_half_light_and_half_coverage() -> None:
    mesh = square()
    vertices = mesh.vertices.copy()
    vertices[:, 0] = np.where(vertices[:, 0] > 0, 1 / 8, -1)  # the right edge halves column 4
    picture = paint(replace(mesh, vertices=vertices))
    np.testing.assert_allclose(picture[2, 3:6, 3], [255, 128, 0])
    np.testing.assert_allclose(picture[2, 3:6, 0], [255, code(0.5), 0], atol=1)


def test_background_is_kept_where_nothing_is() -> None:
    for background in (0, 1, 77, 255):
        mesh = replace(square(), vertices=square().vertices + np.float32(5))
        np.testing.assert_array_equal(paint(mesh, background=background)[..., :3], background)


def test_painter_forgets_earlier_pictures() -> None:
    mesh = square(replace(UNLIT, base_color_factor=(0, 1, 0, 1)))
    surfaces = build_surfaces([mesh], mesh.faces, winding_against_normals(mesh))
    painter = Painter(surfaces, lights_in_camera(DARK, np.eye(4)), PaintingConfig(rasterizer="numba"))
    clip_vertices = np.concatenate([mesh.vertices, np.ones((4, 1), np.float32)], axis=1)[None]
    for size in (16, 6, 16):
        for offset, coverage in ((0.0, 255), (5.0, 0)):
            moved = clip_vertices + np.array([offset, 0, 0, 0], np.float32)
            background = np.zeros((size, size, 3), np.uint8)
            posed = PosedSurfaces(moved[..., :3], mesh.normals[None], moved)
            picture = painter.paint(posed, background)
            np.testing.assert_array_equal(picture[..., 3], coverage)
