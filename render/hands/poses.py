"""Natural hand poses: joint angles about anatomical axes, as MANO's axis-angle pose.

Letters: S leading shape.  Digits in MANO's order: index, middle, little, ring, thumb.  Angles in radians.
MANO's joint frames are all parallel to the world at rest, so every digit has axes of its own:
flexion turns the digit towards the palm, spread turns it to the radial side, twist turns it about its length.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from render.hands.anatomy import RIGHT_DIGITS, FloatArray

# Least and greatest flexion in degrees at the three joints of a finger and of the thumb.
_FINGER_FLEXION = ((-15.0, 90.0), (0.0, 105.0), (0.0, 75.0))
_THUMB_FLEXION = ((-20.0, 45.0), (-5.0, 55.0), (-10.0, 80.0))
FLEXION_LIMITS: FloatArray = np.radians([_FINGER_FLEXION] * 4 + [_THUMB_FLEXION])  # [5, 3, 2]
SPREAD_LIMITS: FloatArray = np.radians([[-15.0, 15.0]] * 4 + [[-25.0, 25.0]])  # [5, 2]
TWIST_LIMITS: FloatArray = np.radians([[-8.0, 8.0]] * 4 + [[-10.0, 40.0]])  # [5, 2]
POSE_SEED = 778
MIRROR = np.array([1.0, -1.0, -1.0])  # turns a rotation vector into what a mirror that flips x shows


def joint_frames() -> FloatArray:
    """Of each joint at rest: rows lateral, dorsal, distal [5, 3, 3, 3] in the right hand's frame."""
    frames = []
    for digit in RIGHT_DIGITS.values():
        bones = np.diff(digit.joints, axis=0)  # [3, 3]
        distal = bones / np.linalg.norm(bones, axis=-1, keepdims=True)
        dorsal = digit.frame[1] - distal * (distal @ digit.frame[1])[:, None]
        dorsal /= np.linalg.norm(dorsal, axis=-1, keepdims=True)
        frames.append(np.stack([np.cross(dorsal, distal), dorsal, distal], axis=1))
    return np.stack(frames)


def articulate(flexion: FloatArray, spread: FloatArray, twist: FloatArray, side: str) -> FloatArray:
    """MANO's hand pose [S, 45] from flexion [S, 5, 3], spread [S, 5] and twist [S, 5] of the first joints.

    Zero is the flat hand, the model's rest pose.
    """
    lateral, dorsal, distal = np.moveaxis(joint_frames(), -2, 0)  # each [5, 3, 3]
    turn = _rotations(lateral, flexion)  # [S, 5, 3] rotations, flattened
    first = np.zeros(flexion.shape)
    first[..., 0] = spread
    roll = np.zeros(flexion.shape)
    roll[..., 0] = twist
    pose = (_rotations(dorsal, first) * turn * _rotations(distal, roll)).as_rotvec()
    pose = pose.reshape(*flexion.shape[:-2], 15, 3)
    return (pose if side == "right" else pose * MIRROR).reshape(*flexion.shape[:-2], 45)


def _rotations(axes: FloatArray, angles: FloatArray) -> Rotation:
    return Rotation.from_rotvec((axes * angles[..., None]).reshape(-1, 3))


def natural_poses(rng: np.random.Generator, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Flexion [count, 5, 3], spread [count, 5] and twist [count, 5] of resting, pointing and gripping hands.

    Fingers mostly close together, each with a will of its own; an end joint follows the one before it; closed
    fingers do not spread; the thumb swings between the side of the hand and opposition.
    """
    close = rng.beta(1.2, 1.6, (count, 1))  # how far the whole hand is closed
    lone = rng.random((count, 4)) < 0.15  # a finger that goes its own way
    curl = np.where(lone, rng.beta(0.9, 1.4, (count, 4)), close + 0.1 * rng.standard_normal((count, 4)))
    hook = 0.15 * rng.standard_normal((count, 4))  # end joints ahead of or behind the knuckle
    knuckle, middle = 85 * (curl - hook) - 5, 100 * (curl + hook)
    fingers = np.stack([knuckle, middle, 0.62 * middle + 4 * rng.standard_normal((count, 4))], axis=-1)
    oppose, bend = rng.beta(1.5, 1.5, (count, 1)), 0.6 * close + 0.4 * rng.beta(1.2, 2.0, (count, 1))
    thumb = np.concatenate([-12 + 45 * oppose, 5 + 40 * bend, 65 * bend - 5], axis=-1)
    flexion = np.radians(np.concatenate([fingers, thumb[:, None]], axis=1))
    flexion = np.clip(flexion, FLEXION_LIMITS[..., 0], FLEXION_LIMITS[..., 1])
    open_fan = 8 * rng.standard_normal((count, 1)) * np.array([1.0, 0.2, -1.2, -0.6])  # index … ring
    spread = np.concatenate(
        [
            (open_fan + 2 * rng.standard_normal((count, 4))) * (1 - 0.8 * np.clip(curl, 0, 1)),
            12 * rng.standard_normal((count, 1)) * (1 - 0.5 * oppose) + 8 * oppose,
        ],
        axis=-1,
    )
    twist = np.concatenate([2 * rng.standard_normal((count, 4)), 30 * oppose - 4], axis=-1)
    return (
        flexion,
        np.clip(np.radians(spread), SPREAD_LIMITS[:, 0], SPREAD_LIMITS[:, 1]),
        np.clip(np.radians(twist), TWIST_LIMITS[:, 0], TWIST_LIMITS[:, 1]),
    )


def pose_space(side: str) -> tuple[FloatArray, FloatArray]:
    """Mean pose [45] and principal components [45, 45] (orthonormal rows, widest first) of natural poses."""
    poses = articulate(*natural_poses(np.random.default_rng(POSE_SEED), 2000), side)  # [2000, 45]
    mean = poses.mean(axis=0)
    _, components = np.linalg.eigh(np.cov(poses.T))
    components = components.T[::-1]
    # An eigenvector's sign is arbitrary: make its largest entry positive on the right hand.
    mirror = np.tile(MIRROR if side == "left" else np.ones(3), 15)
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[range(45), largest] * mirror[largest])
    return mean, components * signs[:, None]
