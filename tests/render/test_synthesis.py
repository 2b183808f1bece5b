"""Synthetic sessions: contact where hands hold, none at the ends, rigid holds, everything in the pictures."""

from functools import cache

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from render.actions import TIMES, Action, ActionConfig, resting_poses
from render.camera import Crop, crop_camera, project
from render.choreography import Hold, Leg, ease, hand_track, object_motion
from render.grasp import Grasp, GraspConfig
from render.hands.model import default_hands
from render.layers import LayersConfig, render_layers
from render.occlusion import count_hidden, hidden_shares
from render.procedural_objects import procedural_object
from render.rig import OPEN
from render.scene import SIDES, STORED_LAYERS, Mesh
from render.synthesis import (
    SynthesisConfig,
    SyntheticObject,
    SyntheticSession,
    graspable,
    synthesize_clip,
)
from render.transforms import invert_rigid, rigid, transform

NUM_FRAMES = 48
ACTIONS: dict[Action, str] = {
    "lift": "bottle",
    "support": "teapot",
    "pass": "can",
    "twist": "cup",
    "one_hand": "ball",
}


def make_object(kind: str, seed: int = 0) -> SyntheticObject:
    return SyntheticObject(kind, procedural_object(kind, np.random.default_rng(seed)), digest="0" * 64)


def settings(action: Action, num_frames: int = NUM_FRAMES, contact_m: float = 0.0015) -> SynthesisConfig:
    return SynthesisConfig(
        num_frames=num_frames,
        width=96,
        height=72,
        num_cameras=2,
        action=ActionConfig(actions=(action,), grasp=GraspConfig(num_candidates=12, contact_m=contact_m)),
    )


@cache
def session(action: Action) -> SyntheticSession:
    """The first of a few sessions in which the action is not made simpler for want of a second hold."""
    for seed in range(6):
        item = make_object(ACTIONS[action], seed)
        made = synthesize_clip(item, default_hands(), seed, settings(action))
        if made.report.action == action:
            return made
    raise AssertionError(f"no session of six became a {action}")


@cache
def hand_surfaces(action: Action) -> dict[str, np.ndarray]:
    clip = session(action).clip
    return {side: default_hands()[side](clip.hands[side]).vertices for side in SIDES}


@pytest.mark.parametrize("action", ACTIONS)
def test_hands_touch_while_they_hold_and_not_at_the_ends(action: Action) -> None:
    report = session(action).report
    touches = np.asarray(report.touching.any(axis=-1))  # [T, S]
    assert report.holding.any()
    assert touches[report.holding].mean() > 0.95
    assert not touches[0].any()
    assert not touches[-1].any()
    first = SIDES.index(report.grasps[0].side)
    held = report.holding[:, first]
    assert report.touching[held, first].sum(axis=-1).min() >= 3


@pytest.mark.parametrize("action", ACTIONS)
def test_hands_do_not_enter_the_object(action: Action) -> None:
    report = session(action).report
    assert report.penetration_m.max() < 0.01
    assert report.penetration_m[report.holding].max() <= GraspConfig().max_penetration_m


@pytest.mark.parametrize("action", ["lift", "support", "pass", "one_hand"])
def test_hand_is_rigid_with_the_object_while_it_holds(action: Action) -> None:
    clip, report = session(action).clip, session(action).report
    for column, side in enumerate(SIDES):
        held = np.flatnonzero(report.holding[:, column])
        if not len(held):
            continue
        object_from_world = invert_rigid(clip.objects[0].world_from_object[held].astype(np.float64))
        local = transform(object_from_world, hand_surfaces(action)[side][held])
        assert np.abs(local - local[0]).max() < 2e-4


def test_passed_object_changes_hands() -> None:
    report = session("pass").report
    first, second = (SIDES.index(grasp.side) for grasp in report.grasps)
    assert first != second
    start, end = (np.flatnonzero(report.holding[:, column]) for column in (first, second))
    assert start[0] < end[0] < start[-1] < end[-1]  # both hold it for a while


def test_twisting_hand_turns_about_the_object() -> None:
    clip, report = session("twist").clip, session("twist").report
    side = report.grasps[1].side
    held = np.flatnonzero(report.holding[:, SIDES.index(side)])
    world_from_object = clip.objects[0].world_from_object[held].astype(np.float64)
    local = transform(invert_rigid(world_from_object), hand_surfaces("twist")[side][held])
    moved = np.linalg.norm(local - local[0], axis=-1).max(axis=-1)  # [frames]
    assert moved.max() > 0.005
    assert np.ptp(local[..., 1], axis=0).max() < 2e-4  # about the upright axis


