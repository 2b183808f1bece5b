"""Grasps: where a hand goes on an object, and its fingers closed on the surface until they touch.

Letters: B candidate grasps, V = 778 vertices, D = 5 digits (index, middle, little, ring, thumb).
Frame: world in metres, +Y up. The person sits at -Z and looks along +Z, so the right hand comes from -X.
Closing is conservative advancement: no joint turns farther than the free distance allows, so that nothing is
passed through, however thin.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy.spatial.transform import Rotation

from render.contact import ContactField
from render.rig import CLOSED, OPEN, PALM, THUMB, Rig
from render.transforms import invert_rigid, rigid, transform

FloatArray = NDArray[np.float64]
APPROACH_STEPS = 16
BELOW_M = 0.05  # an object so high above the table has room for a hand below it
LEAST_GRIP = 0.2
IDLE_SHARE = 0.35  # of the way to closed, of digits that meet nothing
AMONG_M = 0.015  # a finger so near to the other hand is among its fingers
COVER_M = 0.02  # surface so near to a hand is out of the other's reach
CLOSING_STEPS = (18, 12, 10)  # the whole digit, its last two joints, its last joint
FINGER_HALF_THICKNESS_M = 0.003  # kept between the thumb and the fingers' vertices


class GraspConfig(BaseModel, frozen=True, extra="forbid"):
    """How a grasp is searched for and what counts as touching."""

    num_candidates: int = 24
    """Hand placements tried for one grasp."""
    press_m: float = 0.0005
    """How deep a finger presses into the surface when it stops, metres."""
    contact_m: float = 0.0015
    """A digit touches when a vertex is this near, metres."""
    max_penetration_m: float = 0.005
    """Deepest that any vertex of a good grasp lies inside something, metres."""
    interlock: float = 0.0
    """Points for fingers among those of the hand that holds already, against about 9 for a firm grasp."""


@dataclass(frozen=True)
class Surroundings:
    """What a hand must not enter: the object it grasps, other surfaces and a table."""

    target: ContactField
    world_from_target: FloatArray  # [4, 4]
    others: tuple[ContactField, ...] = ()  # in the target's frame
    table_m: float = 0.0  # height of the table's top

    def target_distance(self, points: NDArray[np.floating]) -> FloatArray:
        """Return signed distances [...] of world points [..., 3] to the object alone."""
        return self.target.distance(_moved(invert_rigid(self.world_from_target), points))

    def others_distance(self, points: NDArray[np.floating]) -> FloatArray:
        """Return signed distances [...] of world points [..., 3] to the other surfaces; infinite without."""
        local = _moved(invert_rigid(self.world_from_target), points)
        nearest = np.full(points.shape[:-1], np.inf)
        for field in self.others:
            nearest = np.minimum(nearest, field.distance(local))
        return nearest

    def distance(self, points: NDArray[np.floating]) -> FloatArray:
        """Return signed distances [...] of world points [..., 3] to whatever is nearest."""
        nearest = np.minimum(self.target_distance(points), self.others_distance(points))
        return np.minimum(nearest, points[..., 1] - self.table_m)


@dataclass(frozen=True)
class Grasp:
    """One hand's hold of an object."""

    side: str
    object_from_wrist: FloatArray  # [4, 4]
    flexion: FloatArray  # [D, 3]
    retreat: FloatArray  # [3] unit, object's frame: where the hand comes from
    touching: NDArray[np.bool_]  # [D]
    grip: float  # 1: thumb or palm push straight against the fingers; 0 or less: nothing opposes them
    penetration_m: float  # deepest vertex
    score: float

    @property
    def steadies(self) -> bool:
        """Whether two digits touch."""
        return int(self.touching.sum()) >= 2

    @property
    def pinches(self) -> bool:
        """Whether the thumb and a finger touch, against each other."""
        return bool(self.touching[THUMB]) and bool(self.touching[:THUMB].any()) and self.grip > LEAST_GRIP

    @property
    def holds(self) -> bool:
        """Whether the thumb and two fingers touch, against each other or the palm."""
        return self.pinches and int(self.touching[:THUMB].sum()) >= 2


