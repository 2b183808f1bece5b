"""Transforms compose, invert and broadcast; cameras look where they are told to."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from render.transforms import (
    invert_rigid,
    look_at,
    rigid,
    transform,
)


def random_rigid(rng: np.random.Generator, *batch: int) -> np.ndarray:
    rotation = Rotation.random(int(np.prod(batch)), random_state=rng).as_matrix().reshape(*batch, 3, 3)
    return rigid(rotation, rng.normal(size=(*batch, 3)))


def test_inverse_undoes_transform() -> None:
    rng = np.random.default_rng(0)
    world_from_object, points = random_rigid(rng, 5), rng.normal(size=(5, 7, 3))
    moved = transform(world_from_object, points)
    np.testing.assert_allclose(transform(invert_rigid(world_from_object), moved), points, atol=1e-12)


def test_batches_of_transforms_meet_batches_of_points() -> None:
    rng = np.random.default_rng(1)
    batch, points = random_rigid(rng, 4), rng.normal(size=(6, 3))
    moved = transform(batch, points)
    assert moved.shape == (4, 6, 3)
    assert transform(batch[0], np.broadcast_to(points, (2, 6, 3))).shape == (2, 6, 3)
    np.testing.assert_allclose(transform(batch[2], points[3]), moved[2, 3], atol=1e-12)
    np.testing.assert_allclose((batch[1] @ np.append(points[5], 1))[:3], moved[1, 5], atol=1e-12)


def test_camera_sees_its_target_on_the_optical_axis_with_up_upwards() -> None:
    camera_from_world = look_at(eye=(1.0, 2.0, 3.0), target=(0.0, 1.0, 0.0))
    np.testing.assert_allclose(
        transform(camera_from_world, np.array([0.0, 1.0, 0.0])), [0, 0, np.sqrt(11)], atol=1e-12
    )
    above = transform(camera_from_world, np.array([0.0, 1.1, 0.0]))
    assert above[1] < -0.05  # OpenCV: up in the picture is −y
    assert abs(above[0]) < 1e-12
    assert np.linalg.det(camera_from_world[:3, :3]) == pytest.approx(1)


def test_world_x_is_right_for_a_camera_on_plus_z() -> None:
    assert transform(look_at((0, 0, 2), (0, 0, 0)), np.array([1.0, 0.0, 0.0]))[0] == pytest.approx(1)


def test_look_at_along_up_is_an_error() -> None:
    with pytest.raises(ValueError, match="one line"):
        look_at((0, 1, 0), (0, 0, 0))
