"""Layers have the depth and normals of closed forms, frame by frame and whatever the batch."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from render.camera import Crop, crop_camera, project
from render.hands.model import default_hands
from render.layers import LayersConfig, RenderedLayers, render_layers
from render.mlo import decode_depth, decode_normals
from render.rasterizers.numba import NumbaRasterizer
from render.scene import SIDES, Camera, Clip
from render.transforms import look_at, rigid
from tests.render.scenes import CONFIG, SIZE, camera_at, clip_of, hand_motion, mesh_of, rays, still


def object_depth(layers: RenderedLayers, frame: int = 0) -> NDArray[np.float32]:
    return decode_depth(layers.depth[frame, 0], layers.near_m, layers.far_m)


def test_sphere_has_the_depth_and_normals_of_a_sphere() -> None:
    radius, camera = 0.1, camera_at((0.1, 0.2, 0.5))
    mesh = mesh_of(trimesh.creation.icosphere(subdivisions=5, radius=radius), smooth=True)
    layers = render_layers(clip_of(mesh, still()), camera, {}, CONFIG)
    centre = camera.camera_from_world[:3, 3]
    direction = rays(camera)
    half_b, length2 = direction @ centre, (direction**2).sum(-1)
    discriminant = half_b**2 - length2 * (centre @ centre - radius**2)
    inner = discriminant > 0.004  # the silhouette's pixels depend on the tessellation
    depth = (half_b - np.sqrt(np.maximum(discriminant, 0))) / length2
    normals = (direction * depth[..., None] - centre) / radius
    assert inner.sum() > 500
    np.testing.assert_allclose(object_depth(layers)[inner], depth[inner], atol=6e-5)
    np.testing.assert_allclose(decode_normals(layers.normals[0, 0])[inner], normals[inner], atol=0.008)
    np.testing.assert_array_equal(layers.depth[0, 0][discriminant < -0.002], 0)
    np.testing.assert_array_equal(layers.depth[0, 1:], 0)


def test_tilted_plane_has_exact_depth_and_one_normal() -> None:
    camera = camera_at((0.0, 0.3, 0.6))
    plane = trimesh.Trimesh([[-2, 0, -0.4], [2, 0, -0.4], [2, 0, 0.4], [-2, 0, 0.4]], [[0, 2, 1], [0, 3, 2]])
    layers = render_layers(clip_of(mesh_of(plane, smooth=True), still()), camera, {}, CONFIG)
    up = camera.camera_from_world[:3, 1]  # world's +Y in camera space
    depth = (camera.camera_from_world[:3, 3] @ up) / (rays(camera) @ up)
    covered = layers.depth[0, 0] > 0
    assert covered.mean() > 0.3
    step = (layers.far_m - layers.near_m) / 65534
    np.testing.assert_allclose(object_depth(layers)[covered], depth[covered], atol=0.5 * step + 1e-6)
    normals = decode_normals(layers.normals[0, 0])[covered]
    np.testing.assert_allclose(normals, np.broadcast_to(up, normals.shape), atol=0.5 / 127 + 1e-6)


def test_box_has_exact_depth_and_the_normals_of_its_sides() -> None:
    camera = camera_at((0.3, 0.25, 0.4))
    mesh = mesh_of(trimesh.creation.box(extents=(0.2, 0.1, 0.15)), smooth=False)
    layers = render_layers(clip_of(mesh, still()), camera, {}, CONFIG)
    eye = -camera.camera_from_world[:3, :3].T @ camera.camera_from_world[:3, 3]
    direction = rays(camera) @ camera.camera_from_world[:3, :3]  # [H, W, 3] in the world
    # Slabs: the ray enters the box where it has entered all three; seen from +++ through the positive sides.
    enters = (np.array([0.1, 0.05, 0.075]) - eye) / direction
    leaves = (-np.array([0.1, 0.05, 0.075]) - eye) / direction
    depth, side = enters.max(axis=-1), enters.argmax(axis=-1)
    inside = depth < leaves.min(axis=-1)
    covered = layers.depth[0, 0] > 0
    assert (covered != inside).sum() < 0.01 * inside.sum()  # the silhouette, where edges are snapped
    both = covered & inside
    second, first = np.sort(enters[both], axis=-1)[:, 1:].T
    sure = first - second > 0.004  # pixels that are not beside an inner edge
    assert set(side[both][sure]) == {0, 1, 2}
    step = (layers.far_m - layers.near_m) / 65534
    np.testing.assert_allclose(object_depth(layers)[both][sure], depth[both][sure], atol=0.5 * step + 1e-6)
    normals = decode_normals(layers.normals[0, 0])[both] @ camera.camera_from_world[:3, :3]
    np.testing.assert_allclose(normals[sure], np.eye(3)[side[both][sure]], atol=0.5 * np.sqrt(3) / 127)


def test_normals_of_an_object_are_the_authored_ones() -> None:
    """A flat square whose normals lean to its corners is lit like a pillow, not like a square."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], float)
    square = mesh_of(trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]]), smooth=True)
    leaning = np.column_stack([corners[:, :2], np.full(4, 2.0)]) / np.sqrt(6)
    camera = camera_at((0, 0, 2.5))
    layers = render_layers(
        clip_of(replace(square, normals=leaning.astype(np.float32)), still()), camera, {}, CONFIG
    )
    covered = layers.depth[0, 0] > 0
    points = rays(camera) * 2.5  # the camera looks along −Z, its y is the world's −Y
    pillow = points * (1, 1, 0) + (0, 0, -2)
    pillow /= np.linalg.norm(pillow, axis=-1, keepdims=True)
    assert covered.mean() > 0.5
    np.testing.assert_allclose(decode_normals(layers.normals[0, 0])[covered], pillow[covered], atol=0.006)


