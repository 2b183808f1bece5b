"""MANO parameters of other data sets, turned into those of `render.scene.HandMotion`.

Letters: T frames, C components.  Metres, radians.  `hand` holds the arrays of `storage.mano`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

FloatArray = NDArray[np.float64]
HandArrays = Mapping[str, NDArray]


def pose_from_components(coefficients: NDArray, hand: HandArrays) -> FloatArray:
    """Return axis-angle poses [T, 45]: the mean pose and PCA coefficients [T, C] (flat_hand_mean off)."""
    components = hand["hands_components"][: coefficients.shape[-1]]
    return np.asarray(hand["hands_mean"] + coefficients @ components, np.float64)


def rest_wrist(hand: HandArrays, shape: NDArray) -> FloatArray:
    """Return J_0 [3], the wrist of a hand of this shape [10] at rest: what MANO rotates about."""
    vertices = hand["v_template"] + hand["shapedirs"] @ shape
    return np.asarray(hand["J_regressor"][0] @ vertices, np.float64)


def move_hand(
    rotation: NDArray, translation: NDArray, wrist: NDArray, target_from_source: NDArray
) -> tuple[FloatArray, FloatArray]:
    """Move global rotations [T, 3] (axis-angle) and translations [T, 3] into another frame.

    MANO rotates about J_0 and translates afterwards: R' = M R, t' = M (J_0 + t) + m − J_0.
    """
    turn, shift = target_from_source[:3, :3], target_from_source[:3, 3]
    turned = Rotation.from_matrix(turn) * Rotation.from_rotvec(rotation)
    return turned.as_rotvec(), (wrist + translation) @ turn.T + shift - wrist