@pytest.mark.parametrize("action", ACTIONS)
def test_everything_is_in_every_picture(action: Action) -> None:
    clip = session(action).clip
    item = clip.objects[0]
    points = [transform(item.world_from_object, item.mesh.vertices), *hand_surfaces(action).values()]
    for camera in clip.cameras.values():
        for part in points:
            pixels, depth = project(part.reshape(-1, 3), camera)
            inside = (pixels > -0.5) & (pixels < np.array([camera.width, camera.height]) - 0.5)
            assert inside.all(axis=-1).mean() > 0.99
            assert depth.min() > 0.2


@pytest.mark.parametrize("action", ACTIONS)
def test_motion_is_smooth_and_above_the_table(action: Action) -> None:
    item = session(action).clip.objects[0]
    bodies = [transform(item.world_from_object, item.mesh.vertices), *hand_surfaces(action).values()]
    for body in bodies:
        steps = np.linalg.norm(np.diff(body, axis=0), axis=-1)
        assert steps.max() < 0.08 * 72 / NUM_FRAMES  # metres a frame; a clip is three seconds long
        assert body[..., 1].min() > -0.01
    lifted = bodies[0][..., 1].min(axis=1)
    assert lifted[0] == pytest.approx(0, abs=1e-4)
    assert lifted[-1] == pytest.approx(0, abs=1e-4)
    assert lifted.max() > 0.03


def test_fingers_hide_behind_the_object_and_each_other() -> None:
    clip, report = session("lift").clip, session("lift").report
    frame = int(np.flatnonzero(report.holding.all(axis=1))[0])
    camera = crop_camera(next(iter(clip.cameras.values())), Crop(12, 0, 72), 72)
    layers = render_layers(clip, camera, default_hands(), LayersConfig(size=72, rasterizer="numba"))
    depth = layers.depth[frame].astype(np.int64)  # [L, H, W], 0 where empty
    nearest = np.where(depth > 0, depth, np.iinfo(np.int64).max).min(axis=0)
    fingers = [
        row for row, name in enumerate(STORED_LAYERS) if name not in ("object", "left_palm", "right_palm")
    ]
    seen = np.count_nonzero(depth[fingers])
    hidden = np.count_nonzero((depth[fingers] > 0) & (depth[fingers] > nearest + 10))
    assert seen > 50
    assert 0.1 < hidden / seen < 0.9


def test_seed_decides_the_session() -> None:
    def make(seed: int) -> SyntheticSession:
        return synthesize_clip(make_object("can"), default_hands(), seed, settings("one_hand", 16))

    first, again, other = make(1), make(1), make(2)
    for name, camera in first.clip.cameras.items():
        np.testing.assert_array_equal(camera.camera_from_world, again.clip.cameras[name].camera_from_world)
        np.testing.assert_array_equal(first.clip.backgrounds[name], again.clip.backgrounds[name])
    for side in SIDES:
        np.testing.assert_array_equal(first.clip.hands[side].pose, again.clip.hands[side].pose)
        assert not np.allclose(first.clip.hands[side].pose, other.clip.hands[side].pose)
        assert not np.allclose(first.clip.hands[side].shape, other.clip.hands[side].shape)


def test_participant_and_studio_can_be_shared_by_sessions() -> None:
    config = settings("one_hand", 16).model_copy(update={"participant": "p", "studio": "s"})
    first, other = (synthesize_clip(make_object("can"), default_hands(), seed, config) for seed in (1, 2))
    np.testing.assert_array_equal(first.clip.hands["left"].shape, other.clip.hands["left"].shape)
    assert first.lighting == other.lighting
    assert first.clip.participant == other.clip.participant == "p"


def test_object_of_any_unit_becomes_graspable() -> None:
    mesh = make_object("can").mesh
    config = SynthesisConfig()
    assert graspable(mesh, config) is mesh
    for factor in (1e-6, 100.0, 1e6):
        scaled = graspable(_scaled(mesh, factor), config)
        extents = np.ptp(scaled.vertices, axis=0)
        assert extents.max() <= config.scaled_extent_m * 1.001
        assert extents.min() <= config.max_grip_m * 1.001
        assert extents.max() > 0.05


def test_object_that_no_hand_can_hold_is_named() -> None:
    few = settings("one_hand", 16, contact_m=-1.0)  # nothing counts as touching
    grasp = few.action.grasp.model_copy(update={"num_candidates": 2})
    nothing_touches = few.model_copy(update={"action": few.action.model_copy(update={"grasp": grasp})})
    with pytest.raises(ValueError, match=r"^mug: no hand finds a grasp"):
        synthesize_clip(make_object("mug"), default_hands(), 0, nothing_touches)


