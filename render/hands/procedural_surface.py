"""Shape of the procedural right hand: digits from their profiles, the palm relaxed onto a union of solids.

Frame: MANO's rest pose (see anatomy), metres.  Letters: V vertices, S a query's leading shape.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from render.hands.anatomy import MILLIMETRE, RIGHT_DIGITS, Digit, FloatArray
from render.hands.procedural_mesh import ACROSS, LOOP, NUM_VERTICES, PALM_LOOP, Topology

BLEND = 3.2 * MILLIMETRE  # how softly two solids merge
WRIST_CENTER = np.array([109.0, 3.0, 2.5]) * MILLIMETRE
WRIST_RADII = (17.0 * MILLIMETRE, 27.0 * MILLIMETRE)  # dorsal to palmar, radial to ulnar
RELAXATIONS = 60
_TETRAHEDRON = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])

# Rounded cones inside the palm: two ends and their radii, in mm.
_CONES = np.array(
    [
        [66, 1, 17, 3, 0.5, 24.5, 9.5, 10.5],  # index metacarpal
        [68, 3, 6, 0, 2.5, 3.5, 10.0, 10.5],  # middle
        [70, 2, -5, 8, 0.5, -15.5, 10.0, 10.0],  # ring
        [72, 0, -13, 20, -4, -32, 10.0, 9.5],  # little
        [50, -3, 20, 32, -9, 42, 10.0, 6.0],  # web between thumb and index
    ]
)
# Ellipsoids: centre and radii in mm, heading of the first axis in degrees from −x towards +z.
_ELLIPSOIDS = np.array(
    [
        [50, -13, 36, 27, 12, 14.5, 42],  # thenar pad
        [56, -9, -21, 30, 11.5, 14, -6],  # hypothenar pad
        [-5, -7, 12, 12, 9, 25, -5],  # pad below the knuckles, radial
        [6, -8.5, -24, 13, 9, 17, -14],  # and ulnar
    ]
)
# Elliptic cylinder of the forearm: x, then centre y, z and radii y, z, at both ends, in mm.
_FOREARM = np.array([[80, 1, 2, 16.5, 26], [135, 3, 2.5, 18, 27.5]])


def _cones(points: FloatArray) -> FloatArray:
    """Distances [S, 5] to the rounded cones."""
    a, b = _CONES[:, :3] * MILLIMETRE, _CONES[:, 3:6] * MILLIMETRE
    along = b - a
    t = np.clip(((points[..., None, :] - a) * along).sum(-1) / (along**2).sum(-1), 0, 1)
    radius = (1 - t) * _CONES[:, 6] * MILLIMETRE + t * _CONES[:, 7] * MILLIMETRE
    return np.linalg.norm(points[..., None, :] - a - t[..., None] * along, axis=-1) - radius


def _ellipsoids(points: FloatArray) -> FloatArray:
    """Approximate distances [S, 4] to the ellipsoids."""
    heading = np.radians(_ELLIPSOIDS[:, 6])
    offset = points[..., None, :] - _ELLIPSOIDS[:, :3] * MILLIMETRE
    x, y, z = np.moveaxis(offset, -1, 0)
    along = -np.cos(heading) * x + np.sin(heading) * z
    across = np.sin(heading) * x + np.cos(heading) * z
    local = np.stack([along, y, across], axis=-1) / (_ELLIPSOIDS[:, 3:6] * MILLIMETRE)
    norm = np.linalg.norm(local, axis=-1)
    slope = np.linalg.norm(local / (_ELLIPSOIDS[:, 3:6] * MILLIMETRE), axis=-1)
    return norm * (norm - 1) / np.maximum(slope, 1e-9)


def _forearm(points: FloatArray) -> FloatArray:
    """Approximate distance [S, 1] to the forearm."""
    (near, *first), (far, *second) = _FOREARM * MILLIMETRE
    x, y, z = np.moveaxis(points, -1, 0)
    t = np.clip((x - near) / (far - near), 0, 1)
    center_y, center_z, radius_y, radius_z = (
        (1 - t) * one + t * other for one, other in zip(first, second, strict=True)
    )
    before = np.minimum(x - near, 0) / (14 * MILLIMETRE)
    scaled = np.sqrt(((y - center_y) / radius_y) ** 2 + ((z - center_z) / radius_z) ** 2 + before**2)
    return ((scaled - 1) * radius_y)[..., None]


def hand_distance(points: FloatArray, own: NDArray[np.bool_]) -> FloatArray:
    """Signed distance [S] of points [S, 3] to the smooth union of the palm and their own digits [S, 5]."""
    digits = np.stack([digit.distance(points) for digit in RIGHT_DIGITS.values()], axis=-1)
    solids = np.concatenate(
        [_cones(points), _ellipsoids(points), _forearm(points), np.where(own, digits, np.inf)], axis=-1
    )
    nearest = solids.min(axis=-1, keepdims=True)
    return nearest[..., 0] - BLEND * np.log(np.exp((nearest - solids) / BLEND).sum(axis=-1))


def _field(points: FloatArray, own: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
    """Distance [S] and its gradient [S, 3] at points [S, 3], by differences over a small tetrahedron."""
    corners = _TETRAHEDRON * 0.1 * MILLIMETRE
    samples = hand_distance(points[:, None] + corners, np.repeat(own[:, None], 4, axis=1))  # [S, 4]
    return samples.mean(axis=-1), samples @ corners / (4 * (0.1 * MILLIMETRE) ** 2)


def project(points: FloatArray, own: NDArray[np.bool_]) -> FloatArray:
    """Move points [S, 3] towards the surface by one Newton step of at most 4 mm."""
    distance, gradient = _field(points, own)
    step = distance[:, None] * gradient / np.maximum((gradient**2).sum(-1, keepdims=True), 0.05)
    size = np.linalg.norm(step, axis=-1, keepdims=True)
    return points - step * np.minimum(1, 4 * MILLIMETRE / np.maximum(size, 1e-12))


def _slide(points: FloatArray, move: FloatArray, own: NDArray[np.bool_]) -> FloatArray:
    """Points [S, 3] moved by the part of move [S, 3] that is tangent to the surface."""
    _, gradient = _field(points, own)
    normal = gradient / np.linalg.norm(gradient, axis=-1, keepdims=True)
    return points + move - (move * normal).sum(-1, keepdims=True) * normal


def neighbour_mean(faces: NDArray[np.int32]) -> csr_array:
    """[V, V] operator that replaces each vertex by the mean of its neighbours."""
    a, b, c = faces.T
    rows, columns = np.concatenate([a, b, c, b, c, a]), np.concatenate([b, c, a, a, b, c])
    adjacency = csr_array((np.ones(len(rows)), (rows, columns)), shape=(NUM_VERTICES, NUM_VERTICES))
    adjacency.data[:] = 1.0  # an edge is listed by each of its faces
    return csr_array(adjacency.multiply(1.0 / adjacency.sum(axis=1)[:, None]))


# Where a digit's base loop and its own loops are, in bones from its first joint: tight around the joints.
_FINGER_LOOPS = np.array([0.5, 0.70, 0.88, 1.0, 1.22, 1.5, 1.8, 2.0, 2.25, 2.6, 2.9])
_THUMB_LOOPS = np.array([0.72, 0.95, 1.12, 1.32, 1.55, 1.83, 2.0, 2.18, 2.42, 2.68, 2.91])
_THUMB_LEAN = np.array([0.0, 0.13, 0.08, 0.03])  # of the first thumb loops, forward on the web's side
_THUMB_WEB = np.array([18.0, -8.0, 44.0]) * MILLIMETRE  # in front of the crest of the thumb's web
_THUMB_TURN = np.radians(230.0)  # where the thumb's web is around it: its nail looks sideways


def right_surface(topology: Topology) -> FloatArray:
    """Vertices [V, 3] of the right hand at rest."""
    points = np.zeros((NUM_VERTICES, 3))
    own = np.ones((NUM_VERTICES, len(RIGHT_DIGITS)), bool)
    free = np.ones(NUM_VERTICES, bool)
    for column, (name, digit) in enumerate(RIGHT_DIGITS.items()):
        loops = _digit_loops(name, digit)
        points[topology.base[name]], points[topology.rings[name]] = loops[0], loops[1:]
        points[topology.tips[name]] = digit.joints[-1]
        inner = topology.rings[name][1:].ravel()
        own[inner] = np.arange(len(RIGHT_DIGITS)) == column
        free[inner] = False
        free[topology.tips[name]] = False
    free[topology.rings["thumb"][0]] = False
    _place_webs(points, topology)
    _place_palm(points, topology)
    _place_trunk(points, topology)
    free[topology.trunk[0]] = False
    free[topology.palm[0][0]] = False  # it would slide off the crest of the thumb's web
    return _relax(points, own, free, topology)


def _digit_loops(name: str, digit: Digit) -> FloatArray:
    """Points [11, 10, 3] of a digit's base loop and its own loops."""
    angles = 2 * np.pi * np.arange(LOOP) / LOOP  # from the radial side, or from the thumb's web
    if name != "thumb":
        return digit.skin(np.interp(_FINGER_LOOPS, range(4), digit.stations)[:, None], angles)
    bones = np.repeat(_THUMB_LOOPS[:, None], LOOP, axis=1)
    bones[: len(_THUMB_LEAN)] += _THUMB_LEAN[:, None] * np.cos(angles)
    return digit.skin(np.interp(bones, range(4), digit.stations), angles + _THUMB_TURN)


