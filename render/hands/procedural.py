"""A free hand in MANO's exact schema, made from measures: 778 vertices, 1538 faces, 16 joints.

Letters: V = 778 vertices, F = 1538 faces, J = 16 joints.
Frame: MANO's rest pose, in metres.  The right hand is flat with its fingers towards −x, its thumb towards +z
and its palm towards −y; the left hand is its mirror image in x.
A positive rotation about the right hand's +z (the left hand's −z) closes the fingers.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from render.hands.poses import pose_space
from render.hands.procedural_mesh import build_topology
from render.hands.procedural_shapes import pose_correctives, shape_directions
from render.hands.procedural_skinning import joint_regressor, kinematic_tree, skinning_weights
from render.hands.procedural_surface import right_surface


@cache
def _right_hand() -> dict[str, NDArray]:
    topology = build_topology()
    template = right_surface(topology)
    weights = skinning_weights(template, topology)
    regressor = joint_regressor(template, weights)
    mean, components = pose_space("right")
    return {
        "v_template": template,  # [V, 3]
        "shapedirs": shape_directions(template, weights),  # [V, 3, 10]
        "posedirs": pose_correctives(template, weights),  # [V, 3, 135]
        "J_regressor": regressor,  # [J, V]
        "J": regressor @ template,  # [J, 3]
        "weights": weights,  # [V, J]
        "f": topology.faces.astype(np.uint32),  # [F, 3]
        "kintree_table": kinematic_tree(),  # [2, J]
        "hands_mean": mean,  # [45]
        "hands_components": components,  # [45, 45]
    }


def build_hand(side: str) -> dict[str, NDArray]:
    """MANO's arrays of the procedural hand of one side."""
    hand = dict(_right_hand())
    return hand if side == "right" else _mirrored(hand)


def _mirrored(hand: dict[str, NDArray]) -> dict[str, NDArray]:
    """The left hand: every x is negated, faces are turned over, rotations are those seen in the mirror."""
    flip = np.array([-1.0, 1.0, 1.0])
    rotation_flip = np.tile(np.outer(flip, flip).ravel(), 15)  # [135] of a rotation matrix's entries
    mean, components = pose_space("left")
    return hand | {
        "v_template": hand["v_template"] * flip,
        "shapedirs": hand["shapedirs"] * flip[:, None],
        "posedirs": hand["posedirs"] * flip[:, None] * rotation_flip,
        "J": hand["J"] * flip,
        "f": hand["f"][:, [0, 2, 1]],
        "hands_mean": mean,
        "hands_components": components,
    }
