"""Layers have the depth and normals of closed forms, and each part is complete where others hide it."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from render.camera import Crop, crop_camera, project
from render.hands.model import default_hands
from render.layers import LayersConfig, RenderedLayers, render_layers
from render.mlo import confidence, decode_depth, decode_normals, fold_hands
from render.scene import SIDES, STORED_LAYERS, Camera, Clip, HandMotion, Material, Mesh, ObjectMotion
from render.transforms import look_at, rigid

SIZE = 96
CONFIG = LayersConfig(size=SIZE, rasterizer="numba")


def mesh_of(shape: trimesh.Trimesh, smooth: bool) -> Mesh:
    vertices, faces, normals = shape.vertices, shape.faces, shape.vertex_normals
    if not smooth:
        vertices = vertices[faces].reshape(-1, 3)
        normals = np.repeat(shape.face_normals, 3, axis=0)
        faces = np.arange(len(vertices)).reshape(-1, 3)
    return Mesh(
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        normals=normals.astype(np.float32),
        uvs=np.zeros((len(vertices), 2), np.float32),
        colors=np.ones((len(vertices), 4), np.float32),
        material_ids=np.zeros(len(faces), np.int32),
        materials=(Material(),),
    )


def camera_at(eye: tuple[float, float, float]) -> Camera:
    intrinsics = np.array([[150.0, 0, 47.0], [0, 150.0, 48.5], [0, 0, 1]])
    return Camera(SIZE, SIZE, intrinsics, look_at(eye, (0, 0, 0)))


def clip_of(mesh: Mesh, world_from_object: NDArray, **changes: object) -> Clip:
    num_frames = len(world_from_object)
    moving = ObjectMotion(
        "thing", mesh, world_from_object.astype(np.float32), np.ones(num_frames, bool), digest=""
    )
    clip = Clip("clip", 30.0, num_frames, {}, {}, (moving,))
    return replace(clip, **changes)  # type: ignore[arg-type]


def still(num_frames: int = 1) -> NDArray:
    return np.tile(np.eye(4), (num_frames, 1, 1))


def rays(camera: Camera) -> NDArray:
    """Directions [H, W, 3] through pixel centres with z = 1, in camera space."""
    column, row = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    pixels = np.stack([column, row, np.ones_like(row)], axis=-1)
    return pixels @ np.linalg.inv(camera.intrinsics).T


def object_depth(layers: RenderedLayers, frame: int = 0) -> NDArray[np.float32]:
    return decode_depth(layers.depth[frame, 0], layers.near_m, layers.far_m)


def hand_motion(translation: tuple[float, float, float], num_frames: int = 1) -> HandMotion:
    pose = np.zeros((num_frames, 48), np.float32)
    pose[:, 0] = np.pi / 2  # palm towards a camera on the z axis
    return HandMotion(
        pose=pose,
        shape=np.zeros(10, np.float32),
        translation=np.tile(np.array(translation, np.float32), (num_frames, 1)),
        valid=np.ones(num_frames, bool),
    )


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


def test_box_shows_the_flat_faces_that_look_at_the_camera() -> None:
    camera = camera_at((0.3, 0.25, 0.4))
    mesh = mesh_of(trimesh.creation.box(extents=(0.2, 0.1, 0.15)), smooth=False)
    layers = render_layers(clip_of(mesh, still()), camera, {}, CONFIG)
    covered = layers.depth[0, 0] > 0
    points_camera = rays(camera) * object_depth(layers)[..., None]
    world_from_camera = np.linalg.inv(camera.camera_from_world)
    points = (points_camera @ world_from_camera[:3, :3].T + world_from_camera[:3, 3])[covered]
    normals = decode_normals(layers.normals[0, 0])[covered] @ world_from_camera[:3, :3].T
    axis = np.argmax(np.abs(normals), axis=1)
    assert set(axis) == {0, 1, 2}
    np.testing.assert_allclose(normals, np.eye(3)[axis], atol=0.01)  # the three positive sides, seen from +++
    half_extent = np.array([0.1, 0.05, 0.075])
    np.testing.assert_allclose(
        np.take_along_axis(points, axis[:, None], 1)[:, 0], half_extent[axis], atol=1e-5
    )


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
    shift = np.linspace(-0.1, 0.1, 6)  # one and a half batches
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


@pytest.fixture(scope="module")
def two_hands() -> RenderedLayers:
    """Both hands, the right one behind, and a ball between them."""
    camera = camera_at((0.0, 0.0, 0.7))
    clip = clip_of(
        mesh_of(trimesh.creation.icosphere(subdivisions=3, radius=0.04), smooth=True),
        still(),
        hands={"left": hand_motion((-0.02, 0, 0.1)), "right": hand_motion((0.02, 0, -0.1))},
    )
    return render_layers(clip, camera, default_hands(), CONFIG)


def test_every_layer_of_both_hands_is_there(two_hands: RenderedLayers) -> None:
    assert two_hands.depth.shape == (1, len(STORED_LAYERS), SIZE, SIZE)
    assert (two_hands.depth[0] > 0).any(axis=(1, 2)).all()


def test_a_layer_rendered_alone_is_what_it_is_among_others(two_hands: RenderedLayers) -> None:
    """Hidden or not: a right-hand layer has the same pixels when the left hand and the ball are gone."""
    camera = camera_at((0.0, 0.0, 0.7))
    clip = Clip("alone", 30.0, 1, {}, {"right": hand_motion((0.02, 0, -0.1))}, ())
    alone = render_layers(clip, camera, default_hands(), CONFIG)
    np.testing.assert_array_equal(alone.depth[0, 7:] > 0, two_hands.depth[0, 7:] > 0)
    among, by_itself = (decode_depth(x.depth[0, 7:], x.near_m, x.far_m) for x in (two_hands, alone))
    np.testing.assert_allclose(among, by_itself, atol=2e-5)


def test_composite_is_the_nearest_layer(two_hands: RenderedLayers) -> None:
    """The whole scene as one object layer equals, pixel by pixel, the nearest of all layers."""
    hands = default_hands()
    ball = mesh_of(trimesh.creation.icosphere(subdivisions=3, radius=0.04), smooth=True)
    parts = [(ball.vertices, ball.faces)]
    for side, motion in {"left": (-0.02, 0, 0.1), "right": (0.02, 0, -0.1)}.items():
        parts.append((hands[side](hand_motion(motion)).vertices[0], hands[side].faces))  # type: ignore[arg-type]
    joined = trimesh.util.concatenate([trimesh.Trimesh(*part, process=False) for part in parts])
    whole = render_layers(
        clip_of(mesh_of(joined, smooth=True), still()), camera_at((0.0, 0.0, 0.7)), {}, CONFIG
    )
    nearest = np.where(two_hands.depth[0] == 0, 65535, two_hands.depth[0]).min(axis=0)
    composite = np.where(whole.depth[0, 0] == 0, 65535, whole.depth[0, 0])
    assert (composite < 65535).sum() > 1000
    assert (np.abs(composite.astype(int) - nearest) > 2).sum() <= 4


def test_fold_keeps_the_nearer_hand_and_the_order_of_depth(two_hands: RenderedLayers) -> None:
    normals, depth = fold_hands(two_hands.normals, two_hands.depth)
    assert normals.shape == (1, 7, SIZE, SIZE, 3)
    left, right = two_hands.depth[:, 1:7], two_hands.depth[:, 7:]
    both = (left > 0) & (right > 0)
    assert both.any()
    np.testing.assert_array_equal(depth[:, 1:][both], np.minimum(left, right)[both])
    maps = confidence(
        decode_depth(depth, two_hands.near_m, two_hands.far_m), two_hands.near_m, two_hands.far_m
    )
    assert maps[depth > 0].min() >= 0.1 - 1e-6
    assert maps.max() <= 1
    assert maps[0, 1][left[0, 0] > 0].mean() > maps[0, 0][depth[0, 0] > 0].mean()  # left palm before the ball


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


def test_same_clip_gives_the_same_bytes_whatever_the_batch() -> None:
    clip = Clip("hand", 30.0, 5, {}, {"left": hand_motion((0, 0, 0), 5)}, ())
    camera = camera_at((0, 0.1, 0.6))
    rendered = [
        render_layers(clip, camera, default_hands(), CONFIG.model_copy(update={"frames_per_batch": batch}))
        for batch in (1, 3)
    ]
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
