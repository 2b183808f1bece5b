"""HandModel: smplx's conventions, keypoint order, parts, and what each trap of MANO would break."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from render.hands.model import FRAMES_PER_BATCH, HandModel, default_hands
from render.hands.procedural import build_hand
from render.scene import SIDES, HandMotion, Layer


@pytest.fixture(params=SIDES)
def hand(request: pytest.FixtureRequest) -> HandModel:
    return default_hands()[request.param]


def motion(
    count: int = 1,
    pose: NDArray | float = 0.0,
    shape: NDArray | float = 0.0,
    translation: NDArray | float = 0.0,
) -> HandMotion:
    full = np.zeros((count, 48), np.float32) + np.asarray(pose, np.float32)
    betas = np.zeros(10, np.float32) + np.asarray(shape, np.float32)
    return HandMotion(
        full, betas, np.zeros((count, 3), np.float32) + np.float32(translation), np.ones(count, bool)
    )


def random_pose(count: int) -> NDArray:
    return np.random.default_rng(7).normal(0, 0.4, (count, 48))


def test_zero_pose_is_the_template(hand: HandModel) -> None:
    geometry = hand(motion())
    np.testing.assert_allclose(geometry.vertices[0], hand.template, atol=1e-6)
    assert geometry.vertices.dtype == geometry.joints.dtype == geometry.normals.dtype == np.float32


def test_shape_adds_its_directions(hand: HandModel) -> None:
    shape = np.random.default_rng(1).normal(size=10)
    directions = build_hand(hand.side)["shapedirs"]
    geometry = hand(motion(shape=shape))
    np.testing.assert_allclose(geometry.vertices[0], hand.template + directions @ shape, atol=1e-6)


def test_keypoints_are_wrist_thumb_index_middle_ring_little(hand: HandModel) -> None:
    joints = hand(motion()).joints[0]
    mano = {"thumb": 13, "index": 1, "middle": 4, "ring": 10, "little": 7}
    np.testing.assert_allclose(joints[0], hand.rest_joints[0], atol=1e-6)
    for k, first in enumerate(mano.values()):
        np.testing.assert_allclose(
            joints[1 + 4 * k : 4 + 4 * k], hand.rest_joints[first : first + 3], atol=1e-6
        )
        np.testing.assert_allclose(joints[4 + 4 * k], hand.template[hand.tips[k]], atol=1e-6)
    fingers = joints[[5, 9, 13, 17], 2]
    assert (np.diff(fingers) < 0).all()  # index to little, from the thumb's side on


def test_global_rotation_is_about_the_wrist_and_translation_comes_after(hand: HandModel) -> None:
    pose, shape = random_pose(3), np.random.default_rng(2).normal(size=10)
    translation = np.random.default_rng(3).normal(size=(3, 3))
    still = pose.copy()
    still[:, :3] = 0
    posed, rest = hand(motion(3, pose, shape, translation)), hand(motion(3, still, shape))
    wrist = rest.joints[:, :1]  # J0 of this shape
    turn = Rotation.from_rotvec(pose[:, :3]).as_matrix()
    expected = (rest.vertices - wrist) @ turn.swapaxes(1, 2) + wrist + translation[:, None]
    np.testing.assert_allclose(posed.vertices, expected, atol=1e-5)
    assert np.linalg.norm(wrist) > 0.05  # so a rotation about the origin would differ


def test_moving_to_another_frame_needs_the_wrist(hand: HandModel) -> None:
    pose = random_pose(1)
    turn, move = Rotation.from_rotvec([0.3, -0.8, 0.5]), np.array([0.1, -0.2, 0.6])
    world = hand(motion(1, pose, 0.5, 0.2))
    wrist = hand(motion(1, 0.0, 0.5)).joints[0, 0]
    moved_pose = pose.copy()
    moved_pose[:, :3] = (turn * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    translation = turn.apply(wrist + 0.2) + move - wrist
    camera = hand(motion(1, moved_pose, 0.5, translation))
    expected = turn.apply(world.vertices[0].astype(float)) + move
    np.testing.assert_allclose(camera.vertices[0], expected, atol=1e-5)


def test_pose_is_plain_axis_angle_with_no_mean_added(hand: HandModel) -> None:
    turn = np.zeros(48)
    turn[3:6] = [0.2, -0.4, 0.7]  # index 1
    before, after = hand(motion()).joints[0], hand(motion(pose=turn)).joints[0]
    expected = Rotation.from_rotvec(turn[3:6]).apply(before[6:8] - before[5]) + before[5]
    np.testing.assert_allclose(after[6:8], expected, atol=1e-5)
    others = [k for k in range(21) if k not in (6, 7, 8)]
    np.testing.assert_allclose(after[others], before[others], atol=1e-6)


def test_normals_are_unit_and_turn_with_the_hand(hand: HandModel) -> None:
    turn = np.zeros(48)
    turn[:3] = [0.9, -0.3, 0.4]
    rest, turned = hand(motion()).normals[0], hand(motion(pose=turn)).normals[0]
    np.testing.assert_allclose(np.linalg.norm(rest, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(turned, Rotation.from_rotvec(turn[:3]).apply(rest), atol=1e-4)


def test_normals_point_out_of_the_hand(hand: HandModel) -> None:
    middle = hand.template.mean(axis=0)
    back = np.argmax(hand.template[:, 1] - 100 * np.linalg.norm((hand.template - middle)[:, [0, 2]], axis=1))
    assert hand(motion()).normals[0, back, 1] > 0.8


def test_long_clips_equal_their_batches(hand: HandModel) -> None:
    count = FRAMES_PER_BATCH + 3
    pose = random_pose(count)
    whole = hand(motion(count, pose))
    np.testing.assert_array_equal(whole.vertices[-3:], hand(motion(3, pose[-3:])).vertices)
    assert whole.joints.shape == (count, 21, 3)


def test_parts_follow_the_summed_weights() -> None:
    hand = default_hands()["right"]
    rng = np.random.default_rng(4)
    joint_layers = [Layer.PALM] + [
        layer
        for layer in (Layer.INDEX, Layer.MIDDLE, Layer.LITTLE, Layer.RING, Layer.THUMB)
        for _ in range(3)
    ]
    for face in rng.choice(len(hand.faces), 50):
        total = dict.fromkeys(Layer, 0.0)
        for vertex in hand.faces[face]:
            for joint, weight in enumerate(hand.weights[vertex]):
                total[joint_layers[joint]] += float(weight)
        assert hand.parts[face] == max(total, key=lambda layer: total[layer])


def test_default_hands_are_shared() -> None:
    assert default_hands() is default_hands()
    assert [hand.side for hand in default_hands().values()] == list(SIDES)