@pytest.mark.parametrize("inside_out", [False, True])
def test_open_surface_turns_its_normals_to_the_viewer(inside_out: bool) -> None:
    plane = trimesh.Trimesh([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]])
    mesh = mesh_of(plane, smooth=True)
    if inside_out:  # a mirrored node: winding turns, authored normals do not
        mesh = replace(mesh, faces=np.ascontiguousarray(mesh.faces[:, ::-1]))
    for eye in ((0, 0, 0.5), (0, 0, -0.5)):
        layers = render_layers(clip_of(mesh, still()), camera_at(eye), {}, CONFIG)
        centre = decode_normals(layers.normals[0, 0])[SIZE // 2, SIZE // 2]
        np.testing.assert_allclose(centre, [0, 0, -1], atol=1e-6)


def test_object_follows_its_motion_frame_by_frame() -> None:
    shift = np.linspace(-0.1, 0.1, 6)
    poses = rigid(np.eye(3), np.stack([shift, np.zeros(6), np.zeros(6)], axis=1))
    mesh = mesh_of(trimesh.creation.icosphere(subdivisions=3, radius=0.03), smooth=True)
    camera = camera_at((0, 0, 0.6))
    layers = render_layers(clip_of(mesh, poses), camera, {}, CONFIG)
    for frame in range(6):
        row, column = np.nonzero(layers.depth[frame, 0])
        expected, _ = project(np.array([shift[frame], 0, 0]), camera)
        np.testing.assert_allclose([column.mean(), row.mean()], expected, atol=0.3)


def test_invalid_frames_are_empty_and_others_are_not() -> None:
    mesh = mesh_of(trimesh.creation.box(extents=(0.1, 0.1, 0.1)), smooth=False)
    clip = clip_of(mesh, still(3))
    clip = replace(clip, objects=(replace(clip.objects[0], valid=np.array([True, False, True])),))
    layers = render_layers(clip, camera_at((0, 0, 0.6)), {}, CONFIG)
    np.testing.assert_array_equal(layers.depth.any(axis=(1, 2, 3)), [True, False, True])


def test_clip_without_anything_has_empty_layers_and_no_joints() -> None:
    layers = render_layers(Clip("empty", 30.0, 2, {}, {}, ()), camera_at((0, 0, 1)), {}, CONFIG)
    assert not layers.depth.any()
    assert not layers.normals.any()
    assert np.isnan(layers.joints_2d).all()
    assert layers.far_m > layers.near_m > 0


def test_joints_project_into_their_own_layers() -> None:
    """Cropping and resizing a camera keeps layers and joints together."""
    intrinsics = np.array([[500.0, 0, 320], [0, 500.0, 240], [0, 0, 1]])
    full = Camera(640, 480, intrinsics, look_at((0, 0.1, 0.6), (0, 0, 0)))
    camera = crop_camera(full, Crop(180, 90, 300), SIZE)
    hands = default_hands()
    motion = {side: hand_motion((0.0, 0.0, 0.0)) for side in SIDES}
    layers = render_layers(Clip("hands", 30.0, 1, {}, motion, ()), camera, hands, CONFIG)
    for index, side in enumerate(SIDES):
        joints = hands[side](motion[side]).joints[0]
        pixels, depth = project(joints, full)
        expected = (pixels + 0.5 - (180, 90)) * SIZE / 300 - 0.5
        np.testing.assert_allclose(layers.joints_2d[0, index], expected, atol=1e-3)
        np.testing.assert_allclose(layers.joints_3d_camera[0, index, :, 2], depth, atol=1e-5)
        inner = [5, 6, 9, 10, 13, 14, 17, 18]  # knuckles and middle joints lie inside the hand
        column, row = np.rint(layers.joints_2d[0, index, inner]).astype(int).T
        own = slice(1 + 6 * index, 7 + 6 * index)
        assert (layers.depth[0, own][:, row, column] > 0).any(axis=0).all()


def test_same_clip_gives_the_same_bytes_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip("hand", 30.0, 5, {}, {"left": hand_motion((0, 0, 0), 5)}, ())
    camera = camera_at((0, 0.1, 0.6))
    rendered = []
    for batch in (1, 3):
        monkeypatch.setattr(NumbaRasterizer, "frames_at_once", lambda *_, batch=batch: batch)
        rendered.append(render_layers(clip, camera, default_hands(), CONFIG))
    assert rendered[0].depth.tobytes() == rendered[1].depth.tobytes()
    assert rendered[0].normals.tobytes() == rendered[1].normals.tobytes()


def test_camera_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="96 by 96"):
        render_layers(Clip("c", 30.0, 1, {}, {}, ()), camera_at((0, 0, 1)), {}, LayersConfig(size=64))