def _place_webs(points: FloatArray, topology: Topology) -> None:
    """Put the chain of three between two fingers half way between their sides."""
    for radial, ulnar in pairwise(ACROSS):
        radial_digit, ulnar_digit = RIGHT_DIGITS[radial], RIGHT_DIGITS[ulnar]
        shared = topology.base[radial][[4, 5, 6]]  # dorsal, middle, palmar
        sides = [
            digit.skin(np.full(3, np.interp(_FINGER_LOOPS[0], range(4), digit.stations)), np.radians(angles))
            for digit, angles in ((radial_digit, [144, 180, 216]), (ulnar_digit, [36, 0, -36]))
        ]
        points[shared] = np.mean(sides, axis=0)


def _place_palm(points: FloatArray, topology: Topology) -> None:
    """Put the palm's loops between an ellipse at the thumb's web and the fingers' base loops."""
    angle = 2 * np.pi * np.arange(PALM_LOOP) / PALM_LOOP
    drop = -1 - 8 * np.maximum(np.cos(angle), 0) ** 2  # the thumb's web hangs below the palm's middle
    first = np.stack([40 - 16 * np.cos(angle), drop + 14 * np.sin(angle), 1 + 39 * np.cos(angle)], axis=-1)
    points[topology.palm[0]] = first * MILLIMETRE
    points[topology.palm[0][0]] = _THUMB_WEB
    last = points[topology.palm[-1]]
    for row, t in enumerate(np.linspace(0, 1, len(topology.palm))[1:-1], start=1):
        points[topology.palm[row]] = (1 - t) * first * MILLIMETRE + t * last


