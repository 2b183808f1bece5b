"""Skinning weights and joint regressor of the procedural right hand.

Letters: V vertices, J = 16 joints in MANO's order (wrist, then three of each digit).
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from render.hands.anatomy import MILLIMETRE, PARENTS, RIGHT_DIGITS, WRIST, Digit, FloatArray
from render.hands.procedural_mesh import NUM_VERTICES, Topology
from render.hands.procedural_surface import neighbour_mean

NUM_JOINTS = len(PARENTS)
INFLUENCES = 4  # joints that move one vertex
# Half the length over which a joint's motion sets in, at the three joints of a digit.
_FINGER_BLENDS = np.array([13.0, 9.0, 7.5]) * MILLIMETRE
_THUMB_BLENDS = np.array([17.0, 11.0, 9.0]) * MILLIMETRE
_ALLEGIANCE = 5.0 * MILLIMETRE  # how sharply the palm is shared out among the digits' rays
_SMOOTHINGS = 3


def rest_joints() -> FloatArray:
    """Joints [J, 3] at rest."""
    return np.concatenate([[WRIST], *(digit.joints[:3] for digit in RIGHT_DIGITS.values())])


def skinning_weights(points: FloatArray, topology: Topology) -> FloatArray:
    """Weights [V, J] of points [V, 3]: rows sum to 1, at most four are not zero."""
    share = _ray_shares(points, topology)  # [V, 5]
    weights = np.zeros((NUM_VERTICES, NUM_JOINTS))
    for column, (name, digit) in enumerate(RIGHT_DIGITS.items()):
        blends = _THUMB_BLENDS if name == "thumb" else _FINGER_BLENDS
        onset = _smoothstep((_stations(digit, points)[:, None] - digit.stations[:3]) / (2 * blends) + 0.5)
        reach = np.cumprod(onset, axis=1)  # [V, 3] how far each joint's motion arrives
        chain = -np.diff(reach, axis=1, append=0)  # [V, 3]
        weights[:, 1 + 3 * column : 4 + 3 * column] = share[:, column, None] * chain
        weights[:, 0] += share[:, column] * (1 - reach[:, 0])
    weights = _smooth(weights, topology)
    weakest = np.sort(weights, axis=1)[:, -INFLUENCES, None]
    weights = np.where(weights >= weakest, weights, 0)
    weights[weights < 0.01] = 0
    return weights / weights.sum(axis=1, keepdims=True)


def _smoothstep(t: FloatArray) -> FloatArray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _stations(digit: Digit, points: FloatArray) -> FloatArray:
    """Arc length [V] along a digit's bones, prolonged at both ends, of what is nearest to points [V, 3]."""
    station, nearest = np.zeros(len(points)), np.full(len(points), np.inf)
    for bone in range(3):
        start, end = digit.joints[bone], digit.joints[bone + 1]
        length = np.linalg.norm(end - start)
        along = (points - start) @ (end - start) / length
        along = np.clip(along, -np.inf if bone == 0 else 0, np.inf if bone == 2 else length)
        distance = np.linalg.norm(points - start - along[:, None] * (end - start) / length, axis=1)
        better = distance < nearest
        station = np.where(better, digit.stations[bone] + along, station)
        nearest = np.where(better, distance, nearest)
    return station


def _ray_shares(points: FloatArray, topology: Topology) -> FloatArray:
    """How much each vertex belongs to each digit's ray [V, 5]: its own's, or the nearest in the palm."""
    distance = np.zeros((NUM_VERTICES, len(RIGHT_DIGITS)))
    for column, (name, digit) in enumerate(RIGHT_DIGITS.items()):
        origin = digit.joints[0] if name == "thumb" else 0.2 * digit.joints[0] + 0.8 * WRIST
        chain = np.array([origin, *digit.joints[:2]]) if name != "thumb" else digit.joints[:3]
        legs = [_segment_distance(points, a, b) for a, b in pairwise(chain)]
        distance[:, column] = np.min(legs, axis=0)
    closeness = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / _ALLEGIANCE)
    share = closeness / closeness.sum(axis=1, keepdims=True)
    for column, name in enumerate(RIGHT_DIGITS):
        own = np.append(topology.rings[name].ravel(), topology.tips[name])
        share[own] = np.arange(len(RIGHT_DIGITS)) == column
    return share


def _segment_distance(points: FloatArray, start: FloatArray, end: FloatArray) -> FloatArray:
    along = end - start
    t = np.clip((points - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - start - t[:, None] * along, axis=1)


def _smooth(weights: FloatArray, topology: Topology) -> FloatArray:
    """Average weights [V, J] with their neighbours', but not across a digit's joints, whose blend is set."""
    mean = neighbour_mean(topology.faces)
    fixed = np.zeros(NUM_VERTICES, bool)
    for name, rings in topology.rings.items():
        fixed[rings[1:].ravel()] = True
        fixed[topology.tips[name]] = True
    for _ in range(_SMOOTHINGS):
        weights = np.where(fixed[:, None], weights, 0.5 * weights + 0.5 * (mean @ weights))
    return weights


def joint_regressor(points: FloatArray, weights: FloatArray) -> FloatArray:
    """Non-negative regressor [J, V], rows sum to 1, of the joints from the vertices [V, 3] around them."""
    regressor = np.zeros((NUM_JOINTS, NUM_VERTICES))
    for joint, position in enumerate(rest_joints()):
        nearby = np.linalg.norm(points - position, axis=1)
        involved = weights[:, joint] + (weights[:, max(PARENTS[joint], 0)]) > 0.1
        chosen = np.where(involved, nearby, np.inf).argsort()[:40]
        even = np.exp(-((nearby[chosen] / nearby[chosen[0]]) ** 2) / 4)
        exact = np.vstack([(points[chosen] - position).T / MILLIMETRE, np.ones(len(chosen))])
        # Few strong rows fix the point and the sum, many weak ones keep the weights even.
        matrix = np.vstack([1e3 * exact, np.eye(len(chosen))])
        wanted = np.concatenate([[0, 0, 0, 1e3], even / even.sum()])
        row, _ = nnls(matrix, wanted)
        regressor[joint, chosen] = row / row.sum()
    return regressor


def kinematic_tree() -> NDArray[np.int64]:
    """Parents and joints [2, J]; the wrist's parent is 2³² − 1 as in MANO's files."""
    parents = np.array(PARENTS)
    parents[0] = 2**32 - 1
    return np.stack([parents, np.arange(NUM_JOINTS)])
