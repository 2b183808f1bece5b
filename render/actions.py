"""Actions of two hands on one object: who holds it when, how, and where it goes meanwhile.

Letters: T frames, K poses of a leg. Frame: world in metres, +Y up; the object starts and ends on a table at
y = 0, or in the air between hands that clasp it. `centre` is a frame in the middle of the object's bounding
box, with the object's axes.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from scipy.spatial.transform import Rotation

from render.choreography import Hold, Leg, ease, object_motion
from render.contact import ContactField, contact_field
from render.grasp import Grasp, GraspConfig, Surroundings, find_grasp
from render.rig import Rig
from render.scene import SIDES, Mesh
from render.transforms import invert_rigid, rigid

FloatArray = NDArray[np.float64]
Action = Literal["lift", "support", "pass", "twist", "clasp", "one_hand"]


class ActionConfig(BaseModel, frozen=True, extra="forbid"):
    """What hands do with an object."""

    actions: tuple[Action, ...] = ("lift", "support", "pass", "twist")
    """What may happen; one is drawn. Where the second hand's hold is weak it becomes "lift" or "one_hand"."""
    max_turn_deg: float = 55.0
    """How far the object is turned in the air, degrees."""
    max_twist_deg: float = 40.0
    """How far a hand turns about the object in a twist, degrees."""
    attempts: int = Field(default=1, ge=1)
    """How often grasps are sought anew until they allow the action that was drawn."""
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
        ((0.25, 0.31, 0.88, 0.93), (0.50, 0.56, 0.64, 0.69)), ((0.32, 0.45), (0.56, 0.64), (0.73, 0.87))
    ),
    "pass": Times(((0.25, 0.31, 0.61, 0.66), (0.50, 0.57, 0.87, 0.92)), ((0.32, 0.45), (0.67, 0.86))),
    "twist": Times(((0.25, 0.31, 0.83, 0.88), (0.34, 0.40, 0.75, 0.80)), ((0.40, 0.49), (0.67, 0.75))),
    "clasp": Times(((-0.2, -0.1, 1.1, 1.2), (-0.2, -0.1, 1.1, 1.2)), ((0.0, 1.0),)),  # in the air throughout
    "one_hand": Times(((0.25, 0.32, 0.80, 0.85),), ((0.33, 0.79),)),
}
TWIST = (0.48, 0.68)  # when the second hand turns about the object
ATTEMPTS = 2  # of each hand to hold the object as it rests, and again upright
STABLE = 0.25  # an object stands if its base is so wide, as a part of its height; else it lies


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
    """Draw an action and find its grasps; raises ValueError when no hand can hold the object.

    An action that the second hand's grasp does not allow becomes a simpler one.
    """
    action = config.actions[int(rng.integers(len(config.actions)))]
    grasper = _Grasper(subject, rigs, rng, config.grasp)
    plan = _plan(action, grasper, num_frames, config)
    for _ in range(config.attempts - 1):
        if plan.action == action:
            break
        with suppress(ValueError):  # no first grasp this time; the plan there is remains
            plan = _plan(action, grasper, num_frames, config)
    return plan


def _plan(action: Action, grasper: "_Grasper", num_frames: int, config: ActionConfig) -> Plan:
    """Return a plan for the action, or for the nearest to it that the second hand's grasp allows."""
    subject = grasper.subject
    first, start = _first_grasp(action, grasper)
    legs = _leg_poses(action, start, subject.mesh, grasper.rng, config.max_turn_deg)
    centre_from_object = rigid(np.eye(3), -_middle(subject.mesh))
    motion = _object_motion(action, legs, num_frames) @ centre_from_object
    grasps: tuple[Grasp, ...] = (first,)
    slide = None
    if action != "one_hand":
        aloft = int(np.ceil(TIMES[action].holds[1][0] * (num_frames - 1)))
        meeting = {"support": motion[aloft], "pass": motion[-1]}.get(action, motion[0])
        second = grasper.second(first, meeting)
        slide = grasper.slide(first, second, num_frames, config.max_twist_deg) if action == "twist" else None
        action = _feasible(action, second, slide)
        grasps = (first, second)[: len(TIMES[action].holds)]
    holds = []
    for row, (grasp, times) in enumerate(zip(grasps, TIMES[action].holds, strict=True)):
        arrive, closed, release, leave = (time * (num_frames - 1) for time in times)
        holds.append(Hold(grasp, arrive, closed, release, leave, slide if row == 1 else None))
    return Plan(action, tuple(holds), _object_motion(action, legs, num_frames) @ centre_from_object)


