"""Shape and pose blend shapes of the procedural right hand.

Letters: V vertices, J = 16 joints.  Frame: MANO's rest pose, metres.
"""

import numpy as np

from render.hands.anatomy import DIGITS, RIGHT_DIGITS, WRIST, FloatArray
from render.hands.procedural_skinning import PARENTS, rest_joints

# What one unit of each shape component does, as fractions: a hand's natural spread is about one unit.
_SIZE, _FINGER_LENGTH, _GIRTH, _PALM_WIDTH, _PALM_LENGTH = 0.05, 0.045, 0.06, 0.05, 0.05
_PALM_THICKNESS, _THUMB_LENGTH, _LITTLE_LENGTH, _RING_OVER_INDEX, _TAPER = 0.06, 0.06, 0.05, 0.03, 0.06


def shape_directions(points: FloatArray, weights: FloatArray) -> FloatArray:
    """Ten smooth deformations [V, 3, 10] of points [V, 3], in metres a unit.

    Size, finger length, girth of the digits, palm width, palm length, palm thickness, thumb length, little finger
    length, ring finger against index, tapering of the tips.
    """
    fingers = {name: _FINGER_LENGTH for name in DIGITS if name != "thumb"}
    directions = [
        _SIZE * (points - WRIST),
        _longer(points, weights, fingers),
        _GIRTH * _off_bone(points, weights, np.ones(NUM_BONES)),
        _PALM_WIDTH * _carried(points, weights, (points - WRIST) * np.array([0.0, 0.0, 1.0])),
        _PALM_LENGTH * _carried(points, weights, (points - WRIST) * np.array([1.0, 0.0, 0.0])),
        _PALM_THICKNESS * weights[:, :1] * (points - WRIST) * np.array([0.0, 1.0, 0.0]),
        _longer(points, weights, {"thumb": _THUMB_LENGTH}),
        _longer(points, weights, {"little": _LITTLE_LENGTH}),
        _longer(points, weights, {"ring": _RING_OVER_INDEX, "index": -_RING_OVER_INDEX}),
        _TAPER * _off_bone(points, weights, np.tile([-0.5, 0.2, 1.0], len(DIGITS))),
    ]
    return np.stack(directions, axis=-1)


NUM_BONES = 15


def _carried(points: FloatArray, weights: FloatArray, palm_move: FloatArray) -> FloatArray:
    """The palm moves by palm_move [V, 3]; each digit goes along as its first joint does, without deforming."""
    moves = [palm_move]
    for digit in RIGHT_DIGITS.values():
        # The move is linear in the point: read it off at the digit's base by least squares.
        linear, *_ = np.linalg.lstsq(points - WRIST, palm_move, rcond=None)
        moves += [np.broadcast_to((digit.joints[0] - WRIST) @ linear, points.shape)] * 3
    return np.einsum("vj,jvc->vc", weights, np.stack(moves))


def _longer(points: FloatArray, weights: FloatArray, fractions: dict[str, float]) -> FloatArray:
    """Digits longer by a fraction: each bone stretches along itself and carries those after it."""
    moves = np.zeros((16, len(points), 3))
    for column, (name, digit) in enumerate(RIGHT_DIGITS.items()):
        carried = np.zeros(3)
        for bone in range(3):
            start, end = digit.joints[bone : bone + 2]
            direction = (end - start) / np.linalg.norm(end - start)
            along = np.maximum((points - start) @ direction, 0)
            moves[1 + 3 * column + bone] = fractions.get(name, 0.0) * along[:, None] * direction + carried
            carried = carried + fractions.get(name, 0.0) * (end - start)
    return np.einsum("vj,jvc->vc", weights, moves)


def _off_bone(points: FloatArray, weights: FloatArray, amounts: FloatArray) -> FloatArray:
    """Displacement away from each digit's bones, in proportion to the distance, weighted by bone [15]."""
    result = np.zeros(points.shape)
    for column, digit in enumerate(RIGHT_DIGITS.values()):
        station = (points - digit.joints[0]) @ digit.axis
        radial = points - digit.center(station)
        radial -= (radial @ digit.axis)[:, None] * digit.axis
        chain = weights[:, 1 + 3 * column : 4 + 3 * column] @ amounts[3 * column : 3 * column + 3]
        result += chain[:, None] * radial
    return result


def pose_correctives(points: FloatArray, weights: FloatArray) -> FloatArray:
    """Correctives [V, 3, 135] for what blending loses at a bent joint.

    Where two bones share a vertex, blending at an angle θ pulls it towards the joint by 1 − cos(θ/2) of its distance r.
    It is pushed back by about 0.4 r (1 − cos θ), fully on the outside of the bend and less in the crease. MANO's
    pose feature is R − I, whose trace is −2 (1 − cos θ), so the diagonal entries carry it.
    """
    joints = rest_joints()
    correctives = np.zeros((len(points), 3, 15, 9))
    for column, digit in enumerate(RIGHT_DIGITS.values()):
        for bone in range(3):
            joint = 1 + 3 * column + bone
            beyond = weights[:, joint : 4 + 3 * column].sum(axis=1)
            before = weights[:, PARENTS[joint]] if bone else weights[:, 0]
            shared = 4 * np.minimum(beyond, 1) * before
            offset = points - joints[joint]
            direction = digit.joints[bone + 1] - digit.joints[bone]
            direction /= np.linalg.norm(direction)
            offset = offset - (offset @ direction)[:, None] * direction
            outside = np.clip(
                0.5 + 0.5 * (offset @ digit.frame[1]) / (np.linalg.norm(offset, axis=1) + 1e-9), 0, 1
            )
            push = 0.4 * (shared * (0.25 + 0.75 * outside))[:, None] * offset  # [V, 3]
            correctives[:, :, joint - 1, [0, 4, 8]] = -0.5 * push[:, :, None]
    return correctives.reshape(len(points), 3, 135)
