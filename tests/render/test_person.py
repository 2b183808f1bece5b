"""The synthetic person: arms of constant length that end at the wrists, limbs where the joints are."""

import numpy as np
import pytest

from render.camera import project
from render.person import (
    FOREARM_M,
    UPPER_ARM_M,
    body_bounds,
    body_joints,
    body_objects,
    person_keypoints,
    tapered_limb,
)
from render.scene import SIDES
from render.skeleton import KEYPOINTS
from render.stage import place_camera
from render.transforms import transform

SKIN = np.array([0.5, 0.3, 0.2])


def reaching(distance_m: float) -> dict[str, np.ndarray]:
    """Joints of a person whose hands move up before the chest, or reach far ahead."""
    ahead, aside = distance_m - 0.46, np.array([0.15, 0, 0])
    middle = np.linspace([0.0, 0.2, ahead], [0.0, 0.3, ahead], 5)
    return body_joints({"left": middle + aside, "right": middle - aside}, np.linspace(0, 0.05, 5))


@pytest.mark.parametrize("distance_m", [0.3, 1.5])
def test_arms_keep_their_length_and_end_at_the_wrists(distance_m: float) -> None:
    joints = reaching(distance_m)
    for side in SIDES:
        shoulder, elbow, wrist = (joints[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        np.testing.assert_allclose(np.linalg.norm(elbow - shoulder, axis=-1), UPPER_ARM_M, atol=1e-9)
        np.testing.assert_allclose(np.linalg.norm(wrist - elbow, axis=-1), FOREARM_M, atol=1e-3)
        assert (elbow[:, 1] <= np.maximum(shoulder[:, 1], wrist[:, 1]) + 1e-9).all()  # it hangs


def test_a_limb_is_round_at_both_ends_and_as_long_as_its_bone() -> None:
    part = tapered_limb(0.3, (0.05, 0.02))
    assert part.vertices[:, 1].min() == pytest.approx(-0.05)
    assert part.vertices[:, 1].max() == pytest.approx(0.32)
    assert np.hypot(part.vertices[:, 0], part.vertices[:, 2]).max() == pytest.approx(0.05)


def test_limbs_lie_along_their_bones() -> None:
    joints = reaching(0.3)
    parts = {part.name: part for part in body_objects(joints, SKIN, np.random.default_rng(0))}
    forearm = parts["left_elbow-left_wrist"]
    vertices = transform(forearm.world_from_object, forearm.mesh.vertices)  # [T, V, 3]
    start, end = joints["left_elbow"][:, None], joints["left_wrist"][:, None]
    along = end - start
    position = ((vertices - start) * along).sum(-1) / (along**2).sum(-1)
    distance = np.linalg.norm(vertices - start - np.clip(position, 0, 1)[..., None] * along, axis=-1)
    assert distance.max() < 0.0421
    assert distance.min() > 0.0279
    rotations = np.stack([part.world_from_object[:, :3, :3] for part in parts.values()])
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(-1, -2), np.broadcast_to(np.eye(3), rotations.shape), atol=1e-5
    )
    assert np.linalg.det(rotations.astype(float)) == pytest.approx(1, abs=1e-5)


def test_keypoints_are_the_projected_joints_and_legs_are_not_seen() -> None:
    joints = reaching(0.3)
    camera = place_camera(body_bounds(joints), 0.0, (96, 72), np.random.default_rng(0))
    keypoints = person_keypoints(joints, camera)
    pixels, _ = project(joints["right_wrist"], camera)
    np.testing.assert_allclose(keypoints[:, KEYPOINTS.index("right_wrist"), :2], pixels, atol=1e-3)
    assert not keypoints[:, KEYPOINTS.index("left_knee"), 2].any()
    assert (keypoints[..., 2] == 1).sum() == 5 * 13
    nose = keypoints[:, KEYPOINTS.index("nose")]
    assert ((nose[:, :2] > 0) & (nose[:, :2] < [96, 72])).all()
    left, right = (keypoints[:, KEYPOINTS.index(f"{side}_shoulder"), 0] for side in SIDES)
    assert (left > right).all()  # the person faces the camera
