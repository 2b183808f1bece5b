"""Procedural objects: closed, outward, graspable, textured, and different from every side."""

import numpy as np
import pytest
from numpy.typing import NDArray

from render.procedural_objects import OBJECT_KINDS, procedural_object
from render.procedural_shapes import box, extrude, revolve, sweep
from render.scene import Mesh


def draw(kind: str | int, seed: int = 0) -> Mesh:
    return procedural_object(kind, np.random.default_rng(seed))


def signed_volume(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> float:
    """Volume by the divergence theorem: positive when faces are counter-clockwise from outside."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def open_area(mesh: Mesh) -> float:
    """Length of the sum of area vectors: zero for closed surfaces."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]].astype(np.float64) for i in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a).sum(axis=0)) / 2)


@pytest.mark.parametrize("kind", OBJECT_KINDS)
def test_object_is_a_closed_outward_surface_with_unit_normals(kind: str) -> None:
    mesh = draw(kind)
    assert signed_volume(mesh.vertices, mesh.faces) > 1e-5  # more than 10 ml
    assert open_area(mesh) < 1e-6
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-5)
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    face_normals = np.cross(b - a, c - a)
    assert (np.linalg.norm(face_normals, axis=1) > 0).all()
    assert (np.einsum("fc,fkc->fk", face_normals, mesh.normals[mesh.faces]) > 0).all()


@pytest.mark.parametrize("kind", OBJECT_KINDS)
def test_object_can_be_held(kind: str) -> None:
    for seed in range(5):
        mesh = draw(kind, seed)
        extents = np.sort(np.ptp(mesh.vertices, axis=0))
        np.testing.assert_allclose(mesh.vertices.min(axis=0), -mesh.vertices.max(axis=0), atol=1e-6)
        assert 0.015 < extents[0] < 0.10
        assert extents[2] < 0.25


@pytest.mark.parametrize("kind", OBJECT_KINDS)
def test_object_is_textured_with_every_index_in_range(kind: str) -> None:
    mesh = draw(kind)
    assert len(mesh.material_ids) == len(mesh.faces)
    assert mesh.material_ids.max() < len(mesh.materials)
    assert mesh.faces.max() < len(mesh.vertices)
    assert mesh.uvs.min() >= 0
    assert mesh.uvs.max() <= 1
    textures = [m.base_color_texture for m in mesh.materials if m.base_color_texture is not None]
    assert max(np.ptp(texture.pixels[..., :3].astype(int)) for texture in textures) > 40


def side_colors(mesh: Mesh, axis: int, sign: int) -> NDArray[np.float64]:
    """Sorted brightness of the texture on the first material's faces that look along an axis."""
    a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    facing = sign * normal[:, axis] > 0.9 * np.linalg.norm(normal, axis=1)
    colors = []
    for face in np.flatnonzero(facing & (mesh.material_ids == 0)):
        texture = mesh.materials[0].base_color_texture
        assert texture is not None
        uv = np.random.default_rng(0).dirichlet((1, 1, 1), 40) @ mesh.uvs[mesh.faces[face]]
        size = texture.pixels.shape[0]
        rows, columns = np.clip((uv[:, ::-1] * size).astype(int), 0, size - 1).T
        colors.append(texture.pixels[rows, columns, :3])
    return np.sort(np.concatenate(colors).astype(float).mean(axis=1))


@pytest.mark.parametrize("kind", ["mug", "can", "box", "cube", "bottle"])
def test_front_back_left_and_right_look_different(kind: str) -> None:
    mesh = draw(kind, 2)
    sides = [side_colors(mesh, axis, sign) for axis, sign in ((2, 1), (2, -1), (0, -1), (0, 1))]
    profiles = [np.interp(np.linspace(0, 1, 20), np.linspace(0, 1, len(side)), side) for side in sides]
    differences = [np.abs(p - q).max() for i, p in enumerate(profiles) for q in profiles[:i]]
    assert min(differences) > 10


def test_kinds_count_round_and_an_unknown_kind_is_an_error() -> None:
    assert len(OBJECT_KINDS) >= 12
    np.testing.assert_array_equal(draw(len(OBJECT_KINDS)).vertices, draw(OBJECT_KINDS[0]).vertices)
    with pytest.raises(ValueError, match="piano"):
        draw("piano")


def test_seed_decides_the_object() -> None:
    first, again, other = draw("mug", 1), draw("mug", 1), draw("mug", 2)
    np.testing.assert_array_equal(first.vertices, again.vertices)
    assert not np.array_equal(first.vertices, other.vertices)


def test_turned_cylinder_has_the_volume_of_its_polygon_and_hard_rims() -> None:
    part = revolve([[0, 0], [2, 0], [2, 3], [0, 3]], segments=32)
    polygon = 0.5 * 32 * 4 * np.sin(2 * np.pi / 32)
    assert signed_volume(part.vertices, part.faces) == pytest.approx(3 * polygon)
    assert set(np.round(np.abs(part.normals[:, 1]), 6)) == {0.0, 1.0}


def test_turned_sphere_has_radial_normals_and_reads_unmirrored_from_the_front() -> None:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 41)
    part = revolve(np.stack([np.cos(angle), np.sin(angle)], axis=-1))
    assert np.einsum("vc,vc->v", part.normals, part.vertices).min() > 0.995
    front = part.vertices[:, 2] > 0.7
    assert np.corrcoef(part.vertices[front, 0], part.uvs[front, 0])[0, 1] > 0.9  # right is +u
    assert np.corrcoef(part.vertices[front, 1], part.uvs[front, 1])[0, 1] < -0.9  # down is +v


def test_swept_straight_rod_is_a_closed_cylinder() -> None:
    part = sweep(np.linspace((0, 0, 0), (0, 5, 0), 4), (1, 1), (0, 0, 1))
    assert signed_volume(part.vertices, part.faces) == pytest.approx(5 * np.pi, rel=0.03)


def test_swept_ring_has_the_volume_of_a_torus() -> None:
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    circle = 3 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)
    part = sweep(circle, (1, 1), (0, 0, 1), closed=True)
    assert signed_volume(part.vertices, part.faces) == pytest.approx(2 * np.pi**2 * 3, rel=0.03)


def test_box_and_extruded_square_are_the_same_solid() -> None:
    square = [[-1, -2], [1, -2], [1, 2], [-1, 2]]
    for part in (box((2, 4, 6)), extrude(square, 6)):
        assert signed_volume(part.vertices, part.faces) == pytest.approx(48)
        assert np.abs(part.normals).max(axis=1).min() == pytest.approx(1)


def test_every_box_face_has_its_own_cell_of_the_atlas() -> None:
    part = box((1, 1, 1))
    cells = np.floor(part.uvs * [3, 2]).reshape(6, 4, 2)
    assert (cells == cells[:, :1]).all()
    assert len(np.unique(cells[:, 0], axis=0)) == 6
