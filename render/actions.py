"""Actions of two hands on one object: who holds it when, how, and where it goes meanwhile.

Letters: T frames, K poses of a leg. Frame: world in metres, +Y up; the object starts and ends on a table at
y = 0. `centre` is a frame in the middle of the object's bounding box, with the object's axes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.spatial.transform import Rotation

from render.choreography import Hold, Leg, ease, object_motion
from render.contact import ContactField, contact_field
from render.grasp import Grasp, GraspConfig, Surroundings, find_grasp
from render.rig import Rig
from render.scene import SIDES, Mesh
from render.transforms import invert_rigid, rigid, transform

FloatArray = NDArray[np.float64]
Action = Literal["lift", "support", "pass", "twist", "one_hand"]


class ActionConfig(BaseModel, frozen=True, extra="forbid"):
    """What hands do with an object."""

    actions: tuple[Action, ...] = ("lift", "support", "pass", "twist")
    """What may happen; one is drawn. Where the second hand finds no hold it becomes "one_hand"."""
    max_turn_deg: float = 55.0
    """How far the object is turned in the air, degrees."""
    max_twist_deg: float = 45.0
    """How far a hand turns about the object in a twist, degrees."""
    grasp: GraspConfig = GraspConfig()
    """How hands take hold."""


@dataclass(frozen=True)
class Times:
    """When things happen, as parts of a clip."""

    holds: tuple[tuple[float, float, float, float], ...]  # of each hand: arrive, closed, release, leave
    legs: tuple[tuple[float, float], ...]  # when the object moves


# The second hand comes when the first has closed and goes before it opens: they do not meet on the way.
TIMES: dict[Action, Times] = {
    "lift": Times(((0.25, 0.31, 0.81, 0.86), (0.34, 0.40, 0.73, 0.78)), ((0.41, 0.72),)),
    "support": Times(
        ((0.25, 0.31, 0.88, 0.93), (0.46, 0.52, 0.62, 0.67)), ((0.32, 0.45), (0.53, 0.61), (0.73, 0.87))
    ),
    "pass": Times(((0.25, 0.31, 0.55, 0.60), (0.46, 0.53, 0.86, 0.91)), ((0.32, 0.45), (0.66, 0.85))),
    "twist": Times(((0.25, 0.31, 0.83, 0.88), (0.34, 0.40, 0.75, 0.80)), ((0.40, 0.49), (0.67, 0.75))),
    "one_hand": Times(((0.25, 0.32, 0.80, 0.85),), ((0.33, 0.79),)),
}
TWIST = (0.48, 0.68)  # when the second hand turns about the object
ATTEMPTS = 3  # of each hand to hold the object before it is given up
SLENDER = 2.8  # an object so many times taller than wide lies on the table


@dataclass(frozen=True)
class Plan:
    """One action, ready to be played."""

    action: Action
    holds: tuple[Hold, ...]
    world_from_object: FloatArray  # [T, 4, 4]


@dataclass(frozen=True)
class Subject:
    """The object to act on."""

    name: str
    mesh: Mesh
    surface: ContactField


def plan_action(
    subject: Subject, rigs: Mapping[str, Rig], num_frames: int, rng: np.random.Generator, config: ActionConfig
) -> Plan:
    """Draw an action and find its grasps; raises ValueError when no hand can hold the object."""
    action = config.actions[int(rng.integers(len(config.actions)))]
    start, centre_from_object = resting_pose(subject.mesh, rng)
    hurry = 1.0 if len(TIMES[action].legs) == 1 else 0.6  # several legs have less time each
    room_m = 0.10 if action == "support" else 0.03  # a hand that supports may be below
    legs = _leg_poses(start, subject.mesh, rng, hurry * config.max_turn_deg, room_m)
    motion = _object_motion(action, legs, num_frames) @ centre_from_object
    share = len(TIMES[action].holds) == 2
    first = _first_grasp(subject, motion[0], rigs, rng, config, share)
    holds = [_hold(first, TIMES[action].holds[0], num_frames)]
    if len(TIMES[action].holds) == 2:
        other = rigs[SIDES[1 - SIDES.index(first.side)]]
        hold = _second_hold(action, first, (rigs[first.side], other), subject, motion, rng, config)
        if hold.grasp.holds if action == "pass" else hold.grasp.steadies:
            return Plan(action, (*holds, hold), motion)
    motion = _object_motion("one_hand", legs, num_frames) @ centre_from_object
    return Plan("one_hand", (_hold(first, TIMES["one_hand"].holds[0], num_frames),), motion)


def resting_pose(mesh: Mesh, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return world_from_centre of the object on the table, and centre_from_object, both [4, 4]."""
    low, high = mesh.vertices.min(axis=0).astype(float), mesh.vertices.max(axis=0).astype(float)
    extents = high - low
    centre_from_object = rigid(np.eye(3), -(low + high) / 2)
    lying = extents[1] > SLENDER * max(extents[0], extents[2])
    yaw = Rotation.from_euler("y", rng.uniform(-35, 35), degrees=True)
    rotation = (yaw * Rotation.from_euler("z", 90 if lying else 0, degrees=True)).as_matrix()
    turned = transform(rigid(rotation, np.zeros(3)) @ centre_from_object, mesh.vertices)
    return rigid(rotation, np.array([0, -turned[:, 1].min(), 0])), centre_from_object


