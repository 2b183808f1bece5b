"""Measures of an adult right hand: joints, digit axes and the profile of each digit.

Frame: MANO's rest pose of the right hand, in metres: fingers point along −x, the back of the hand faces +y,
the thumb is on the +z side (so the palm faces −y).  The left hand is the mirror image in x.
Letters: K stations along a digit, S a query's leading shape.
Bone lengths: Buryanov and Kotiuk, "Proportions of hand segments", Int. J. Morphol. 28(3), 2010.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

FloatArray = NDArray[np.float64]

MILLIMETRE = 1e-3
WRIST = np.array([90.0, 4.0, 4.0]) * MILLIMETRE
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)  # of MANO's 16 joints
DIGITS = ("index", "middle", "little", "ring", "thumb")  # MANO's order of the joint chains


@dataclass(frozen=True)
class Digit:
    """A finger or the thumb: a bone chain, and the skin around it as a profile of three radii."""

    joints: FloatArray  # [4, 3] the three joints from the base on, then the tip of the skin
    dorsal: FloatArray  # [3] unit, towards the nail
    lengths: FloatArray  # [K] arc length from the first joint at which the radii are given
    half_width: FloatArray  # [K]
    dorsal_radius: FloatArray  # [K]
    palmar_radius: FloatArray  # [K]
    cap: float  # length of the rounded end

    @cached_property
    def stations(self) -> FloatArray:
        """Arc length [4] of the joints and the tip, from the first joint."""
        return np.concatenate([[0.0], np.linalg.norm(np.diff(self.joints, axis=0), axis=1).cumsum()])

    @cached_property
    def length(self) -> float:
        """From the first joint to the tip of the skin."""
        return float(self.stations[-1])

    @cached_property
    def axis(self) -> FloatArray:
        """Unit direction [3] from the first joint to the tip."""
        along = self.joints[-1] - self.joints[0]
        return along / np.linalg.norm(along)

    @cached_property
    def frame(self) -> FloatArray:
        """Rows: lateral (radial on a finger), dorsal, distal; orthonormal and right-handed [3, 3]."""
        dorsal = self.dorsal - self.axis * (self.dorsal @ self.axis)
        dorsal /= np.linalg.norm(dorsal)
        return np.stack([np.cross(dorsal, self.axis), dorsal, self.axis])

    @cached_property
    def _center(self) -> CubicSpline:
        return CubicSpline(self.stations, self.joints, bc_type="natural")

    @cached_property
    def _radii(self) -> PchipInterpolator:
        profile = np.stack([self.half_width, self.dorsal_radius, self.palmar_radius], axis=-1)
        return PchipInterpolator(self.lengths, profile)

    def radii(self, station: FloatArray) -> FloatArray:
        """Half width, dorsal and palmar radius [S, 3] at stations [S]; constant outside the profile."""
        return self._radii(np.clip(station, self.lengths[0], self.lengths[-1]))

    def center(self, station: FloatArray) -> FloatArray:
        """Points [S, 3] on the axis at stations [S], straight outside the bones."""
        inside = np.clip(station, 0.0, self.length)
        points = self._center(inside)
        return points + (station - inside)[..., None] * self._center(inside, 1)

    def skin(self, station: FloatArray, angle: FloatArray) -> FloatArray:
        """Points [S, 3] on the skin; angle 0 is lateral, 90° dorsal."""
        start = self.length - self.cap
        beyond = np.clip((station - start) / self.cap, 0.0, 1.0)
        half_width, dorsal, palmar = np.moveaxis(self.radii(np.minimum(station, start)), -1, 0)
        height = np.where(np.sin(angle) > 0, dorsal, palmar) * np.sin(angle)
        across = np.stack([half_width * np.cos(angle), height], axis=-1) * np.sqrt(1 - beyond**2)[..., None]
        return self.center(station) + across @ self.frame[:2]

    def distance(self, points: FloatArray) -> FloatArray:
        """Approximate signed distance [S] of points [S, 3] to the skin; negative inside."""
        station = (points - self.joints[0]) @ self.axis
        inside = np.clip(station, 0.0, self.length - self.cap)
        offset = points - self.center(inside)
        lateral, height, along = np.moveaxis(offset @ self.frame.T, -1, 0)
        half_width, dorsal, palmar = np.moveaxis(self.radii(inside), -1, 0)
        vertical = np.where(height > 0, dorsal, palmar)
        end = np.where(along > 0, self.cap, half_width)
        scaled = np.sqrt((lateral / half_width) ** 2 + (height / vertical) ** 2 + (along / end) ** 2)
        return (scaled - 1.0) * np.minimum(half_width, vertical)


def _digit(
    base: tuple[float, float, float],
    bones: tuple[float, float, float],
    headings: tuple[float, float, float],
    roll: float,
    profile: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]],
) -> Digit:
    """A digit of bones (mm) that leave `base` (mm) at headings (degrees from −x towards +z), rolled."""
    steps = [
        length
        * np.array([-np.cos(np.radians(heading)), -np.sin(np.radians(3.0)), np.sin(np.radians(heading))])
        for length, heading in zip(bones, headings, strict=True)
    ]
    joints = np.cumsum([base, *steps], axis=0) * MILLIMETRE
    heading, turn = np.radians(headings[1]), np.radians(roll)
    outward = np.array([np.sin(heading), 0.0, np.cos(heading)])
    dorsal = np.cos(turn) * np.array([0.0, 1.0, 0.0]) + np.sin(turn) * outward
    first, second, third = bones
    lengths = np.array(
        [0, first / 2, first, first + second / 2, first + second, first + second + third / 2, sum(bones)]
    )
    half_width, dorsal_radius, palmar_radius = (np.array(row) * MILLIMETRE for row in profile)
    cap = 0.42 * third * MILLIMETRE
    return Digit(joints, dorsal, lengths * MILLIMETRE, half_width, dorsal_radius, palmar_radius, cap)


# Half width, dorsal and palmar radius in mm of an index finger: at its first joint, half along the bone, at
# the next joint and so on to the tip.  Knuckles are wide, pads thick on the palmar side, creases thin.
_FINGER = np.array(
    [
        [10.2, 9.5, 9.4, 8.5, 8.2, 8.0, 7.4],
        [9.8, 8.0, 8.3, 7.1, 6.8, 5.8, 5.2],
        [10.8, 9.4, 8.0, 8.2, 7.0, 7.5, 6.6],
    ]
)
_THUMB = (
    (12.0, 12.5, 11.0, 9.6, 10.4, 10.3, 9.4),
    (11.0, 10.0, 9.5, 7.8, 8.2, 6.4, 5.4),
    (13.0, 13.5, 11.0, 9.6, 8.8, 9.0, 7.6),
)


def _finger_profile(scale: float) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    half_width, dorsal, palmar = (tuple(row) for row in scale * _FINGER)
    return half_width, dorsal, palmar


RIGHT_DIGITS: dict[str, Digit] = {
    "index": _digit((2.0, 1.5, 25.0), (39.8, 22.4, 19.6), (5.0, 4.0, 3.0), 4.0, _finger_profile(1.0)),
    "middle": _digit((-2.0, 3.5, 3.0), (44.6, 26.3, 21.3), (-2.0, -2.0, -2.0), 0.0, _finger_profile(1.03)),
    "little": _digit(
        (19.0, -3.5, -34.5), (32.7, 18.1, 19.7), (-21.0, -20.0, -18.0), -14.0, _finger_profile(0.84)
    ),
    "ring": _digit((6.0, 1.5, -17.0), (41.4, 25.7, 21.2), (-10.0, -9.5, -9.0), -6.0, _finger_profile(0.97)),
    "thumb": _digit((66.0, -9.0, 28.0), (42.0, 31.6, 27.4), (45.0, 33.0, 27.0), 50.0, _THUMB),
}
