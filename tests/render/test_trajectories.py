"""Random trajectories: always in the picture, smooth, and decided by the seed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from render.scene import Camera
from render.trajectories import TrajectoryConfig, random_trajectory


def make_camera(width: int = 96, height: int = 64, focal: float = 90.0) -> Camera:
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3] = Rotation.from_euler("xyz", [170, 25, -10], degrees=True).as_matrix()
    camera_from_world[:3, 3] = [0.1, -0.2, 0.4]
    intrinsics = np.array([[focal, 0, width / 2 - 3.0], [0, focal * 1.1, height / 2 + 2.0], [0, 0, 1]])
    return Camera(width, height, intrinsics, camera_from_world)


def sphere_points(count: int, radius: float) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(count, 3))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.text(min_size=1, max_size=64),
    size=st.tuples(st.integers(32, 200), st.integers(32, 200)),
    focal=st.floats(30, 400),
    radius=st.floats(1e-3, 1e2),
    num_frames=st.integers(1, 60),
)
def test_bounding_sphere_is_inside_the_picture_in_every_frame(
    seed: str, size: tuple[int, int], focal: float, radius: float, num_frames: int
) -> None:
    camera = make_camera(*size, focal)
    world_from_object = random_trajectory(seed, num_frames, camera, radius).astype(np.float64)
    assert world_from_object.shape == (num_frames, 4, 4)
    camera_from_object = camera.camera_from_world @ world_from_object
    points = sphere_points(400, radius) + camera_from_object[:, None, :3, 3]
    assert points[..., 2].min() > 0
    pixels = points @ camera.intrinsics.T
    pixels = pixels[..., :2] / pixels[..., 2:]
    assert pixels.min() >= -0.5 - 1e-2
    assert (pixels.max(axis=(0, 1)) <= np.array(size) - 0.5 + 1e-2).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_motion_keeps_to_its_speed_limits(seed: int) -> None:
    config = TrajectoryConfig(max_turn_deg=4.0, max_step_radii=0.1)
    world_from_object = random_trajectory(seed, 48, make_camera(), 0.2, config).astype(np.float64)
    rotations = Rotation.from_matrix(world_from_object[:, :3, :3])
    turns = (rotations[1:] * rotations[:-1].inv()).magnitude()
    assert np.rad2deg(turns.max()) <= 4.0 + 1e-3
    steps = np.linalg.norm(np.diff(world_from_object[:, :3, 3], axis=0), axis=1)
    assert steps.max() <= 0.1 * 0.2 + 1e-5
    assert np.rad2deg(turns.max()) > 1.0  # it does move


def test_poses_are_rigid() -> None:
    rotation = random_trajectory("a digest", 40, make_camera(), 0.1)[:, :3, :3].astype(np.float64)
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), np.tile(np.eye(3), (40, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-6)


def test_sphere_fills_the_configured_part_of_the_picture() -> None:
    camera = make_camera(100, 100, 150.0)
    config = TrajectoryConfig(min_fill=0.3, max_fill=0.5)
    world_from_object = random_trajectory("fill", 100, camera, 0.05, config)
    depth = (camera.camera_from_world @ world_from_object)[:, 2, 3]
    fill = 2 * 0.05 * 150.0 / depth / 100
    assert fill.min() > 0.3 - 1e-3
    assert fill.max() < 0.5 + 1e-3


def test_same_digest_gives_the_same_bytes_and_another_digest_another_motion() -> None:
    first, again, other = (random_trajectory(seed, 24, make_camera(), 0.1) for seed in ("a1", "a1", "b2"))
    assert first.tobytes() == again.tobytes()
    assert not np.allclose(first, other, atol=1e-2)


def test_a_longer_clip_starts_with_the_same_rotation() -> None:
    short, long = (random_trajectory("a1", frames, make_camera(), 0.1) for frames in (1, 24))
    np.testing.assert_allclose(short[0, :3, :3], long[0, :3, :3], atol=1e-6)


def test_unknown_setting_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_trun_deg"):
        TrajectoryConfig(max_trun_deg=3.0)
