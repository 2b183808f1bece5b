"""Synthetic capture sessions: two hands handle one object before several cameras, with ground truth for all.

Letters: T frames, S = 2 sides (left, right), D = 5 digits (index, middle, little, ring, thumb).
Frame: world in metres, +Y up; the object starts and ends on a table at y = 0, the person sits at -Z.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from scipy.spatial import cKDTree

from render.actions import Action, ActionConfig, Plan, Subject, plan_action
from render.choreography import DETOURS, clear_table, hand_track, idle_wrists
from render.contact import ContactField, contact_field
from render.grasp import Grasp, least_by_digit
from render.hands.model import HandModel
from render.lighting import LightingConfig
from render.rig import Rig
from render.scene import SIDES, Camera, Clip, Mesh, ObjectMotion
from render.stage import Room, place_camera, random_lighting
from render.trajectories import seed_generator
from render.transforms import invert_rigid, transform

FloatArray = NDArray[np.float64]

ROUGH_M = 0.002  # a hand on its way may brush what is there so deep
SKIN_M = 0.004  # between the vertices of hands that touch


class SynthesisConfig(BaseModel, frozen=True, extra="forbid"):
    """One synthetic session."""

    num_frames: int = Field(default=72, ge=16)
    """Frames of the clip."""
    fps: float = Field(default=24.0, gt=0)
    """Frames a second."""
    width: int = Field(default=320, ge=16)
    """Columns of every camera, pixels."""
    height: int = Field(default=240, ge=16)
    """Rows of every camera, pixels."""
    num_cameras: int = Field(default=3, ge=1)
    """Cameras on the arc."""
    camera_arc_deg: float = 90.0
    """From the first camera to the last, degrees about the vertical."""
    extent_m: tuple[float, float] = (0.06, 0.21)
    """Least and greatest extent of an object as it is; one outside is scaled to `scaled_extent_m`."""
    scaled_extent_m: float = 0.15
    """Greatest extent of a scaled object, metres."""
    max_grip_m: float = 0.085
    """A scaled object's least extent is at most this, metres."""
    participant: str | None = None
    """Seeds the shape and skin of the hands; null: each session has a person of its own."""
    gloves: bool = False
    """Hands wear gloves whose palm and digits differ in colour, instead of skin."""
    studio: str | None = None
    """Seeds room and light; null: each session has a room of its own."""
    action: ActionConfig = ActionConfig()
    """What the hands do."""


@dataclass(frozen=True)
class SyntheticObject:
    """An object to be handled."""

    name: str
    mesh: Mesh
    digest: str
    provenance: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SynthesisReport:
    """What happens in a session, measured on the surfaces."""

    action: Action
    grasps: tuple[Grasp, ...]
    holding: NDArray[np.bool_]  # [T, S] the hand is rigid with the object, or slides on it
    touching: NDArray[np.bool_]  # [T, S, D] a digit is within `contact_m` of the object
    penetration_m: NDArray[np.float32]  # [T, S] deepest hand vertex inside the object


@dataclass(frozen=True)
class SyntheticSession:
    """A clip without videos, the light to render it in, and its ground truth."""

    clip: Clip
    lighting: LightingConfig
    report: SynthesisReport


def synthesize_clip(
    item: SyntheticObject, hands: Mapping[str, HandModel], seed: int | str, config: SynthesisConfig
) -> SyntheticSession:
    """Make one session; the seed decides everything in it.

    Raises ValueError when neither hand can hold the object.
    """
    rng = seed_generator(seed)
    mesh = graspable(item.mesh, config)
    participant = config.participant or f"participant-{seed}"
    shape = seed_generator(participant).normal(0, 0.6, 10)  # one person: both hands are alike
    rigs: dict[str, Rig] = {side: Rig(hands[side], shape) for side in SIDES}
    subject = Subject(item.name, mesh, contact_field(mesh.vertices, mesh.faces, rng))
    plan = plan_action(subject, rigs, config.num_frames, rng, config.action)
    tracks = _tracks(rigs, plan, subject, rng)
    vertices = {side: rigs[side].vertices(*track) for side, track in tracks.items()}
    points = [transform(plan.world_from_object[::4], mesh.vertices[::7]), *vertices.values()]
    cameras = _cameras(np.concatenate([part.reshape(-1, 3) for part in points]), rng, config)
    studio = seed_generator(config.studio or f"studio-{seed}")
    room = Room(studio)
    world_from_object = plan.world_from_object.astype(np.float32)
    valid = np.ones(config.num_frames, bool)
    clip = Clip(
        id=f"synthetic-{seed}",
        fps=config.fps,
        num_frames=config.num_frames,
        cameras=cameras,
        hands={side: rigs[side].motion(*track) for side, track in tracks.items()},
        objects=(ObjectMotion(item.name, mesh, world_from_object, valid, item.digest, item.provenance),),
        backgrounds={name: room.background(camera) for name, camera in cameras.items()},
        participant=participant,
    )
    return SyntheticSession(
        clip, random_lighting(studio), _report(plan, rigs, vertices, subject.surface, config)
    )