def test_stray_and_broken_vertices_do_not_stretch_the_depth_range() -> None:
    box = mesh_of(trimesh.creation.box(extents=(0.1, 0.1, 0.1)), smooth=False)
    stray = {
        "vertices": [[0, 0, 30], [np.nan, 0, 0]],  # no face uses the first, one broken face the second
        "normals": [[0, 0, 1]] * 2,
        "uvs": [[0, 0]] * 2,
        "colors": [[1, 1, 1, 1]] * 2,
    }
    joined = {key: np.concatenate([getattr(box, key), np.float32(value)]) for key, value in stray.items()}
    broken_face = np.array([[0, 1, len(box.vertices) + 1]], np.int32)
    mesh = replace(
        box,
        **joined,
        faces=np.concatenate([box.faces, broken_face]),
        material_ids=np.zeros(len(box.faces) + 1, np.int32),
    )
    camera = camera_at((0.3, 0.25, 0.4))
    clean, odd = (render_layers(clip_of(m, still()), camera, {}, CONFIG) for m in (box, mesh))
    assert (odd.near_m, odd.far_m) == (clean.near_m, clean.far_m)
    np.testing.assert_array_equal(odd.depth, clean.depth)
    np.testing.assert_array_equal(odd.normals, clean.normals)


def test_object_through_the_camera_is_drawn_from_the_nearest_distance_on() -> None:
    tube = mesh_of(trimesh.creation.box(extents=(0.1, 0.1, 4.0)), smooth=False)
    layers = render_layers(clip_of(tube, still()), camera_at((0.0, 0.0, 1.0)), {}, CONFIG)
    assert layers.near_m == pytest.approx(CONFIG.nearest_m)
    assert layers.far_m == pytest.approx(3.0, rel=1e-4)
    covered = object_depth(layers)[layers.depth[0, 0] > 0]
    assert covered.min() >= CONFIG.nearest_m
    assert covered.max() <= 3.0 + 1e-4