def _place_trunk(points: FloatArray, topology: Topology) -> None:
    """Put the trunk's loops between the wrist's ellipse and the loop around the thumb and the palm."""
    split = points[topology.split]
    for row, loop in enumerate(topology.trunk):
        t = row / len(topology.trunk)
        turn = np.arange(len(loop)) / len(loop)
        angle = 2 * np.pi * turn
        height, breadth = WRIST_RADII
        circle = np.stack([0 * angle, -height * np.sin(angle), -breadth * np.cos(angle)], axis=-1)
        index = turn * len(split)
        above = np.stack(
            [np.interp(index, np.arange(len(split)), column, period=len(split)) for column in split.T],
            axis=-1,
        )
        points[loop] = (1 - t) * (WRIST_CENTER + circle) + t * above


def _relax(
    points: FloatArray, own: NDArray[np.bool_], free: NDArray[np.bool_], topology: Topology
) -> FloatArray:
    """Spread the free vertices evenly over the surface; the others are only put onto it."""
    mean = neighbour_mean(topology.faces)
    tips = list(topology.tips.values())
    fixed = points[tips]
    for _ in range(4):
        points = project(points, own)
    for _ in range(RELAXATIONS):
        move = 0.6 * (mean @ points - points)
        points[free] = _slide(points[free], move[free], own[free])
        points[free] = project(points[free], own[free])
    for _ in range(3):
        points = project(points, own)
    points[tips] = fixed
    return points
