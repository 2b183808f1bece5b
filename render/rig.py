"""One person's hand as something to be placed and closed: wrist transforms and joint angles in, vertices out.

Letters: B hands at once, V = 778 vertices, D = 5 digits in MANO's order: index, middle, little, ring, thumb.
The wrist's frame has its origin at the wrist joint and the axes of the model's rest pose; world is in metres.
Flexions [..., D, 3] are angles of a digit's joints from its base on, in radians; spread and twist are fixed.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from render.hands.model import HandModel
from render.hands.poses import articulate
from render.scene import HandMotion

FloatArray = NDArray[np.float64]
THUMB = 4  # row of the thumb among the digits
PALM = 5  # row of the palm where it follows them

_FINGER_ROWS = np.ones((4, 1))
# Flat with the thumb out of the way, hanging loosely, and a fist with the thumb across it.
OPEN = np.radians([*(_FINGER_ROWS * (-4.0, 12.0, 6.0)), (-18.0, 0.0, 0.0)])  # [D, 3]
RELAXED = np.radians([(16, 24, 12), (20, 28, 14), (30, 34, 18), (25, 32, 16), (2, 8, 10)])
CLOSED = np.radians([*(_FINGER_ROWS * (85.0, 100.0, 65.0)), (45.0, 50.0, 70.0)])
SPREAD = np.radians([4.0, 0.0, -6.0, -3.0, 20.0])  # [D]
TWIST = np.radians([0.0, 0.0, 0.0, 0.0, 35.0])


class Rig:
    """A hand of one shape."""

    def __init__(self, hand: HandModel, shape: NDArray[np.floating]) -> None:
        self.hand = hand
        self.side = hand.side
        self.shape = np.asarray(shape, np.float32)
        rest = hand(self._motion(np.zeros((1, 48)), np.zeros((1, 3))))
        self._root = rest.joints[0, 0].astype(np.float64)
        joints = rest.joints[0] - rest.joints[0, 0]  # keypoint order: thumb 1–4, index 5–8, … little 17–20
        forward = _unit(joints[9])
        radial = joints[5] - joints[17]
        radial = _unit(radial - forward * (radial @ forward))
        palm = np.cross(radial, forward) * (1 if hand.side == "right" else -1)
        self.axes = np.stack([radial, palm, forward]).astype(np.float64)  # [3, 3] in the wrist's frame
        self.knuckle = joints[9].astype(np.float64)  # [3] of the middle finger, in the wrist's frame
        chains = joints[[[5, 6, 7, 8], [9, 10, 11, 12], [17, 18, 19, 20], [13, 14, 15, 16], [1, 2, 3, 4]]]
        bones = np.linalg.norm(np.diff(chains, axis=1), axis=-1)  # [D, 3]
        self.reach = bones[:, ::-1].cumsum(axis=1)[:, ::-1] + 0.01  # [D, 3] from a joint to past the tip

    @cached_property
    def links(self) -> NDArray[np.int64]:
        """Digit and link of every vertex [V, 2]; -1 in the palm."""
        joint = self.hand.weights.argmax(axis=1) - 1
        return np.where(joint[:, None] < 0, -1, np.stack([joint // 3, joint % 3], axis=-1))

    def motion(self, flexion: FloatArray, world_from_wrist: FloatArray) -> HandMotion:
        """Return MANO's parameters of flexions [B, D, 3] and wrists [B, 4, 4]."""
        fixed = np.ones((len(flexion), 1))
        pose = articulate(flexion, fixed * SPREAD, fixed * TWIST, self.side)  # [B, 45]
        turn = Rotation.from_matrix(world_from_wrist[:, :3, :3]).as_rotvec()
        # smplx turns the hand about its wrist joint and then adds the translation.
        return self._motion(np.concatenate([turn, pose], axis=1), world_from_wrist[:, :3, 3] - self._root)

    def vertices(self, flexion: FloatArray, world_from_wrist: FloatArray) -> NDArray[np.float32]:
        """Return vertices [B, V, 3] in the world."""
        return self.hand(self.motion(flexion, world_from_wrist)).vertices

    def _motion(self, pose: FloatArray, translation: FloatArray) -> HandMotion:
        return HandMotion(
            pose.astype(np.float32), self.shape, translation.astype(np.float32), np.ones(len(pose), bool)
        )


def _unit(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(vector / np.linalg.norm(vector), np.float64)
