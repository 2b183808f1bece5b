"""Motion of an object and two hands over a clip: reach, close, move, release, withdraw.

Letters: T frames, K poses, D = 5 digits. Frame: world in metres, +Y up; the table's top is y = 0 (`grasp` has
the person's place). Times are in frames. A hand that holds is rigid with the object, but for a slide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial.transform import Rotation

from render.grasp import Grasp, natural_forward, wrist_rotation
from render.rig import OPEN, RELAXED, Rig
from render.transforms import rigid

FloatArray = NDArray[np.float64]
REACH = 0.25  # of the clip: from the place at ease to the object
LEVER_M = 0.15  # a radian of turn takes as long as a move of so far
TABLE_CLEARANCE_M = 0.002
# Ways to the object, the shortest first: how high it starts, and the length of its straight end, in metres.
DETOURS = ((0.06, 0.09), (0.12, 0.12), (0.18, 0.16), (0.06, 0.2))


@dataclass(frozen=True)
class Leg:
    """One smooth move of the object through poses, at rest at both ends."""

    begin: float  # frame
    end: float
    poses: FloatArray  # [K, 4, 4] world_from_centre, the first being where the object is


@dataclass(frozen=True)
class Hold:
    """The time that a hand spends at the object, in frames."""

    grasp: Grasp
    arrive: float  # the open hand is at the object
    closed: float  # and holds it
    release: float  # it begins to open
    leave: float  # it is open
    slide: FloatArray | None = None  # [T, 4, 4] turn of the hand in the object's frame while it holds


def ease(part: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the course 0..1 of a move that starts and ends at rest, at parts 0..1 of its time."""
    part = np.clip(part, 0, 1)
    return np.asarray(part**2 * (3 - 2 * part), np.float64)


def object_motion(legs: Sequence[Leg], num_frames: int) -> FloatArray:
    """Return world_from_centre [T, 4, 4] of legs that follow one another."""
    frames = np.arange(num_frames)
    motion = np.tile(legs[0].poses[0], (num_frames, 1, 1))
    for leg in legs:
        course = ease((frames - leg.begin) / max(leg.end - leg.begin, 1e-9))
        rotations = Rotation.from_matrix(leg.poses[:, :3, :3])
        turns = (
            rotations * rotations[0].inv()
        ).as_rotvec()  # PCHIP does not overshoot: no tilt before lift-off
        keys = np.c_[leg.poses[:, :3, 3], turns]  # [K, 6]
        lengths = np.linalg.norm(np.diff(keys * (1, 1, 1, *(LEVER_M,) * 3), axis=0), axis=1)
        through = PchipInterpolator(np.r_[0, lengths.cumsum()] / lengths.sum(), keys)(course)
        rotation = Rotation.from_rotvec(through[:, 3:]) * rotations[0]
        begun = frames >= leg.begin
        motion[begun] = rigid(rotation.as_matrix(), through[:, :3])[begun]
    return motion


def hand_track(
    holds: Sequence[Hold], world_from_object: FloatArray, away: FloatArray, detour: tuple[float, float]
) -> tuple[FloatArray, FloatArray]:
    """Return flexions [T, D, 3] and world_from_wrist [T, 4, 4] of a hand, which is at `away` when idle."""
    num_frames = len(world_from_object)
    frames = np.arange(num_frames)
    reach = REACH * num_frames
    flexion, wrists = np.tile(RELAXED, (num_frames, 1, 1)), away.copy()
    for hold in holds:
        near, arrived = (frames - hold.arrive) / reach + 1, frames >= hold.arrive
        going = (frames - hold.leave) / reach
        toward = np.where(
            arrived, 1 - np.clip(going, 0, 1), np.clip(near, 0, 1)
        )  # [T] 0 away, 1 at the object
        at_object = world_from_object @ hold.grasp.object_from_wrist
        if hold.slide is not None:
            at_object = world_from_object @ hold.slide @ hold.grasp.object_from_wrist
        retreat = world_from_object[:, :3, :3] @ hold.grasp.retreat
        moving = toward > 0
        wrists[moving] = _reach(away, at_object, retreat, toward, detour)[moving]
        opened = ease(np.clip(toward * 1.6 - 0.3, 0, 1))[:, None, None]
        closing = (frames - hold.arrive) / max(hold.closed - hold.arrive, 1e-9)
        opening = (frames - hold.release) / max(hold.leave - hold.release, 1e-9)
        closed = (ease(closing) - ease(opening))[:, None, None]
        shape = RELAXED + opened * (OPEN - RELAXED) + closed * (hold.grasp.flexion - OPEN)
        flexion[moving] = shape[moving]
    return flexion, wrists