def find_grasp(
    rig: Rig, surroundings: Surroundings, rng: np.random.Generator, config: GraspConfig, *, share: bool
) -> Grasp:
    """Try placements of the hand about the object and return the best closed one.

    To share is to leave as much of the object as possible to the other hand.
    """
    wrists, retreats = _placements(rig, surroundings, rng, config)  # [B, 4, 4], [B, 3]
    flexion = close_hand(rig, wrists, surroundings, config)  # [B, D, 3]
    vertices = rig.vertices(flexion, wrists)  # [B, V, 3]
    verdict = _judge(rig, vertices, surroundings, config)
    score = verdict.score + 1.5 * np.einsum(
        "bc,c->b", wrists[:, :3, :3] @ rig.axes[2], natural_forward(rig.side)
    )
    if share:
        surface = _moved(surroundings.world_from_target, surroundings.target.points[::100])
        covered = _nearest(np.tile(surface, (len(vertices), 1, 1)), vertices) < COVER_M  # [B, points]
        score = score - 4 * covered.mean(axis=1)
    if config.interlock:
        fingers = vertices[:, rig.links[:, 0] >= 0]
        score = score + config.interlock * (surroundings.others_distance(fingers) < AMONG_M).mean(axis=1)
    best = int(score.argmax())
    object_from_world = invert_rigid(surroundings.world_from_target)
    return Grasp(
        side=rig.side,
        object_from_wrist=object_from_world @ wrists[best],
        flexion=flexion[best],
        retreat=object_from_world[:3, :3] @ retreats[best],
        touching=verdict.touching[best],
        grip=float(verdict.grip[best]),
        penetration_m=float(verdict.penetration_m[best]),
        score=float(score[best]),
    )


def natural_forward(side: str) -> FloatArray:
    """Return the direction [3] from wrist to fingers of a forearm that lies at ease."""
    inwards = 0.4 if side == "right" else -0.4
    return np.array([inwards, -0.2, 0.9]) / np.linalg.norm([inwards, -0.2, 0.9])


def wrist_rotation(rig: Rig, palm: FloatArray, forward: FloatArray) -> FloatArray:
    """Return world_from_wrist rotations [..., 3, 3] with the palm facing `palm` and fingers along `forward`.

    Both are [..., 3]; the fingers give way where the two are not at right angles.
    """
    forward = forward - palm * (forward * palm).sum(axis=-1, keepdims=True)
    forward = forward / np.linalg.norm(forward, axis=-1, keepdims=True)
    radial = np.cross(forward, palm) * (1 if rig.side == "right" else -1)
    return np.stack([radial, palm, forward], axis=-1) @ rig.axes


def close_hand(rig: Rig, wrists: FloatArray, surroundings: Surroundings, config: GraspConfig) -> FloatArray:
    """Close open hands at wrists [B, 4, 4] until every digit touches; return flexions [B, D, 3].

    The thumb closes last and stops at the fingers too.
    """
    closing = _Closing(rig, wrists, surroundings, config)
    flexion = np.tile(OPEN, (len(wrists), 1, 1))
    for digits in (np.arange(len(OPEN)) < THUMB, np.arange(len(OPEN)) == THUMB):
        flexion = closing.close(flexion, digits)
    return flexion


