"""Random motion of one object in front of a camera (paper, Sec. 3.2: quaternions Q and translations L).

Letters: T frames, K keyframes. Frame: world, metres; positions are drawn in the camera's frame (OpenCV).
The object's bounding sphere lies inside the view in every frame: the set of sphere centres for which it does
is convex, and each step below keeps to it.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation, Slerp

from render.scene import Camera
from render.transforms import invert_rigid, rigid


class TrajectoryConfig(BaseModel, frozen=True, extra="forbid"):
    """How far, how near and how fast an object moves."""

    frames_per_keyframe: int = Field(default=12, ge=1)
    """Frames from one random pose to the next."""
    max_turn_deg: float = Field(default=6.0, gt=0, le=180)
    """Fastest turn, degrees a frame."""
    max_step_radii: float = Field(default=0.12, gt=0)
    """Fastest move, bounding-sphere radii a frame."""
    min_fill: float = Field(default=0.35, gt=0, lt=1)
    """Least diameter of the bounding sphere in the picture, as a part of the picture's short side."""
    max_fill: float = Field(default=0.8, gt=0, lt=1)
    """Greatest diameter of the bounding sphere in the picture, as a part of the picture's short side."""


def seed_generator(seed: int | str) -> np.random.Generator:
    """Return a generator that a number or a text (an object's digest) decides alone, on any machine."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(str(seed).encode()).digest()))


def random_trajectory(
    seed: int | str, num_frames: int, camera: Camera, radius_m: float, config: TrajectoryConfig | None = None
) -> NDArray[np.float32]:
    """Return world_from_object [T, 4, 4] of an object with a bounding sphere of `radius_m` about its origin.

    The camera counts as an ideal pinhole (its distortion is left out).
    """
    config = config or TrajectoryConfig()
    rng = seed_generator(seed)
    frames_per_keyframe = config.frames_per_keyframe
    num_keyframes = max(2, -(-(num_frames - 1) // frames_per_keyframe) + 1)
    key_frames = np.arange(num_keyframes) * frames_per_keyframe  # [K]
    frames = np.arange(num_frames)
    rotations = Slerp(key_frames, _random_rotations(rng, num_keyframes, config))(frames)
    camera_positions = _random_positions(rng, key_frames, frames, camera, radius_m, config)  # [T, 3]
    camera_from_object = rigid(rotations.as_matrix(), camera_positions)
    return (invert_rigid(camera.camera_from_world) @ camera_from_object).astype(np.float32)


def centre_bounds(
    camera: Camera, radius_m: float, depth_m: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and greatest (x, y) [..., 2], at each depth [...], of a sphere wholly in the picture.

    A side plane of the view, through pixel edge e, is f x + (c - e) z = 0; its distance to the centre must be
    at least the radius.
    """
    focal = np.diag(camera.intrinsics)[:2]
    centre = camera.intrinsics[:2, 2]
    low_edge = centre + 0.5  # pixel centres are whole numbers: the picture starts at -0.5
    high_edge = np.array([camera.width, camera.height]) - 0.5 - centre
    depth = np.asarray(depth_m, np.float64)[..., None]
    low = (radius_m * np.hypot(focal, low_edge) - low_edge * depth) / focal
    high = (high_edge * depth - radius_m * np.hypot(focal, high_edge)) / focal
    return low, high


def depth_range(camera: Camera, radius_m: float, config: TrajectoryConfig) -> tuple[float, float]:
    """Return the nearest and farthest depth in metres that the fill limits and the view's sides allow."""
    focal = np.diag(camera.intrinsics)[:2]
    at_fill = 2 * radius_m * focal.min() / min(camera.width, camera.height)
    low, high = centre_bounds(camera, radius_m, np.array([0.0, 1.0]))
    room, room_growth = (
        (high - low)[0],
        (high - low)[1] - (high - low)[0],
    )  # room = 0: the sphere touches both
    nearest = max(at_fill / config.max_fill, float((-room / room_growth).max()) * 1.02)
    return nearest, max(at_fill / config.min_fill, nearest * 1.1)


def _random_rotations(rng: np.random.Generator, num_keyframes: int, config: TrajectoryConfig) -> Rotation:
    """Draw keyframe rotations: the first uniform, each next a uniform turn, shortened to the speed limit."""
    max_turn = np.deg2rad(config.max_turn_deg) * config.frames_per_keyframe
    rotation = Rotation.from_quat(rng.normal(size=4))  # uniform: normal draws have no direction
    rotations = [rotation]
    for _ in range(num_keyframes - 1):
        turn = Rotation.from_quat(rng.normal(size=4)).as_rotvec()
        turn *= min(1.0, max_turn / np.linalg.norm(turn))
        rotation = Rotation.from_rotvec(turn) * rotation
        rotations.append(rotation)
    return Rotation.concatenate(rotations)


def _random_positions(
    rng: np.random.Generator,
    key_frames: NDArray[np.int_],
    frames: NDArray[np.int_],
    camera: Camera,
    radius_m: float,
    config: TrajectoryConfig,
) -> NDArray[np.float64]:
    """Draw a smooth path [T, 3] in the camera's frame, inside the view and within the speed limit."""
    unit = rng.uniform(size=(len(key_frames), 3))  # across, down and along the view
    unit = PchipInterpolator(key_frames, unit)(frames)  # monotone between keyframes: stays in the unit cube
    nearest, farthest = depth_range(camera, radius_m, config)
    depth = nearest + unit[:, 2] * (farthest - nearest)
    low, high = centre_bounds(camera, radius_m, depth)
    path = np.concatenate([low + unit[:, :2] * (high - low), depth[:, None]], axis=1)
    fastest = np.linalg.norm(np.diff(path, axis=0), axis=1).max(initial=0.0)
    middle = path.mean(axis=0)
    shrink = min(1.0, config.max_step_radii * radius_m / max(fastest, 1e-12))
    return middle + shrink * (path - middle)  # towards a point of a convex set: still inside it
