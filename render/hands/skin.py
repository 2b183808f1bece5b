"""Procedural skin and gloves: a linear colour a vertex, from the rest pose alone: it fits any MANO hand.

Letters: V = 778 vertices, D = 5 digits (index, middle, little, ring, thumb).  Colours are linear RGB.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.hands.model import HandModel, vertex_normals
from render.hands.poses import joint_frames

FloatArray = NDArray[np.float64]

# Light and dark ends of the range of skin; every tone lies between them on a logarithmic scale.
_LIGHT = np.array([0.76, 0.48, 0.35])
_DARK = np.array([0.10, 0.047, 0.028])
_PALM = np.array([0.80, 0.47, 0.37])  # palms differ less from person to person than backs do
_BLOOD = np.array([1.05, 0.76, 0.74])  # factor where skin is flushed
_NAIL = np.array([0.86, 0.60, 0.54])
_TIP_OF_DIGIT = (1, 2, 4, 3, 0)  # the model lists tips from the thumb on
_GLOVE = np.array(  # palm and wrist, then the digits
    [
        [0.35, 0.35, 0.35],
        [0.70, 0.45, 0.05],
        [0.10, 0.45, 0.10],
        [0.45, 0.10, 0.50],
        [0.05, 0.35, 0.60],
        [0.60, 0.08, 0.06],
    ]
)
_FLIP = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class _Rest:
    """A hand at rest, turned into a right one."""

    points: FloatArray  # [V, 3]
    facing: (
        FloatArray  # [V] 1 where the surface faces as the back of the hand or the nail does, −1 on the palm
    )
    chains: FloatArray  # [V, D] skinning weight of each digit's three joints
    joints: FloatArray  # [D, 3, 3]
    tips: FloatArray  # [D, 3]
    distal: FloatArray  # [D, 3] unit, along the last bone


def skin_colors(hand: HandModel, rng: np.random.Generator) -> NDArray[np.float32]:
    """Colours [V, 3] of one person's skin; generators in the same state give both hands the same tone."""
    rest = _rest(hand)
    darkness = rng.uniform()
    hue = 1 + 0.04 * rng.standard_normal(3)
    back = np.exp((1 - darkness) * np.log(_LIGHT) + darkness * np.log(_DARK)) * hue  # [3]
    front = (0.6 - 0.25 * darkness) * _PALM + (0.4 + 0.25 * darkness) * back
    palmar = _smoothstep(0.5 - 1.2 * rest.facing)[:, None]
    colors = palmar * front + (1 - palmar) * back
    colors *= _BLOOD ** _flush(rest)[:, None]
    nails = _nails(rest)[:, None]
    nail = (0.6 - 0.35 * darkness) * _NAIL + (0.4 + 0.35 * darkness) * back
    colors = nails * nail + (1 - nails) * colors
    colors *= 1 + 0.04 * _mottle(rest.points, rng)[:, None]
    return np.clip(colors, 0.01, 1.0).astype(np.float32)


def glove_colors(hand: HandModel) -> NDArray[np.float32]:
    """Colours [V, 3] of a glove whose palm and digits differ: a wrong order of fingers is a wrong colour."""
    shares = np.concatenate([hand.weights[:, :1], _digit_weights(hand)], axis=1)  # [V, 1 + D]
    return _GLOVE[shares.argmax(axis=1)].astype(np.float32)


def _digit_weights(hand: HandModel) -> FloatArray:
    """Skinning weights of the digits [V, D], each the sum of its three joints'."""
    return np.asarray(hand.weights[:, 1:].reshape(-1, 5, 3).sum(axis=-1), np.float64)


def _rest(hand: HandModel) -> _Rest:
    flip = _FLIP if hand.side == "left" else np.ones(3)
    points = np.asarray(hand.template * flip, np.float64)
    joints = np.asarray(hand.rest_joints[1:] * flip, np.float64)
    normals = vertex_normals(hand.template[None], hand.faces)[0] * flip
    frames = joint_frames()  # [D, 3, 3, 3]
    chains = _digit_weights(hand)
    dorsal = hand.weights[:, :1] * np.array([0.0, 1.0, 0.0]) + chains @ frames[:, 1, 1]  # [V, 3]
    return _Rest(
        points=points,
        facing=(normals * dorsal).sum(axis=-1),
        chains=chains,
        joints=joints.reshape(5, 3, 3),
        tips=points[[hand.tips[tip] for tip in _TIP_OF_DIGIT]],
        distal=frames[:, 2, 2],
    )


def _smoothstep(t: FloatArray) -> FloatArray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _flush(rest: _Rest) -> FloatArray:
    """Redness [V]: fingertips and pads below the fingers in front, knuckles behind."""
    flush = np.zeros(len(rest.points))
    front, behind = _smoothstep(0.5 - rest.facing), _smoothstep(0.5 + rest.facing)
    for digit in range(5):
        to_tip = np.linalg.norm(rest.points - rest.tips[digit], axis=-1)
        flush += rest.chains[:, digit] * (0.3 + 0.7 * front) * np.exp(-((to_tip / 0.013) ** 2))
        for joint, strength in zip(rest.joints[digit], (0.35, 0.7, 0.45), strict=True):
            to_joint = np.linalg.norm(rest.points - joint, axis=-1)
            flush += strength * behind * np.exp(-((to_joint / 0.011) ** 2))
        to_base = np.linalg.norm(rest.points - rest.joints[digit, 0], axis=-1)
        flush += 0.35 * front * np.exp(-((to_base / 0.016) ** 2))
    return np.minimum(flush, 1.0)


def _nails(rest: _Rest) -> FloatArray:
    """How much of each vertex [V] is nail: the back of the last bone's outer half."""
    nails = np.zeros(len(rest.points))
    for digit in range(5):
        last_bone = np.linalg.norm(rest.tips[digit] - rest.joints[digit, 2])
        from_tip = (rest.tips[digit] - rest.points) @ rest.distal[digit] / last_bone
        along = _smoothstep((0.62 - from_tip) / 0.2) * _smoothstep(from_tip / 0.08)
        nails += rest.chains[:, digit] * along * _smoothstep((rest.facing - 0.35) / 0.4)
    return nails


def _mottle(points: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A smooth random field [V] of about unit size with features of 1 to 5 cm."""
    directions = rng.standard_normal((12, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    waves = 2 * np.pi * directions / rng.uniform(0.01, 0.05, (12, 1))
    return np.cos(points @ waves.T + rng.uniform(0, 2 * np.pi, 12)).sum(axis=-1) / np.sqrt(6)
