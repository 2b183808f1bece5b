"""Anatomical angles, the procedural pose space, and what they do to the hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from render.hands.model import HandGeometry, HandModel, default_hands
from render.hands.poses import (
    FLEXION_LIMITS,
    MIRROR,
    SPREAD_LIMITS,
    TWIST_LIMITS,
    articulate,
    joint_frames,
    natural_poses,
    pose_space,
)
from render.scene import SIDES, HandMotion

BONES = [(0, 1), (1, 2), (2, 3), (0, 5), (5, 6), (6, 7), (0, 9), (9, 10), (10, 11)]
BONES += [(0, 13), (13, 14), (14, 15), (0, 17), (17, 18), (18, 19)]
KEYPOINT_TIPS = {"thumb": 4, "index": 8, "middle": 12, "ring": 16, "little": 20}


def posed(hand: HandModel, pose: NDArray) -> HandGeometry:
    """The hand in poses [T, 45], at its rest place."""
    count = len(pose)
    full = np.concatenate([np.zeros((count, 3)), pose], axis=1).astype(np.float32)
    translation = np.zeros((count, 3), np.float32)
    return hand(HandMotion(full, np.zeros(10, np.float32), translation, np.ones(count, bool)))


def bent(side: str, digit: int, degrees: float) -> NDArray:
    flexion = np.zeros((1, 5, 3))
    flexion[0, digit] = np.radians(degrees)
    return articulate(flexion, np.zeros((1, 5)), np.zeros((1, 5)), side)


def test_joint_frames_are_right_handed_and_follow_the_bones() -> None:
    frames = joint_frames()
    np.testing.assert_allclose(
        frames @ frames.swapaxes(-1, -2), np.broadcast_to(np.eye(3), (5, 3, 3, 3)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(frames), 1)
    assert (frames[:, :, 2, 0] < -0.6).all()  # distal is towards −x
    assert (frames[:4, :, 1, 1] > 0.9).all()  # a finger's back is the hand's


def test_no_angles_are_the_rest_pose() -> None:
    np.testing.assert_array_equal(
        articulate(np.zeros((2, 5, 3)), np.zeros((2, 5)), np.zeros((2, 5)), "right"), 0
    )


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("digit", range(4))
def test_flexion_brings_a_fingers_tip_to_the_palm(side: str, digit: int) -> None:
    hand = default_hands()[side]
    tip = KEYPOINT_TIPS[("index", "middle", "little", "ring")[digit]]
    palm_center = hand.rest_joints[[0, 1, 4, 7, 10]].mean(axis=0)
    flat, half, closed = (posed(hand, bent(side, digit, angle)).joints[0, tip] for angle in (0.0, 30.0, 75.0))
    assert half[1] < flat[1] - 0.02  # the palm faces −y
    away = [np.linalg.norm(point - palm_center) for point in (flat, half, closed)]
    assert away[0] > away[1] > away[2]
    assert away[2] < 0.055


def test_positive_rotation_about_z_closes_the_right_hand_and_opens_the_left() -> None:
    pose = np.zeros((1, 15, 3))
    pose[0, :12, 2] = 0.5
    right, left = (posed(default_hands()[side], pose.reshape(1, 45)).joints[0] for side in ("right", "left"))
    assert right[12, 1] < -0.03 < 0.03 < left[12, 1]


def test_thumb_opposes_the_fingers() -> None:
    flexion = np.radians(
        np.array([[[48, 45, 25], [30, 25, 12], [10, 15, 8], [20, 20, 10], [22, 25, 30]]], float)
    )
    pose = articulate(flexion, np.zeros((1, 5)), np.radians([[0, 0, 0, 0, 25.0]]), "right")
    joints = posed(default_hands()["right"], pose).joints[0]
    assert np.linalg.norm(joints[4] - joints[8]) < 0.03  # pinch: the tips nearly touch
    rest = posed(default_hands()["right"], np.zeros((1, 45))).joints[0]
    assert np.linalg.norm(rest[4] - rest[8]) > 0.07


def test_positive_spread_turns_fingers_to_the_thumbs_side() -> None:
    for side in SIDES:
        pose = articulate(np.zeros((1, 5, 3)), np.full((1, 5), 0.2), np.zeros((1, 5)), side)
        hand = default_hands()[side]
        moved = posed(hand, pose).joints[0] - posed(hand, np.zeros((1, 45))).joints[0]
        assert (moved[[8, 12, 16, 20], 2] > 0.008).all()


def test_left_pose_is_the_mirror_image() -> None:
    angles = natural_poses(np.random.default_rng(1), 5)
    right = posed(default_hands()["right"], articulate(*angles, "right"))
    left = posed(default_hands()["left"], articulate(*angles, "left"))
    np.testing.assert_allclose(left.vertices, right.vertices * [-1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(left.joints, right.joints * [-1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(left.normals, right.normals * [-1, 1, 1], atol=1e-4)


def test_natural_poses_keep_to_the_joints_limits() -> None:
    flexion, spread, twist = natural_poses(np.random.default_rng(2), 500)
    for angles, limits in ((flexion, FLEXION_LIMITS), (spread, SPREAD_LIMITS), (twist, TWIST_LIMITS)):
        assert (angles >= limits[..., 0]).all()
        assert (angles <= limits[..., 1]).all()
    assert np.ptp(flexion[:, :4], axis=0).min() > np.radians(45)  # and use them


@pytest.mark.parametrize("side", SIDES)
def test_pose_space_is_orthonormal_with_wide_components_first(side: str) -> None:
    mean, components = pose_space(side)
    np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-9)
    poses = articulate(*natural_poses(np.random.default_rng(3), 1000), side) - mean
    variance = ((poses @ components.T) ** 2).mean(axis=0)
    assert variance[:9].sum() > 0.9 * variance.sum()
    assert variance[0] > variance[2] > variance[8]


def test_left_pose_space_mirrors_the_right() -> None:
    mirror = np.tile(MIRROR, 15)
    (left_mean, left), (right_mean, right) = pose_space("left"), pose_space("right")
    np.testing.assert_allclose(left_mean, right_mean * mirror, atol=1e-12)
    # The last components span what no pose uses: there any basis is as good.
    np.testing.assert_allclose(left[:15], right[:15] * mirror, atol=1e-6)


def test_samples_of_the_pose_space_are_hands() -> None:
    hand = default_hands()["right"]
    natural = articulate(*natural_poses(np.random.default_rng(4), 300), "right")
    spread = ((natural - hand.mean_pose) @ hand.pca.T)[:, :15].std(axis=0)
    draws = np.random.default_rng(5).standard_normal((40, 15)).clip(-1.5, 1.5) * spread
    poses = hand.mean_pose + draws @ hand.pca[:15]
    angles = Rotation.from_rotvec(poses.reshape(-1, 3)).magnitude()
    assert angles.max() < np.radians(135)
    geometry, rest = posed(hand, poses), posed(hand, np.zeros((1, 45)))
    for start, end in BONES:
        length = np.linalg.norm(geometry.joints[:, end] - geometry.joints[:, start], axis=1)
        np.testing.assert_allclose(
            length, np.linalg.norm(rest.joints[0, end] - rest.joints[0, start]), rtol=1e-4
        )
    assert (np.linalg.norm(geometry.joints - geometry.joints[:, :1], axis=-1) < 0.21).all()


def test_mean_pose_is_a_half_closed_hand() -> None:
    hand = default_hands()["right"]
    rest = posed(hand, np.zeros((1, 45))).joints[0]
    mean = posed(hand, hand.mean_pose[None]).joints[0]
    for tip in (8, 12, 16, 20):
        assert 0.02 < rest[tip, 1] - mean[tip, 1] < 0.09


def test_a_fist_keeps_the_fingers_volume() -> None:
    hand = default_hands()["right"]
    flexion = np.radians(np.array([[[80, 95, 60]] * 4 + [[10, 10, 10]]], float))
    fist = posed(hand, articulate(flexion, np.zeros((1, 5)), np.zeros((1, 5)), "right")).vertices[0]
    rest = posed(hand, np.zeros((1, 45))).vertices[0]
    for layer in (3, 4, 5, 6):
        own = hand.faces[hand.parts == layer]
        assert volume(fist, own) == pytest.approx(volume(rest, own), rel=0.25)


def volume(points: NDArray, faces: NDArray) -> float:
    """Of an open surface, closed by a fan to the centre of its border."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    present = {tuple(edge) for edge in edges}
    border = np.unique([start for start, end in present if (end, start) not in present])
    a, b, c = (points[faces[:, corner]] - points[border].mean(axis=0) for corner in range(3))
    return float(np.einsum("fc,fc->", a, np.cross(b, c)) / 6)