def _leg_poses(
    start: FloatArray, mesh: Mesh, rng: np.random.Generator, max_turn_deg: float, room_m: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw poses [K, 4, 4] of lifting the object, moving it `room_m` above the table and putting it down."""
    rotation = Rotation.from_matrix(start[:3, :3])
    sizes = np.abs(start[:3, :3]) @ np.ptp(mesh.vertices, axis=0) / 2  # of the box about the object at rest
    across = float(np.hypot(sizes[0], sizes[2]))

    def aloft() -> FloatArray:
        axis = rng.normal(size=3)
        angle = np.deg2rad(max_turn_deg) * rng.uniform(0.5, 1)
        height = (
            sizes[1] + across * np.sin(angle) + rng.uniform(0.02, 0.05)
        )  # clears the table however it tilts
        turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
        place = np.array([rng.uniform(-0.03, 0.03), height, rng.uniform(-0.02, 0.04)])
        return rigid((turn * rotation).as_matrix(), place)

    yaw = Rotation.from_euler("y", rng.uniform(-30, 30), degrees=True)
    end = rigid((yaw * rotation).as_matrix(), start[:3, 3] + rng.uniform(-1, 1, 3) * (0.04, 0, 0.03))
    raised, lowered = start.copy(), end.copy()
    raised[1, 3] += 0.03
    lowered[1, 3] += 0.03
    first, middle, last = aloft(), aloft(), aloft()
    return np.stack([start, raised, first]), np.stack([first, middle, last]), np.stack([last, lowered, end])


def _object_motion(
    action: Action, poses: tuple[FloatArray, FloatArray, FloatArray], num_frames: int
) -> FloatArray:
    """Return world_from_centre [T, 4, 4]: one or two legs leave the middle out, three take one each."""
    times = TIMES[action].legs
    lift, aloft, lower = poses
    if len(times) == 1:
        parts = [np.concatenate([lift, lower])]
    elif len(times) == 2:
        parts = [lift, np.concatenate([lift[-1:], lower])]
    else:
        parts = [lift, aloft, lower]
    legs = [
        Leg(begin * (num_frames - 1), end * (num_frames - 1), part)
        for (begin, end), part in zip(times, parts, strict=True)
    ]
    return object_motion(legs, num_frames)


def _hold(
    grasp: Grasp, times: tuple[float, float, float, float], num_frames: int, slide: FloatArray | None = None
) -> Hold:
    arrive, closed, release, leave = (time * (num_frames - 1) for time in times)
    return Hold(grasp, arrive, closed, release, leave, slide)


def _first_grasp(
    subject: Subject,
    world_from_object: FloatArray,
    rigs: Mapping[str, Rig],
    rng: np.random.Generator,
    config: ActionConfig,
    share: bool,
) -> Grasp:
    """Return the first hand's grasp on the table, a pinch where nothing better is found with either hand."""
    surroundings = Surroundings(subject.surface, world_from_object, table_m=0.0)
    found = []
    for attempt in range(ATTEMPTS):
        for side in rng.permutation(SIDES):
            grasp = find_grasp(rigs[side], surroundings, rng, config.grasp, share=share and attempt == 0)
            if grasp.holds:
                return grasp
            found.append(grasp)
    best = max(found, key=lambda grasp: grasp.score)
    if best.pinches:
        return best
    raise ValueError(f"{subject.name}: no hand finds a grasp with the thumb and a finger")


def _second_hold(
    action: Action,
    first: Grasp,
    rigs: tuple[Rig, Rig],
    subject: Subject,
    world_from_object: FloatArray,
    rng: np.random.Generator,
    config: ActionConfig,
) -> Hold:
    """Return the other hand's hold, which keeps clear of the first hand."""
    num_frames = len(world_from_object)
    times = TIMES[action].holds[1]
    met_aloft = action == "support"  # else the hand stands on the table with the object, now or in the end
    frame = {"support": int(np.ceil(times[0] * (num_frames - 1))), "pass": -1}.get(action, 0)
    vertices = rigs[0].vertices(first.flexion[None], first.object_from_wrist[None])[0]
    other_hand = contact_field(vertices, rigs[0].hand.faces, rng)
    surroundings = Surroundings(
        subject.surface, world_from_object[frame], (other_hand,), None if met_aloft else 0.0
    )
    grasp = find_grasp(rigs[1], surroundings, rng, config.grasp, share=True)
    if not grasp.holds:
        again = find_grasp(rigs[1], surroundings, rng, config.grasp, share=True)
        grasp = max(grasp, again, key=lambda tried: tried.score)
    if action != "twist":
        return _hold(grasp, times, num_frames)
    free = Surroundings(subject.surface, np.eye(4), (other_hand,))
    slide = _slide(grasp, rigs[1], subject.mesh, free, num_frames, config)
    return _hold(grasp, times, num_frames, slide)


def _slide(
    grasp: Grasp, rig: Rig, mesh: Mesh, free: Surroundings, num_frames: int, config: ActionConfig
) -> FloatArray:
    """Return turns [T, 4, 4] of a hand about the object's own y axis, as wide as the shape allows."""
    begin, end = (time * (num_frames - 1) for time in TWIST)
    part = (np.arange(num_frames) - begin) / (end - begin)
    course = np.sin(np.pi * ease(part)) ** 2  # there and back
    angles = np.deg2rad(config.max_twist_deg) * np.array([1, 0.75, 0.5, 0.25])
    for angle in angles:
        turns = _about_axis(mesh, angle * np.linspace(0, 1, 9))
        vertices = rig.vertices(np.tile(grasp.flexion, (9, 1, 1)), turns @ grasp.object_from_wrist)
        if -free.distance(vertices).min() <= config.grasp.max_penetration_m:
            return _about_axis(mesh, angle * course)
    return _about_axis(mesh, 0 * course)


def _about_axis(mesh: Mesh, angles: FloatArray) -> FloatArray:
    """Return turns [N, 4, 4] by angles [N] about the y axis through the middle of the object."""
    centre = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)).astype(float) / 2
    to_centre = rigid(np.eye(3), centre)
    turn = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_matrix()
    return to_centre @ rigid(turn, np.zeros((len(angles), 3))) @ invert_rigid(to_centre)
