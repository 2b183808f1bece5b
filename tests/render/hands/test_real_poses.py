"""Poses annotated with the licensed hand must mean the same on the procedural one."""

from pathlib import Path

import numpy as np

from render.hands.model import default_hands
from render.scene import HandMotion

FINGER_BONES = [(1 + 4 * digit + bone, 2 + 4 * digit + bone) for digit in range(5) for bone in range(3)]


def test_annotated_poses_turn_the_bones_as_they_turned_the_licensed_hand(shared_data: Path) -> None:
    folder = shared_data / "motion" / "dexmv_mustard" / "hand_pose"
    frames = range(5, 120, 5)
    poses = np.stack([np.load(folder / f"mano_{i}.npy").ravel()[:48] for i in frames]).astype(np.float32)
    theirs = np.stack([np.load(folder / f"joints_{i}.npy").reshape(21, 3) for i in frames])
    still = np.zeros((len(poses), 3), np.float32)
    shape, valid = np.zeros(10, np.float32), np.ones(len(poses), bool)
    ours = default_hands()["right"](HandMotion(poses, shape, still, valid)).joints
    angles = []
    for start, end in FINGER_BONES:
        a, b = ours[:, end] - ours[:, start], theirs[:, end] - theirs[:, start]
        cosine = (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
        angles.append(np.degrees(np.arccos(cosine)))
    assert np.mean(angles) < 12  # the two rest poses differ by that much
    assert np.max(np.mean(angles, axis=1)) < 30
    knuckles = [1, 5, 9, 13, 17]
    apart = np.linalg.norm((ours - ours[:, :1] - theirs + theirs[:, :1])[:, knuckles], axis=-1)
    assert apart.max() < 0.025