def _tracks(
    rigs: Mapping[str, Rig], plan: Plan, subject: Subject, rng: np.random.Generator
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return each hand's flexions [T, D, 3] and wrists [T, 4, 4]; free hands keep clear of everything."""
    half_width = float(np.ptp(transform(plan.world_from_object[0], subject.mesh.vertices)[:, 0]) / 2)
    frames = np.arange(len(plan.world_from_object))
    object_from_world = invert_rigid(plan.world_from_object)
    tracks: dict[str, tuple[FloatArray, FloatArray]] = {}
    others: list[NDArray[np.float32]] = []  # vertices [T, V, 3] of the hands that are placed
    for side, rig in rigs.items():
        holds = [hold for hold in plan.holds if hold.grasp.side == side]
        free = np.ones(len(frames), bool)
        for hold in holds:
            free &= (frames < hold.arrive) | (frames > hold.leave)
        away = idle_wrists(rig, len(frames), half_width, rng)
        most = -np.inf
        for detour in DETOURS:
            flexion, wrists = hand_track(holds, plan.world_from_object, away, detour)
            lowest = rig.vertices(flexion, wrists)[..., 1].min(axis=1)  # [T]
            wrists = clear_table(wrists, lowest, free)
            vertices = rig.vertices(flexion, wrists)
            to_object = transform(object_from_world[free], vertices[free])
            gap = subject.surface.distance(to_object).min(initial=np.inf)
            gap = min([gap, *(_hand_gap(vertices[free], other[free]) for other in others)])
            if gap > most:
                tracks[side], placed, most = (flexion, wrists), vertices, gap
            if gap > -ROUGH_M:
                break
        others.append(placed)
    return tracks


def _hand_gap(vertices: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Return the least distance in metres between two hands [T, V, 3], about 0 where their skins meet."""
    pairs = zip(vertices, others, strict=True)
    nearest = [np.min(cKDTree(other).query(hand, distance_upper_bound=0.05)[0]) for hand, other in pairs]
    return float(np.min(nearest, initial=np.inf)) - SKIN_M


def graspable(mesh: Mesh, config: SynthesisConfig) -> Mesh:
    """Return the mesh in a size that hands can hold: as it is if it has one, else scaled."""
    extents = np.ptp(mesh.vertices.astype(np.float64), axis=0)
    least, greatest = config.extent_m
    if least <= extents.max() <= greatest and extents.min() <= config.max_grip_m:
        return mesh
    scale = min(config.scaled_extent_m / extents.max(), config.max_grip_m / max(extents.min(), 1e-9))
    return replace(mesh, vertices=(mesh.vertices * scale).astype(np.float32))


def _cameras(points: FloatArray, rng: np.random.Generator, config: SynthesisConfig) -> dict[str, Camera]:
    """Place cameras along the arc, each with all points [P, 3] in its picture."""
    half = config.camera_arc_deg / 2
    azimuths = np.linspace(-half, half, config.num_cameras) if config.num_cameras > 1 else [0.0]
    size = (config.width, config.height)
    return {
        f"camera{index}": place_camera(points, float(azimuth), size, rng)
        for index, azimuth in enumerate(azimuths)
    }


def _report(
    plan: Plan,
    rigs: Mapping[str, Rig],
    vertices: Mapping[str, NDArray[np.float32]],
    surface: ContactField,
    config: SynthesisConfig,
) -> SynthesisReport:
    """Measure holding, touch and penetration in every frame."""
    num_frames = len(plan.world_from_object)
    frames = np.arange(num_frames)
    holding = np.zeros((num_frames, len(SIDES)), bool)
    for hold in plan.holds:
        column = SIDES.index(hold.grasp.side)
        holding[:, column] |= (frames >= hold.closed) & (frames <= hold.release)
    touching = np.zeros((num_frames, len(SIDES), 5), bool)
    penetration = np.zeros((num_frames, len(SIDES)), np.float32)
    object_from_world = invert_rigid(plan.world_from_object)
    for column, side in enumerate(SIDES):
        distance = surface.distance(transform(object_from_world, vertices[side]))  # [T, V]
        near = least_by_digit(distance, rigs[side].links[:, 0])
        touching[:, column] = near < config.action.grasp.contact_m
        penetration[:, column] = np.maximum(-distance.min(axis=1), 0)
    grasps = tuple(hold.grasp for hold in plan.holds)
    return SynthesisReport(plan.action, grasps, holding, touching, penetration)
