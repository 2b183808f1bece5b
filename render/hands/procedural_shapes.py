"""Shape and pose blend shapes of the procedural right hand.

Letters: V vertices, J = 16 joints.  Frame: MANO's rest pose, metres.
"""

import numpy as np

from render.hands.anatomy import PARENTS, RIGHT_DIGITS, WRIST, FloatArray
from render.hands.procedural_skinning import rest_joints

# What one unit of each shape component does, as a fraction: people differ by about one unit.
_SIZE, _FINGER_LENGTH, _GIRTH, _PALM_WIDTH, _PALM_LENGTH = 0.05, 0.045, 0.06, 0.05, 0.05
_PALM_THICKNESS, _THUMB_LENGTH, _LITTLE_LENGTH, _RING_OVER_INDEX, _TAPER = 0.06, 0.06, 0.05, 0.03, 0.06


def shape_directions(points: FloatArray, weights: FloatArray) -> FloatArray:
    """Ten smooth deformations [V, 3, 10] of points [V, 3], in metres a unit.

    Size, finger length, girth of the digits, palm width, palm length, palm thickness, thumb length,
    little finger length, ring finger against index, and tips thick against bases.
    """
    fingers = {name: _FINGER_LENGTH for name in RIGHT_DIGITS if name != "thumb"}
    directions = [
        _SIZE * (points - WRIST),
        _longer(points, weights, fingers),
        _GIRTH * _thicker(points, weights, (1.0, 1.0, 1.0)),
        _PALM_WIDTH * _stretched_palm(points, weights, np.array([0.0, 0.0, 1.0])),
        _PALM_LENGTH * _stretched_palm(points, weights, np.array([1.0, 0.0, 0.0])),
        _PALM_THICKNESS * weights[:, :1] * (points - WRIST) * np.array([0.0, 1.0, 0.0]),
        _longer(points, weights, {"thumb": _THUMB_LENGTH}),
        _longer(points, weights, {"little": _LITTLE_LENGTH}),
        _longer(points, weights, {"ring": _RING_OVER_INDEX, "index": -_RING_OVER_INDEX}),
        _TAPER * _thicker(points, weights, (-0.5, 0.2, 1.0)),
    ]
    return np.stack(directions, axis=-1)


def _stretched_palm(points: FloatArray, weights: FloatArray, factor: FloatArray) -> FloatArray:
    """Displacement [V, 3] of a palm stretched from the wrist by factor [3]; digits ride along undeformed."""
    rides = [
        np.broadcast_to((digit.joints[0] - WRIST) * factor, points.shape) for digit in RIGHT_DIGITS.values()
    ]
    moves = [(points - WRIST) * factor, *np.repeat(rides, 3, axis=0)]
    return np.einsum("vj,jvc->vc", weights, np.stack(moves))


def _longer(points: FloatArray, weights: FloatArray, fractions: dict[str, float]) -> FloatArray:
    """Displacement [V, 3] for digits longer by a fraction: a bone stretches and carries those after it."""
    moves = np.zeros((weights.shape[1], *points.shape))  # [J, V, 3]
    for column, (name, digit) in enumerate(RIGHT_DIGITS.items()):
        fraction = fractions.get(name, 0.0)
        for bone in range(3):
            start, end = digit.joints[bone : bone + 2]
            direction = (end - start) / np.linalg.norm(end - start)
            along = np.maximum((points - start) @ direction, 0)
            carried = start - digit.joints[0]
            moves[1 + 3 * column + bone] = fraction * (along[:, None] * direction + carried)
    return np.einsum("vj,jvc->vc", weights, moves)


def _thicker(points: FloatArray, weights: FloatArray, amounts: tuple[float, float, float]) -> FloatArray:
    """Displacement [V, 3] away from each digit's axis by a fraction of the distance, for its three bones."""
    result = np.zeros(points.shape)
    for column, digit in enumerate(RIGHT_DIGITS.values()):
        station = (points - digit.joints[0]) @ digit.axis
        radial = points - digit.center(station)
        radial -= (radial @ digit.axis)[:, None] * digit.axis
        share = weights[:, 1 + 3 * column : 4 + 3 * column] @ np.array(amounts)
        result += share[:, None] * radial
    return result


def pose_correctives(points: FloatArray, weights: FloatArray) -> FloatArray:
    """Correctives [V, 3, 135] for what blending loses at a bent joint.

    A vertex that two bones share equally is pulled from the distance r to r cos(θ/2) of a joint bent by θ.
    It is pushed back by about 0.4 r (1 − cos θ) outside the bend, by a quarter of that in the crease.
    MANO's pose feature is R − I, whose trace is −2 (1 − cos θ): its diagonal carries the push.
    """
    joints = rest_joints()
    correctives = np.zeros((*points.shape, 15, 9))
    for column, digit in enumerate(RIGHT_DIGITS.values()):
        bones = np.diff(digit.joints, axis=0)
        for bone, direction in enumerate(bones / np.linalg.norm(bones, axis=-1, keepdims=True)):
            joint = 1 + 3 * column + bone
            beyond = weights[:, joint : 4 + 3 * column].sum(axis=1)  # [V]
            shared = 4 * beyond * weights[:, max(PARENTS[joint], 0)]  # 1 half way, 0 outside the bend
            offset = points - joints[joint]
            offset -= (offset @ direction)[:, None] * direction
            radius = np.maximum(np.linalg.norm(offset, axis=1), 1e-9)  # the tip lies on its bone's line
            outside = 0.5 + 0.5 * (offset @ digit.frame[1]) / radius
            push = (0.4 * shared * (0.25 + 0.75 * outside))[:, None] * offset  # [V, 3]
            correctives[:, :, joint - 1, [0, 4, 8]] = -0.5 * push[:, :, None]
    return correctives.reshape(*points.shape, 135)