def _feasible(action: Action, second: Grasp, slide: FloatArray | None) -> Action:
    """Return the action, or the nearest to it that the second hand's grasp allows."""
    if not second.steadies:
        return "one_hand"
    if (action == "pass" and not second.pinches) or (action == "twist" and slide is None):
        return "lift"
    return action


def _first_grasp(action: Action, grasper: "_Grasper") -> tuple[Grasp, FloatArray]:
    """Return the first hand's grasp, and world_from_centre [4, 4] of the object on the table then."""
    mesh = grasper.subject.mesh
    centre_from_object = rigid(np.eye(3), -_middle(mesh))
    for pose in resting_poses(mesh, grasper.rng):
        grasp = grasper.first(pose @ centre_from_object, share=action != "one_hand")
        if grasp is not None:
            return grasp, pose
    raise ValueError(f"{grasper.subject.name}: no hand finds a grasp with the thumb and a finger")


def resting_poses(mesh: Mesh, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return world_from_centre [4, 4] of the object as it rests on the table, and upright.

    Upright its longest side is, with its thinnest towards the person: what is too flat to be picked up is
    presented like that.
    """
    low = mesh.vertices.min(axis=0).astype(float)
    extents = mesh.vertices.max(axis=0) - low
    base = mesh.vertices[mesh.vertices[:, 1] < low[1] + 0.05 * extents[1]]
    yaw = rng.uniform(-35, 35)
    if np.ptp(base[:, [0, 2]], axis=0).min() > STABLE * extents[1]:
        rest = Rotation.from_euler("y", yaw, degrees=True)
    elif extents[0] < extents[2]:  # lies flat, across the person's view
        rest = Rotation.from_euler("zy", [90, yaw], degrees=True)
    else:
        rest = Rotation.from_euler("xy", [90, 90 + yaw], degrees=True)
    thin, middle, long = np.eye(3)[np.argsort(extents, kind="stable")]
    upright = np.stack([middle * np.linalg.det([middle, long, thin]), long, thin])
    poses = []
    for rotation in (rest.as_matrix(), Rotation.from_euler("y", yaw / 2, degrees=True).as_matrix() @ upright):
        lowest = ((mesh.vertices - _middle(mesh)) @ rotation.T)[:, 1].min()
        poses.append(rigid(rotation, np.array([0, -lowest, 0])))
    return poses[0], poses[1]


def _middle(mesh: Mesh) -> FloatArray:
    """Return the middle [3] of the bounding box."""
    return (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)).astype(np.float64) / 2


def _leg_poses(
    action: Action, start: FloatArray, mesh: Mesh, rng: np.random.Generator, max_turn_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Draw poses [3, 4, 4] of lifting the object, and of putting it down from where it is by then."""
    room_m = 0.07 if action == "support" else 0.03  # a hand that supports may be below
    hurry = 1.0 if len(TIMES[action].legs) == 1 else 0.6  # several legs have less time each
    rotation = Rotation.from_matrix(start[:3, :3])
    sizes = np.abs(start[:3, :3]) @ np.ptp(mesh.vertices, axis=0) / 2  # of the box about the object at rest

    def aloft() -> FloatArray:
        axis = rng.normal(size=3)
        angle = np.deg2rad(hurry * max_turn_deg) * rng.uniform(0.5, 1)
        # Clears the table however the object tilts.
        height = sizes[1] + np.hypot(sizes[0], sizes[2]) * np.sin(angle) + room_m + rng.uniform(0, 0.03)
        turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
        place = np.array([rng.uniform(-0.03, 0.03), height, rng.uniform(-0.02, 0.04)])
        return rigid((turn * rotation).as_matrix(), place)

    yaw = Rotation.from_euler("y", rng.uniform(-30, 30), degrees=True)
    end = rigid((yaw * rotation).as_matrix(), start[:3, 3] + rng.uniform(-1, 1, 3) * (0.04, 0, 0.03))
    raised, lowered = start.copy(), end.copy()
    raised[1, 3] += 0.03
    lowered[1, 3] += 0.03
    first, last = aloft(), aloft()
    if action == "support":
        last = object_motion([Leg(0, 2, np.stack([first, last]))], 3)[1]  # half the way, for lack of time
    return np.stack([start, raised, first]), np.stack([last, lowered, end])


def _object_motion(action: Action, poses: tuple[FloatArray, FloatArray], num_frames: int) -> FloatArray:
    """Return world_from_centre [T, 4, 4] through the poses, in as many legs as the action has."""
    times = TIMES[action].legs
    lift, lower = poses
    aloft = np.stack([lift[-1], lower[0]])
    whole = aloft if action == "clasp" else np.concatenate([lift, lower])
    parts = {1: [whole], 2: [lift, np.concatenate([aloft[:1], lower])]}
    legs = [
        Leg(begin * (num_frames - 1), end * (num_frames - 1), part)
        for (begin, end), part in zip(times, parts.get(len(times), [lift, aloft, lower]), strict=True)
    ]
    return object_motion(legs, num_frames)


@dataclass(frozen=True)
class _Grasper:
    """Finds the grasps of one session."""

    subject: Subject
    rigs: Mapping[str, Rig]
    rng: np.random.Generator
    config: GraspConfig

    def first(self, world_from_object: FloatArray, *, share: bool) -> Grasp | None:
        """Return a grasp on the table, a pinch where nothing better is found with either hand."""
        surroundings = Surroundings(self.subject.surface, world_from_object)
        found = []
        for attempt in range(ATTEMPTS):
            for side in self.rng.permutation(SIDES):
                grasp = find_grasp(
                    self.rigs[side], surroundings, self.rng, self.config, share=share and attempt == 0
                )
                if grasp.holds:
                    return grasp
                found.append(grasp)
        return max((grasp for grasp in found if grasp.pinches), key=lambda grasp: grasp.score, default=None)

    def second(self, first: Grasp, world_from_object: FloatArray) -> Grasp:
        """Return the other hand's grasp, which keeps clear of the first hand."""
        other = self.rigs[SIDES[1 - SIDES.index(first.side)]]
        surroundings = Surroundings(self.subject.surface, world_from_object, (self._posed(first),))
        grasp = find_grasp(other, surroundings, self.rng, self.config, share=True)
        if grasp.holds:
            return grasp
        again = find_grasp(other, surroundings, self.rng, self.config, share=True)
        return max(grasp, again, key=lambda tried: (tried.holds, tried.score))

    def slide(self, first: Grasp, second: Grasp, num_frames: int, max_deg: float) -> FloatArray | None:
        """Return turns [T, 4, 4] of the second hand about the object's y axis, there and back.

        They are as wide as the shape and the first hand allow; None: not at all.
        """
        begin, end = (time * (num_frames - 1) for time in TWIST)
        course = ease(1 - np.abs(2 * (np.arange(num_frames) - begin) / (end - begin) - 1))
        free = Surroundings(self.subject.surface, np.eye(4), (self._posed(first),), table_m=-np.inf)
        flexion = np.tile(second.flexion, (9, 1, 1))
        for part in (1, -1, 0.7, -0.7, 0.4, -0.4):
            angle = np.deg2rad(max_deg) * part
            turns = _about_axis(self.subject.mesh, angle * np.linspace(0, 1, 9))
            vertices = self.rigs[second.side].vertices(flexion, turns @ second.object_from_wrist)
            if -free.distance(vertices).min() <= self.config.max_penetration_m:
                return _about_axis(self.subject.mesh, angle * course)
        return None

    def _posed(self, grasp: Grasp) -> ContactField:
        """Return the surface of a hand that grasps, in the object's frame."""
        rig = self.rigs[grasp.side]
        vertices = rig.vertices(grasp.flexion[None], grasp.object_from_wrist[None])[0]
        return contact_field(vertices, rig.hand.faces, self.rng)


def _about_axis(mesh: Mesh, angles: FloatArray) -> FloatArray:
    """Return turns [N, 4, 4] by angles [N] about the y axis through the middle of the object."""
    to_centre = rigid(np.eye(3), _middle(mesh))
    turn = Rotation.from_rotvec(angles[:, None] * [0, 1, 0]).as_matrix()
    return to_centre @ rigid(turn, np.zeros((len(angles), 3))) @ invert_rigid(to_centre)