def _reach(
    away: FloatArray,
    at_object: FloatArray,
    retreat: FloatArray,
    toward: FloatArray,
    detour: tuple[float, float],
) -> FloatArray:
    """Return wrists [T, 4, 4] on the way from `away` to the object, which ends along the approach."""
    part = ease(toward)[:, None]
    start, end = away[:, :3, 3], at_object[:, :3, 3]
    control = (start, start + np.array([0, detour[0], 0]), end + detour[1] * retreat, end)
    weights = ((1 - part) ** 3, 3 * part * (1 - part) ** 2, 3 * part**2 * (1 - part), part**3)
    position = sum((w * c for w, c in zip(weights, control, strict=True)), np.zeros_like(end))
    turned = ease(1.2 * toward)  # the hand has turned before it arrives
    rotations = Rotation.from_matrix(away[:, :3, :3])
    turns = _continuous((rotations.inv() * Rotation.from_matrix(at_object[:, :3, :3])).as_rotvec())
    return rigid((rotations * Rotation.from_rotvec(turned[:, None] * turns)).as_matrix(), position)


def _continuous(turns: FloatArray) -> FloatArray:
    """Return rotation vectors [T, 3] of the same rotations, none the other way round than the one before."""
    continuous = turns.copy()
    for before, turn in pairwise(continuous):
        other = turn * (1 - 2 * np.pi / (np.linalg.norm(turn) + 1e-9))
        if np.linalg.norm(other - before) < np.linalg.norm(turn - before):
            turn[:] = other
    return continuous


def clear_table(wrists: FloatArray, lowest_m: NDArray[np.floating], free: NDArray[np.bool_]) -> FloatArray:
    """Return wrists [T, 4, 4] raised smoothly where a free hand's lowest vertex [T] would be in the table."""
    deep = np.where(free, np.maximum(TABLE_CLEARANCE_M - lowest_m, 0), 0.0)
    raised = wrists.copy()
    raised[:, 1, 3] += np.where(free, gaussian_filter1d(maximum_filter1d(deep, 5), 1.0), 0.0)
    return raised


def idle_wrists(rig: Rig, num_frames: int, half_width_m: float, rng: np.random.Generator) -> FloatArray:
    """Return world_from_wrist [T, 4, 4] of a hand at ease beside an object, swaying a little."""
    side = -1.0 if rig.side == "right" else 1.0
    palm = np.array([-0.45 * side, -0.85, 0.1]) + rng.normal(0, 0.08, 3)
    palm /= np.linalg.norm(palm)
    forward = natural_forward(rig.side) + np.array([0.2 * side, 0, 0]) + rng.normal(0, 0.1, 3)
    place = np.array([side * (half_width_m + 0.14), 0.075, -0.16]) + rng.uniform(-0.015, 0.015, 3)
    time = np.arange(num_frames)[:, None] / 24
    sway = 0.004 * np.sin(2 * np.pi * rng.uniform(0.2, 0.5, 3) * time + rng.uniform(0, 2 * np.pi, 3))
    tilt = Rotation.from_rotvec(8 * sway[:, ::-1])  # radians
    rotation = tilt.as_matrix() @ wrist_rotation(rig, palm, forward)
    return rigid(rotation, place + sway)
