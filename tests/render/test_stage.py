"""Cameras that have everything in the picture, and the empty room behind it."""

import numpy as np
import pytest

from render.camera import project
from render.scene import Camera
from render.stage import MARGIN, TABLE_M, Room, place_camera, random_lighting


def scene_points() -> np.ndarray:
    return np.random.default_rng(0).uniform((-0.25, 0.0, -0.2), (0.3, 0.3, 0.1), (500, 3))


def camera(azimuth_deg: float = 30.0, size: tuple[int, int] = (80, 60), seed: int = 0) -> Camera:
    return place_camera(scene_points(), azimuth_deg, size, np.random.default_rng(seed))


@pytest.mark.parametrize("size", [(80, 60), (60, 80), (64, 64)])
@pytest.mark.parametrize("azimuth_deg", [-60.0, 0.0, 45.0])
def test_scene_fills_the_picture_and_stays_inside(size: tuple[int, int], azimuth_deg: float) -> None:
    for seed in range(5):
        placed = camera(azimuth_deg, size, seed)
        pixels, depth = project(scene_points(), placed)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        assert depth.min() > 0.2
        assert (low >= -0.5).all()
        assert (high <= np.array(size) - 0.5).all()
        assert ((high - low) / size).max() > 0.85 * MARGIN


def test_camera_looks_down_at_the_person_from_the_front() -> None:
    world_from_camera = np.linalg.inv(camera(0.0).camera_from_world)
    eye, forward, down = world_from_camera[:3, 3], world_from_camera[:3, 2], world_from_camera[:3, 1]
    assert eye[2] > 0.3
    assert forward[2] < 0
    assert forward[1] < 0
    assert down[1] < 0


def test_room_shows_the_table_below_and_the_wall_above() -> None:
    placed = camera(0.0)
    picture = Room(np.random.default_rng(3)).background(placed)
    assert picture.shape == (60, 80, 3)
    assert picture.dtype == np.uint8
    far_edge, _ = project(np.array([0.0, 0.0, -TABLE_M[1]]), placed)
    row = int(far_edge[1])
    assert 1 < row < 58
    above, below = picture[: row - 1].mean(axis=(0, 1)), picture[row + 2 :].mean(axis=(0, 1))
    assert np.abs(above - below).max() > 5


def test_one_room_is_the_same_for_all_cameras_and_its_seed_decides_it() -> None:
    placed = camera()
    first, again, other = (Room(np.random.default_rng(seed)).background(placed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first.astype(int) - other.astype(int)).mean() > 3
    assert random_lighting(np.random.default_rng(1)) == random_lighting(np.random.default_rng(1))
    assert random_lighting(np.random.default_rng(1)) != random_lighting(np.random.default_rng(2))