@dataclass(frozen=True)
class _Closing:
    """Hands whose fingers close where they are. Digits to be closed are masks [D]."""

    rig: Rig
    wrists: FloatArray  # [B, 4, 4]
    surroundings: Surroundings
    config: GraspConfig

    def close(self, flexion: FloatArray, digits: NDArray[np.bool_]) -> FloatArray:
        """Turn all joints of some digits, then those beyond the link that touches; return flexions."""
        whole, touching = self._advance(flexion, digits, 0)
        closed = whole
        for stage in (1, 2):
            closed, _ = self._advance(closed, digits, stage)
        # A digit that meets nothing stays on its free path, as far closed as its neighbours.
        share = ((whole - OPEN) / (CLOSED - OPEN)).mean(axis=-1)  # [B, D]
        counted = touching & digits
        count = counted.sum(axis=1)
        ease = np.where(count > 0, (share * counted).sum(axis=1) / np.maximum(count, 1), IDLE_SHARE)
        idle = OPEN + ease[:, None, None] * (CLOSED - OPEN)
        return np.where(digits[:, None], np.where(touching[..., None], closed, idle), flexion)

    def _advance(
        self, flexion: FloatArray, digits: NDArray[np.bool_], stage: int
    ) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Turn joints from `stage` on towards closed; return flexions and which digits touch [B, D]."""
        span = np.where(digits[:, None] & (np.arange(3) >= stage), CLOSED - flexion, 0.0)  # [B, D, 3]
        speed = np.maximum((span * self.rig.reach).sum(axis=-1), 1e-6)  # [B, D] metres of the tip, at most
        progress, gap = np.zeros(speed.shape), np.full(speed.shape, np.inf)
        rows = np.arange(len(flexion))  # the hands that still move
        for _ in range(CLOSING_STEPS[stage]):
            angles = (flexion + progress[..., None] * span)[rows]
            gap[rows] = self._gaps(angles, self.wrists[rows], digits, stage)
            advance = np.maximum(gap[rows] + self.config.press_m, 0) / speed[rows]
            progress[rows] = np.minimum(1, progress[rows] + advance)
            rows = np.flatnonzero(((progress < 1) & (gap > 0) & digits).any(axis=1))
            if not len(rows):
                break
        return flexion + progress[..., None] * span, gap < self.config.contact_m

    def _gaps(
        self, flexion: FloatArray, wrists: FloatArray, digits: NDArray[np.bool_], stage: int
    ) -> FloatArray:
        """Return the distance [B, D] of the links from `stage` on of some digits to what stops them."""
        digit, link = self.rig.links.T
        vertices = self.rig.vertices(flexion, wrists)
        moving = (digit >= 0) & digits[digit] & (link >= stage)
        distance = self.surroundings.distance(vertices[:, moving])  # [B, vertices that move]
        if digits[THUMB]:
            fingers = vertices[:, (digit >= 0) & (digit != THUMB)]
            distance = np.minimum(distance, _nearest(vertices[:, moving], fingers) - FINGER_HALF_THICKNESS_M)
        return least_by_digit(distance, digit[moving])


def _placements(
    rig: Rig, surroundings: Surroundings, rng: np.random.Generator, config: GraspConfig
) -> tuple[FloatArray, FloatArray]:
    """Draw wrists [B, 4, 4] with the open palm at the object, and the directions [B, 3] they came from."""
    count, side = config.num_candidates, -1.0 if rig.side == "right" else 1.0
    surface = transform(surroundings.world_from_target, surroundings.target.points)
    low, high = surface.min(axis=0), surface.max(axis=0)
    below = -50 if low[1] > surroundings.table_m + BELOW_M else -5  # in the air a hand may come from below
    azimuth, elevation = np.deg2rad(rng.uniform((-30, below), (65, 88), (count, 2)).T)
    retreat = np.stack(
        [np.cos(elevation) * np.cos(azimuth) * side, np.sin(elevation), -np.cos(elevation) * np.sin(azimuth)],
        axis=-1,
    )
    roll = Rotation.from_rotvec(retreat * np.deg2rad(rng.uniform(-40, 40, (count, 1))))
    rotation = wrist_rotation(rig, -retreat, roll.apply(natural_forward(rig.side)))  # [B, 3, 3]

    inner = np.maximum((high - low) / 2 - 0.035, 0)  # a hand about a point in here has the object before it
    aim = (low + high) / 2 + rng.uniform(-1, 1, (count, 3)) * inner
    palm_point = rng.uniform(0.7, 1.05, (count, 1)) * rig.knuckle
    far = np.linalg.norm(high - low) / 2 + 0.10
    position = aim - np.einsum("bij,bj->bi", rotation, palm_point) + far * retreat

    flexion = np.tile(OPEN, (count, 1, 1))
    vertices = rig.vertices(flexion, rigid(rotation, position))  # [B, V, 3]
    travel = np.zeros((count, 1, 1))
    for _ in range(APPROACH_STEPS):
        gap = surroundings.distance(vertices - travel * retreat[:, None]).min(axis=1)
        travel = np.minimum(travel + np.maximum(gap - config.contact_m / 2, 0)[:, None, None], far)
    standoff = rng.choice([0.0, 0.0, 0.01, 0.02, 0.035], count)  # palm on the object, or fingertips only
    return rigid(rotation, position - (travel[:, 0] - standoff[:, None]) * retreat), retreat


@dataclass(frozen=True)
class _Verdict:
    """What closed hands amount to."""

    touching: NDArray[np.bool_]  # [B, D]
    grip: FloatArray  # [B] 1: thumb or palm push straight against the fingers; 0: nothing opposes them
    penetration_m: FloatArray  # [B] deepest vertex
    score: FloatArray  # [B]


def _judge(
    rig: Rig, vertices: NDArray[np.floating], surroundings: Surroundings, config: GraspConfig
) -> _Verdict:
    """Measure hands with vertices [B, V, 3]."""
    digit = np.where(rig.links[:, 0] < 0, PALM, rig.links[:, 0])
    distance = surroundings.target_distance(vertices)  # [B, V]
    local = _moved(invert_rigid(surroundings.world_from_target), vertices)
    pushes = np.zeros((len(vertices), PALM + 1, 3))  # the object's outward normal where each part is nearest
    for row in range(PALM + 1):
        members = np.flatnonzero(digit == row)
        nearest = members[distance[:, members].argmin(axis=1)]
        pushes[:, row] = surroundings.target.nearest_normals(local[np.arange(len(local)), nearest])
        near = np.take_along_axis(distance, nearest[:, None], axis=1) < config.contact_m
        pushes[:, row] *= near  # none where it does not touch
    touching = (pushes != 0).any(axis=-1)  # [B, D + 1]
    fingers = pushes[:, :THUMB].sum(axis=1)
    fingers /= np.maximum(np.linalg.norm(fingers, axis=-1, keepdims=True), 1e-9)
    opposed = np.einsum("bpc,bc->bp", pushes[:, THUMB:], -fingers)  # [B, 2] by the thumb, by the palm
    penetration = np.maximum(-surroundings.distance(vertices).min(axis=1), 0)
    too_deep = np.maximum(penetration - 0.5 * config.max_penetration_m, 0) / 0.001  # millimetres
    score = touching[:, :THUMB].sum(axis=1) + 2.5 * touching[:, THUMB] + 2 * opposed[:, 0] - 2 * too_deep
    return _Verdict(touching[:, :PALM], opposed.max(axis=1), penetration, score)


def least_by_digit(distance: FloatArray, digit: NDArray[np.int_]) -> FloatArray:
    """Return the least of the distances [B, N] of each digit's vertices, [B, D]; infinite without any."""
    return np.stack(
        [distance[:, digit == row].min(axis=1, initial=np.inf) for row in range(len(OPEN))], axis=1
    )


def _nearest(points: NDArray[np.floating], others: NDArray[np.floating]) -> FloatArray:
    """Return the distance [B, N] from points [B, N, 3] to the nearest of others [B, M, 3]."""
    points, others = points.astype(np.float64), others.astype(np.float64)
    squared = (
        (points**2).sum(-1)[:, :, None] + (others**2).sum(-1)[:, None] - 2 * points @ others.swapaxes(1, 2)
    )
    return np.sqrt(np.maximum(squared.min(axis=-1), 0))


def _moved(target_from_source: FloatArray, points: NDArray[np.floating]) -> FloatArray:
    """Move points [..., 3] by one transform [4, 4]."""
    return points @ target_from_source[:3, :3].T + target_from_source[:3, 3]
