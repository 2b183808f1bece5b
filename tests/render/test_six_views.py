"""Six views show the right sides the right way up; canonical meshes and points are where they should be."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from render.lighting import UNLIT
from render.scene import Material, Mesh
from render.six_views import VIEWS, SixViewConfig, canonicalize, render_six_views, sample_points

CONFIG = SixViewConfig(size=64, rasterizer="numba")
SIDES = {  # outward axis of each side of the box and its colour
    "front": ((0, 0, 1), (1, 0, 0)),
    "back": ((0, 0, -1), (0, 1, 0)),
    "left": ((-1, 0, 0), (0, 0, 1)),
    "right": ((1, 0, 0), (1, 1, 0)),
    "top": ((0, 1, 0), (0, 1, 1)),
    "bottom": ((0, -1, 0), (1, 0, 1)),
}


def flat_mesh(shape: trimesh.Trimesh, face_colors: np.ndarray, unlit: bool) -> Mesh:
    vertices = shape.vertices[shape.faces].reshape(-1, 3)
    colors = np.concatenate([np.repeat(face_colors, 3, axis=0), np.ones((len(vertices), 1))], axis=1)
    return Mesh(
        vertices=vertices.astype(np.float32),
        faces=np.arange(len(vertices), dtype=np.int32).reshape(-1, 3),
        normals=np.repeat(shape.face_normals, 3, axis=0).astype(np.float32),
        uvs=np.zeros((len(vertices), 2), np.float32),
        colors=colors.astype(np.float32),
        material_ids=np.zeros(len(shape.faces), np.int32),
        materials=(Material(unlit=unlit),),
    )


def coloured_box(unlit: bool = False) -> Mesh:
    box = trimesh.creation.box(extents=(1, 1, 1))
    axes, colors = (np.array(column, float) for column in zip(*SIDES.values(), strict=True))
    side = np.argmax(box.face_normals @ axes.T, axis=1)
    return flat_mesh(box, colors[side], unlit)


@pytest.mark.parametrize("unlit", [True, False])
def test_each_view_shows_its_own_side(unlit: bool) -> None:
    mesh, *_ = canonicalize(coloured_box(unlit))
    views = render_six_views(mesh, CONFIG)
    assert views.shape == (6, 64, 64, 4)
    for view, name in zip(views, VIEWS, strict=True):
        centre = view[32, 32, :3].astype(int)
        wanted = np.array(SIDES[name][1]) > 0
        assert centre[wanted].min() > 150, name
        assert centre[~wanted].max() < 100, name


@pytest.mark.parametrize(
    ("name", "right", "up"),
    [
        ("front", (1, 0, 0), (0, 1, 0)),
        ("back", (-1, 0, 0), (0, 1, 0)),
        ("left", (0, 0, 1), (0, 1, 0)),
        ("right", (0, 0, -1), (0, 1, 0)),
        ("top", (1, 0, 0), (0, 0, -1)),
        ("bottom", (1, 0, 0), (0, 0, 1)),
    ],
)
def test_each_view_has_its_right_and_up(
    name: str, right: tuple[int, int, int], up: tuple[int, int, int]
) -> None:
    """A bar from the middle along a direction is seen on that side of the picture."""
    for direction, row_sign, column_sign in ((right, 0, 1), (up, -1, 0)):
        bar = trimesh.creation.box(extents=0.1 + 0.8 * np.abs(direction))
        bar.apply_translation(0.4 * np.array(direction))
        mesh = flat_mesh(bar, np.zeros((12, 3)), unlit=True)
        view = render_six_views(mesh, CONFIG)[list(VIEWS).index(name)]
        row, column = np.nonzero(view[..., 3])
        middle = np.array([row.mean(), column.mean()]) - 31.5
        np.testing.assert_allclose(middle, np.array([row_sign, column_sign]) * 0.4 * 32 / 1.04, atol=0.6)


def test_unlit_views_have_the_base_colours() -> None:
    mesh, *_ = canonicalize(coloured_box())
    views = render_six_views(mesh, CONFIG.model_copy(update={"lighting": UNLIT}))
    for view, name in zip(views, VIEWS, strict=True):
        np.testing.assert_array_equal(view[32, 32, :3], 255 * np.array(SIDES[name][1]))


def test_all_views_have_one_scale() -> None:
    mesh, *_ = canonicalize(flat_mesh(trimesh.creation.box(extents=(0.4, 0.2, 0.1)), np.ones((12, 3)), True))
    covered = render_six_views(mesh, CONFIG)[..., 3] > 127
    widths, heights = covered.any(axis=1).sum(axis=1), covered.any(axis=2).sum(axis=1)
    pixels = np.array([0.4, 0.2, 0.1]) / np.linalg.norm([0.2, 0.1, 0.05]) * 32 / 1.04
    np.testing.assert_allclose(widths, pixels[[0, 0, 2, 2, 0, 0]], atol=1.5)
    np.testing.assert_allclose(heights, pixels[[1, 1, 1, 1, 2, 2]], atol=1.5)


def test_background_is_the_configured_colour_and_alpha_is_zero_there() -> None:
    mesh, *_ = canonicalize(coloured_box())
    views = render_six_views(mesh, CONFIG.model_copy(update={"background": (10, 20, 30)}))
    np.testing.assert_array_equal(views[:, 0, 0], [[10, 20, 30, 0]] * 6)


def test_colours_at_the_outline_are_the_objects_own() -> None:
    """Straight alpha: a half covered pixel is as bright as its neighbour, whatever lies behind."""
    ball = trimesh.creation.icosphere(subdivisions=3)
    orange = np.tile([1.0, 0.2, 0.0], (len(ball.faces), 1))
    unlit = CONFIG.model_copy(update={"lighting": UNLIT})
    views = render_six_views(flat_mesh(ball, orange, unlit=True), unlit)
    partly = (views[..., 3] > 0) & (views[..., 3] < 255)
    assert partly.sum() > 100
    colors = views[views[..., 3] > 0][:, :3].astype(int)
    assert (np.abs(colors - colors[0]) <= 1).all()
    assert tuple(colors[0]) != unlit.background


def test_canonical_mesh_is_centred_with_radius_one() -> None:
    box = coloured_box()
    moved = replace(box, vertices=box.vertices * np.float32([0.4, 0.2, 0.1]) + np.float32([5, -2, 3]))
    mesh, scale_m, centre = canonicalize(moved)
    np.testing.assert_allclose(mesh.vertices.min(axis=0), -mesh.vertices.max(axis=0), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), 1, atol=1e-5)
    assert scale_m == pytest.approx(np.linalg.norm([0.2, 0.1, 0.05]), rel=1e-5)
    np.testing.assert_allclose(mesh.vertices * scale_m + centre, moved.vertices, atol=1e-6)


def test_vertices_without_a_face_do_not_count() -> None:
    box = coloured_box()
    stray = {"vertices": [[9, 9, 9]], "normals": [[0, 0, 1]], "uvs": [[0, 0]], "colors": [[1, 1, 1, 1]]}
    joined = {key: np.concatenate([getattr(box, key), np.float32(value)]) for key, value in stray.items()}
    assert canonicalize(replace(box, **joined))[1] == pytest.approx(np.sqrt(0.75), rel=1e-5)


@pytest.mark.parametrize("fault", ["no faces", "not finite", "single point"])
def test_mesh_that_has_no_extent_is_an_error(fault: str) -> None:
    box = coloured_box()
    broken = {
        "no faces": replace(box, faces=np.zeros((0, 3), np.int32)),
        "not finite": replace(box, vertices=np.full_like(box.vertices, np.nan)),
        "single point": replace(box, vertices=np.zeros_like(box.vertices)),
    }[fault]
    with pytest.raises(ValueError, match=fault):
        canonicalize(broken)


def test_points_lie_on_the_surface_evenly_by_area() -> None:
    box = trimesh.creation.box(extents=(2.0, 1.0, 0.5))
    points = sample_points(flat_mesh(box, np.ones((12, 3)), True), np.random.default_rng(0), 20_000)
    assert points.dtype == np.float32
    half = np.array([1.0, 0.5, 0.25])
    on_side = np.isclose(np.abs(points), half, atol=1e-6)
    assert on_side.any(axis=1).all()
    areas = 2 * np.array([1.0 * 0.5, 2.0 * 0.5, 2.0 * 1.0])
    np.testing.assert_allclose(on_side.sum(axis=0) / 20_000, areas / areas.sum(), atol=0.02)
    top = points[on_side[:, 2] & (points[:, 2] > 0)]
    counts, *_ = np.histogram2d(top[:, 0], top[:, 1], bins=4, range=[[-1, 1], [-0.5, 0.5]])
    assert counts.min() > 0.7 * counts.mean()


def test_same_seed_draws_the_same_points() -> None:
    mesh = coloured_box()
    first, second = (sample_points(mesh, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (2048, 3)