def test_long_objects_lie_and_others_stand_on_the_table() -> None:
    for kind, lies in (("screwdriver", True), ("hammer", True), ("mug", False), ("ball", False)):
        mesh = make_object(kind).mesh
        rest, upright = resting_poses(mesh, np.random.default_rng(0))
        assert (abs(rest[1, 1]) < 0.1) == lies
        for pose in (rest, upright):
            assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
            assert transform(pose, mesh.vertices)[:, 1].min() == pytest.approx(0, abs=1e-6)
        heights = np.ptp(transform(upright, mesh.vertices), axis=0)
        assert heights[1] == pytest.approx(np.ptp(mesh.vertices, axis=0).max())


def test_object_moves_through_its_poses_and_rests_between_legs() -> None:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 1, 3] = 0.0, 0.1, 0.3
    motion = object_motion([Leg(4, 10, poses[:2]), Leg(12, 20, poses[1:])], 24)
    np.testing.assert_allclose(motion[:5, 1, 3], 0)
    np.testing.assert_allclose(motion[10:13, 1, 3], 0.1)
    np.testing.assert_allclose(motion[20:, 1, 3], 0.3)
    assert (np.diff(motion[:, 1, 3]) >= -1e-12).all()
    np.testing.assert_allclose(ease(np.array([-1.0, 0.0, 0.5, 1.0, 2.0])), [0, 0, 0.5, 1, 1])


def test_clasping_hands_hold_from_the_first_frame_to_the_last_and_hide_each_other_s_fingers() -> None:
    grasp = GraspConfig(num_candidates=8, interlock=6)
    config = settings("clasp", num_frames=16).model_copy(
        update={"action": ActionConfig(actions=("clasp",), grasp=grasp), "num_cameras": 1}
    )
    made = synthesize_clip(make_object("box"), default_hands(), 2, config)
    assert made.report.action == "clasp"
    (item,) = made.clip.objects
    heights = transform(item.world_from_object, item.mesh.vertices)[..., 1]  # [T, V]
    assert heights.min() > 0.01, "in the air all the time"
    assert made.report.holding.all()
    assert made.report.touching.any(axis=-1).all()
    camera = crop_camera(next(iter(made.clip.cameras.values())), Crop(12, 0, 72), 72)
    layers = render_layers(made.clip, camera, default_hands(), LayersConfig(size=72))
    nearness = np.where(layers.depth > 0, 1 - layers.depth / 65536, 0)
    shares = hidden_shares(count_hidden(nearness))
    assert shares["hidden"] > 0.15
    assert shares["by_other_hand"] > 0.01


@pytest.mark.parametrize(("attempts", "action"), [(1, "one_hand"), (6, "clasp")])
def test_grasps_are_sought_anew_until_the_action_is_possible(attempts: int, action: Action) -> None:
    unlucky = ActionConfig(actions=("clasp",), grasp=GraspConfig(num_candidates=1), attempts=attempts)
    config = settings("clasp", num_frames=16).model_copy(update={"action": unlucky, "num_cameras": 1})
    assert synthesize_clip(make_object("mug"), default_hands(), 2, config).report.action == action


def test_times_are_in_order_and_a_second_hand_comes_when_the_first_has_closed() -> None:
    for action, times in TIMES.items():
        if action == "clasp":  # both hands hold before the clip begins
            continue
        for hold in times.holds:
            assert 0 < hold[0] < hold[1] < hold[2] < hold[3] < 1
        if len(times.holds) == 2:
            assert times.holds[0][1] <= times.holds[1][0]
        ends = [end for leg in times.legs for end in leg]
        assert ends == sorted(ends)


def _scaled(mesh: Mesh, factor: float | np.ndarray) -> Mesh:
    return Mesh(**{**mesh.__dict__, "vertices": (mesh.vertices * factor).astype(np.float32)})


def test_reaching_hand_does_not_change_its_way_round_when_its_turn_passes_half_a_circle() -> None:
    angles = np.deg2rad(np.linspace(170, 190, 81))
    turn = Rotation.from_rotvec(angles[:, None] * [0.0, 1.0, 0.0]).as_matrix()
    world_from_object = rigid(turn, np.tile([0.0, 0.2, 0.0], (81, 1)))
    grasp = Grasp("right", np.eye(4), OPEN, np.array([0.0, 1.0, 0.0]), np.ones(5, bool), 1.0, 0.0, 0.0)
    hold = Hold(grasp, arrive=50, closed=51, release=52, leave=53)  # half a circle in frame 40, on the way
    _, wrists = hand_track([hold], world_from_object, np.tile(np.eye(4), (81, 1, 1)), (0.0, 0.1))
    rotations = Rotation.from_matrix(wrists[:, :3, :3])
    assert np.rad2deg((rotations[1:] * rotations[:-1].inv()).magnitude()).max() < 25
