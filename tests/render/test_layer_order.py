"""What hides what: parts are complete alone, the nearest is the picture, confidence keeps their order.

Letters: T frames, L layers, H rows, W columns.
"""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from render.camera import project
from render.hands.model import default_hands
from render.hands.poses import articulate, natural_poses
from render.layers import RenderedLayers, render_layers
from render.mlo import confidence, decode_depth, decode_normals, fold_hands
from render.scene import SIDES, STORED_LAYERS, Clip, HandMotion, Layer, Mesh
from render.transforms import look_at, rigid
from tests.render.scenes import CONFIG, SIZE, camera_at, clip_of, hand_motion, mesh_of, rays, still

EMPTY = 65535  # farther than any code that these scenes use


def nearest_code(depth: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Of layers [L, H, W]: the nearest code [H, W], EMPTY where there is none."""
    return np.where(depth == 0, EMPTY, depth).min(axis=0)


def posed_hands(rng: np.random.Generator, apart: float) -> dict[str, HandMotion]:
    """Both hands, each in a natural pose, palms towards a camera on the z axis."""
    hands = {}
    for side, x in zip(SIDES, (-apart / 2, apart / 2), strict=True):
        motion = hand_motion((x, 0, 0.05 * x))
        pose = motion.pose.copy()
        pose[:, 3:] = articulate(*natural_poses(rng, 1), side)
        hands[side] = replace(motion, pose=pose)
    return hands


def as_one_mesh(hands: dict[str, HandMotion], *others: trimesh.Trimesh) -> Mesh:
    """All surfaces as they are in frame 0, as one object."""
    parts = list(others)
    for side, motion in hands.items():
        model = default_hands()[side]
        parts.append(trimesh.Trimesh(model(motion).vertices[0], model.faces, process=False))
    return mesh_of(trimesh.util.concatenate(parts), smooth=True)


@pytest.fixture(scope="module")
def two_hands() -> RenderedLayers:
    """Both hands, the right one behind, and a ball between them."""
    ball = mesh_of(trimesh.creation.icosphere(subdivisions=3, radius=0.04), smooth=True)
    hands = {"left": hand_motion((-0.02, 0, 0.1)), "right": hand_motion((0.02, 0, -0.1))}
    clip = clip_of(ball, still(), hands=hands)
    return render_layers(clip, camera_at((0.0, 0.0, 0.7)), default_hands(), CONFIG)


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


def test_hands_behind_a_wall_keep_every_layer_whole() -> None:
    """The composite shows nothing but wall; palm and fingers are as they are without it."""
    hands = posed_hands(np.random.default_rng(0), apart=0.16)
    wall = mesh_of(trimesh.creation.box(extents=(2, 2, 0.01)).apply_translation((0, 0, 0.3)), smooth=False)
    camera = camera_at((0, 0, 0.7))
    hidden = render_layers(clip_of(wall, still(), hands=hands), camera, default_hands(), CONFIG)
    alone = render_layers(Clip("open", 30.0, 1, {}, hands, ()), camera, default_hands(), CONFIG)
    np.testing.assert_array_equal(nearest_code(hidden.depth[0]), hidden.depth[0, 0])  # wall everywhere
    np.testing.assert_array_equal(hidden.depth[0, 1:] > 0, alone.depth[0, 1:] > 0)
    np.testing.assert_array_equal(hidden.normals[0, 1:], alone.normals[0, 1:])
    assert (alone.depth[0, 1:] > 0).any(axis=(1, 2)).all()


def test_composite_is_the_nearest_layer(two_hands: RenderedLayers) -> None:
    """The whole scene as one object layer equals, pixel by pixel, the nearest of all layers."""
    hands = {"left": hand_motion((-0.02, 0, 0.1)), "right": hand_motion((0.02, 0, -0.1))}
    joined = as_one_mesh(hands, trimesh.creation.icosphere(subdivisions=3, radius=0.04))
    whole = render_layers(clip_of(joined, still()), camera_at((0.0, 0.0, 0.7)), {}, CONFIG)
    composite = np.where(whole.depth[0, 0] == 0, EMPTY, whole.depth[0, 0])
    assert (composite < EMPTY).sum() > 1000
    assert (np.abs(composite.astype(int) - nearest_code(two_hands.depth[0])) > 2).sum() <= 4


@pytest.mark.parametrize("apart", [0.16, 0.03])  # side by side, and through one another
@pytest.mark.parametrize("eye", [(0.0, 0.0, 0.6), (0.4, 0.3, -0.3)])
def test_parts_of_hands_join_without_holes(apart: float, eye: tuple[float, float, float]) -> None:
    """Palms, fingers and both hands together are the whole, at their seams too: not a pixel more or less."""
    hands = posed_hands(np.random.default_rng(1), apart)
    parts = render_layers(Clip("parts", 30.0, 1, {}, hands, ()), camera_at(eye), default_hands(), CONFIG)
    whole = render_layers(clip_of(as_one_mesh(hands), still()), camera_at(eye), {}, CONFIG)
    covered = whole.depth[0, 0] > 0
    assert covered.sum() > 500
    np.testing.assert_array_equal((parts.depth[0, 1:] > 0).any(axis=0), covered)
    difference = nearest_code(parts.depth[0, 1:]).astype(int) - np.where(covered, whole.depth[0, 0], EMPTY)
    assert np.abs(difference).max() <= 2
    seams = (parts.depth[0, 1:] > 0).sum(axis=0)
    assert (seams[covered] >= 2).any()  # a part that goes on under another: layers, not a cut-out


def test_a_mirrored_hand_has_mirrored_layers() -> None:
    right = posed_hands(np.random.default_rng(2), apart=0.0)["right"]
    mirror = np.tile([1.0, -1.0, -1.0], 16).astype(np.float32)
    left = replace(right, pose=right.pose * mirror)
    camera = camera_at((0, 0, 0.5))
    centred = replace(camera, intrinsics=np.array([[150.0, 0, 47.5], [0, 150.0, 48.5], [0, 0, 1]]))
    rendered = {
        side: render_layers(Clip(side, 30.0, 1, {}, {side: motion}, ()), centred, default_hands(), CONFIG)
        for side, motion in {"left": left, "right": right}.items()
    }
    of_left, of_right = rendered["left"].depth[0, 1:7], rendered["right"].depth[0, 7:, :, ::-1]
    covered = of_right > 0
    assert covered.any(axis=(1, 2)).all()
    assert ((of_left > 0) != covered).sum() <= 0.01 * covered.sum()  # rounding to the grid has a direction
    mirrored = decode_normals(rendered["right"].normals[0, 7:, :, ::-1]) * (-1, 1, 1)
    both = covered & (of_left > 0)
    difference = np.abs(decode_normals(rendered["left"].normals[0, 1:7]) - mirrored)[both]
    assert np.quantile(difference, 0.99) < 0.02


def test_normals_of_a_hand_are_smooth() -> None:
    """From pixel to pixel they turn far less than facets do: they are the vertices', interpolated."""
    hands = {"right": hand_motion((0, 0, 0))}
    config = CONFIG.model_copy(update={"size": 2 * SIZE})
    camera = camera_at((0.0, 0.0, 0.35))
    close = replace(camera, width=2 * SIZE, height=2 * SIZE, intrinsics=camera.intrinsics * [[2], [2], [1]])
    layers = render_layers(Clip("hand", 30.0, 1, {}, hands, ()), close, default_hands(), config)
    palm = 7 + Layer.PALM - 1
    normals, covered = decode_normals(layers.normals[0, palm]), layers.depth[0, palm] > 0
    beside = covered[:, 1:] & covered[:, :-1]
    turn = np.degrees(np.arccos(np.clip((normals[:, 1:] * normals[:, :-1]).sum(-1)[beside], -1, 1)))
    model = default_hands()["right"]
    facets = trimesh.Trimesh(model.template, model.faces[model.parts == Layer.PALM], process=False)
    assert np.median(turn) < 0.2 * np.degrees(np.median(facets.face_adjacency_angles))
    assert np.quantile(turn, 0.99) < np.degrees(np.quantile(facets.face_adjacency_angles, 0.99))


def test_fold_keeps_the_nearer_hand_and_the_order_of_depth(two_hands: RenderedLayers) -> None:
    normals, depth = fold_hands(two_hands.normals, two_hands.depth)
    assert normals.shape == (1, 7, SIZE, SIZE, 3)
    left, right = two_hands.depth[:, 1:7], two_hands.depth[:, 7:]
    both = (left > 0) & (right > 0)
    assert both.any()
    np.testing.assert_array_equal(depth[:, 1:][both], np.minimum(left, right)[both])
    np.testing.assert_array_equal(nearest_code(depth[0]), nearest_code(two_hands.depth[0]))
    maps = confidence(
        decode_depth(depth, two_hands.near_m, two_hands.far_m), two_hands.near_m, two_hands.far_m
    )
    assert maps[0, 1][left[0, 0] > 0].mean() > maps[0, 0][depth[0, 0] > 0].mean()  # left palm before the ball


@pytest.fixture(scope="module")
def receding() -> tuple[RenderedLayers, NDArray[np.float32]]:
    """A ball that flies away beside a hand that keeps still, and the confidence maps [T, L, H, W] of it."""
    num_frames = 6
    away = np.zeros((num_frames, 3))
    away[:, 0], away[:, 2] = -0.12, np.linspace(0.2, -0.6, num_frames)
    poses = rigid(np.tile(np.eye(3), (num_frames, 1, 1)), away)
    ball = mesh_of(trimesh.creation.icosphere(subdivisions=3, radius=0.04), smooth=True)
    hands = {"right": hand_motion((0.05, 0, 0), num_frames)}
    clip = clip_of(ball, poses, hands=hands)
    layers = render_layers(clip, camera_at((0, 0, 0.7)), default_hands(), CONFIG)
    depth = decode_depth(layers.depth, layers.near_m, layers.far_m)
    return layers, confidence(depth, layers.near_m, layers.far_m)


def test_confidence_spans_a_clip_from_a_tenth_to_one(
    receding: tuple[RenderedLayers, NDArray[np.float32]],
) -> None:
    layers, maps = receding
    covered = layers.depth > 0
    np.testing.assert_array_equal(maps[~covered], 0)
    assert maps[0].max() > 0.99  # the ball's front in the first frame is what is nearest in the clip
    assert 0.1 <= maps[covered].min() < 0.2  # the ball at its farthest


def test_confidence_of_what_keeps_still_does_not_flicker(
    receding: tuple[RenderedLayers, NDArray[np.float32]],
) -> None:
    _, maps = receding
    assert (maps[0, 7:] > 0).any()
    np.testing.assert_array_equal(maps[:, 7:], np.broadcast_to(maps[0, 7:], maps[:, 7:].shape))


def test_confidence_falls_as_the_ball_recedes_and_orders_layers_by_depth(
    receding: tuple[RenderedLayers, NDArray[np.float32]],
) -> None:
    layers, maps = receding
    nearest = maps[:, 0].max(axis=(1, 2))
    assert (np.diff(nearest) < -0.05).all()
    np.testing.assert_allclose(np.diff(nearest), np.diff(nearest).mean(), atol=1e-3)  # linear in depth
    order = np.argsort(layers.depth, axis=1, kind="stable")
    sorted_maps = np.take_along_axis(maps, order, axis=1)
    sorted_depth = np.take_along_axis(layers.depth, order, axis=1)
    covered = sorted_depth[:, :-1] > 0
    assert (np.diff(sorted_maps, axis=1)[covered] <= 0).all()


def test_depth_at_a_metre_is_stored_to_a_tenth_of_a_millimetre_before_a_wall_ten_metres_away() -> None:
    tilted = trimesh.Trimesh(
        [[-1, -1, -0.8], [1, -1, -1.2], [1, 1, -1.2], [-1, 1, -0.8]], [[0, 1, 2], [0, 2, 3]]
    )
    wall = trimesh.Trimesh([[-9, -9, -10], [9, -9, -10], [9, 9, -10], [-9, 9, -10]], [[0, 1, 2], [0, 2, 3]])
    looking = replace(camera_at((0, 0, 1)), camera_from_world=look_at((0, 0, 0), (0, 0, -1)))
    scene = mesh_of(trimesh.util.concatenate([tilted, wall]), smooth=True)
    layers = render_layers(clip_of(scene, still()), looking, {}, CONFIG)
    assert layers.far_m == pytest.approx(10.0)
    direction = rays(looking)  # z = 1; world −Z is the camera's +Z
    exact = 1.0 / (1 - 0.2 * direction[..., 0])  # depth d with d = 1 + 0.2 x and x = d · direction
    seen = decode_depth(layers.depth, layers.near_m, layers.far_m)[0, 0]
    middle = (np.abs(exact * direction[..., 0]) < 0.9) & (np.abs(exact * direction[..., 1]) < 0.9)
    assert middle.all()
    assert np.abs(seen - exact).max() < 1e-4


def test_a_point_of_a_layer_projects_back_to_its_pixel(two_hands: RenderedLayers) -> None:
    camera = camera_at((0.0, 0.0, 0.7))
    depth = decode_depth(two_hands.depth[0, 0], two_hands.near_m, two_hands.far_m)
    row, column = np.nonzero(depth)
    points = rays(camera)[row, column] * depth[row, column, None]
    pixels, _ = project(points, replace(camera, camera_from_world=np.eye(4)))
    np.testing.assert_allclose(pixels, np.stack([column, row], axis=1), atol=1e-6)
    assert (np.linalg.norm(points - (0, 0, 0.7), axis=1) <= 0.0401).all()  # on the ball
