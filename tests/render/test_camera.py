"""Projection, clip space and crops agree with one another and with OpenCV's definitions."""

from dataclasses import replace

import numpy as np
import pytest

from render.camera import Crop, clip_from_camera, clip_vertices, crop_camera, distort, project
from render.scene import Camera
from render.transforms import look_at, transform


@pytest.fixture
def camera() -> Camera:
    intrinsics = np.array([[600.0, 1.5, 322.7], [0.0, 610.0, 241.2], [0.0, 0.0, 1.0]])
    return Camera(640, 480, intrinsics, look_at((0.2, 0.5, 1.0), (0.0, 0.0, 0.0)))


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.3, 0.3, size=(100, 3))


def test_projection_is_opencvs(camera: Camera, points: np.ndarray) -> None:
    pixels, depth = project(points, camera)
    homogeneous = transform(camera.camera_from_world, points) @ camera.intrinsics.T
    np.testing.assert_allclose(pixels, homogeneous[:, :2] / homogeneous[:, 2:], atol=1e-9)
    np.testing.assert_allclose(depth, homogeneous[:, 2])


def test_point_straight_ahead_lands_on_the_principal_point(camera: Camera) -> None:
    pixel, depth = project(np.zeros(3), camera)
    np.testing.assert_allclose(pixel, camera.intrinsics[:2, 2])
    assert depth == pytest.approx(np.linalg.norm((0.2, 0.5, 1.0)))


@pytest.mark.parametrize("distortion", [None, np.array([-0.3, 0.1, 0.001, -0.002, 0.01])])
def test_clip_space_puts_pixel_centres_where_projection_does(
    camera: Camera, points: np.ndarray, distortion: np.ndarray | None
) -> None:
    camera = replace(camera, distortion=distortion)
    clip = clip_vertices(transform(camera.camera_from_world, points), camera, near=0.1, far=3.0)
    pixels, depth = project(points, camera)
    ndc = clip[:, :3] / clip[:, 3:]
    np.testing.assert_allclose((ndc[:, 0] + 1) * camera.width / 2 - 0.5, pixels[:, 0], atol=1e-3)
    np.testing.assert_allclose((ndc[:, 1] + 1) * camera.height / 2 - 0.5, pixels[:, 1], atol=1e-3)
    np.testing.assert_allclose(clip[:, 3], depth, rtol=1e-6)


def test_near_and_far_planes_bound_clip_depth(camera: Camera) -> None:
    clip = clip_from_camera(camera, 0.25, 4.0) @ np.array([[0, 0, 0.25, 1], [0, 0, 4.0, 1]]).T
    np.testing.assert_allclose(clip[2] / clip[3], [-1, 1])


def test_distortion_follows_opencvs_formula() -> None:
    k1, k2, p1, p2, k3 = coefficients = np.array([-0.2, 0.05, 0.003, -0.001, 0.02])
    x, y = 0.3, -0.2
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    expected = (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )
    np.testing.assert_allclose(distort(np.array([x, y]), coefficients), expected, atol=1e-12)


def test_strong_distortion_never_folds_far_points_back_into_the_picture() -> None:
    radii = np.linspace(0.01, 20, 500)
    plane = np.stack([radii, np.zeros_like(radii)], axis=-1)
    assert (np.diff(distort(plane, np.array([-0.3, 0.0, 0.0, 0.0]))[:, 0]) > -1e-4).all()


def test_unknown_distortion_model_is_an_error() -> None:
    with pytest.raises(ValueError, match="coefficients"):
        distort(np.zeros((1, 2)), np.zeros(3))


@pytest.mark.parametrize("size", [96, 240, 512])
def test_cropped_camera_projects_to_cropped_and_resized_pixels(
    camera: Camera, points: np.ndarray, size: int
) -> None:
    crop = Crop(x0=90, y0=30, size_px=240)
    pixels, depth = project(points, camera)
    cropped, cropped_depth = project(points, crop_camera(camera, crop, size))
    # A picture resize maps pixel edges, not centres: column c covers [c, c + 1).
    np.testing.assert_allclose(cropped, (pixels + 0.5 - (90, 30)) * size / 240 - 0.5, atol=1e-9)
    np.testing.assert_allclose(cropped_depth, depth)
