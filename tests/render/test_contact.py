"""Signed distance for contact: exact on solids, sure of the outside on surfaces open or wound badly."""

import numpy as np
import pytest
from numpy.typing import NDArray

from render.contact import REACH_M, ContactField, contact_field
from render.procedural_shapes import Part, arc, box, join, revolve

RADIUS = 0.04


def sphere(radius: float = RADIUS) -> Part:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 61)
    return revolve(radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1), segments=96)


def field_of(part: Part) -> ContactField:
    return contact_field(part.vertices, part.faces, np.random.default_rng(0))


def points_about(extent: float, count: int = 4000) -> NDArray[np.float64]:
    return np.random.default_rng(1).uniform(-extent, extent, (count, 3))


def capped(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(distance, -REACH_M, REACH_M)


def test_distance_to_a_sphere_is_radial() -> None:
    points = points_about(0.055)
    expected = np.linalg.norm(points, axis=1) - RADIUS
    near = np.abs(expected) < 0.9 * REACH_M
    measured = field_of(sphere()).distance(points)
    np.testing.assert_allclose(measured[near], expected[near], atol=3e-4)
    assert (measured[expected > REACH_M] == REACH_M).all()


def test_distance_to_a_box_is_exact_inside_and_past_its_edges() -> None:
    half = np.array([0.03, 0.05, 0.012])
    points = points_about(0.065)
    off = np.abs(points) - half
    expected = np.linalg.norm(np.maximum(off, 0), axis=1) + np.minimum(off.max(axis=1), 0)
    near = np.abs(expected) < 0.9 * REACH_M
    error = np.abs(field_of(box(2 * half)).distance(points) - expected)[near]
    assert np.median(error) < 1e-5
    assert np.quantile(error, 0.99) < 5e-4


def test_normals_point_outwards_on_an_inside_out_mesh() -> None:
    part = sphere()
    turned = Part(part.vertices, part.faces[:, ::-1], -part.normals, part.uvs)
    points = points_about(0.055, 500)
    np.testing.assert_allclose(field_of(turned).distance(points), field_of(part).distance(points), atol=3e-4)


def test_surface_hidden_inside_does_not_count() -> None:
    shell_in_shell = join([sphere(0.04), sphere(0.03)])
    between = np.array([[0.032, 0, 0], [0, 0.035, 0]])
    measured = field_of(shell_in_shell).distance(between)
    np.testing.assert_allclose(measured, [-0.008, -0.005], atol=3e-4)


def test_thin_sheet_has_an_outside_on_both_sides() -> None:
    above_and_below = np.array([[0.0, 0.01, 0.0], [0.0, -0.01, 0.0], [0.02, 0.004, 0.01]])
    measured = field_of(box((0.15, 0.001, 0.15))).distance(above_and_below)
    np.testing.assert_allclose(measured, [0.0095, 0.0095, 0.0035], atol=3e-4)


def test_no_point_outside_a_sharp_rim_is_inside() -> None:
    rim = revolve([[0, 0], [0.035, 0], [0.035, 0.05], [0.032, 0.054], [0.030, 0.051], [0, 0.051]])
    round_about = arc((0.032, 0.054), 0.018, 0, 120, 60)  # (radius, y)
    angle = np.random.default_rng(2).uniform(0, 2 * np.pi, (60, 20))
    points = np.stack(
        [
            round_about[:, :1] * np.sin(angle),
            0 * angle + round_about[:, 1:],
            round_about[:, :1] * np.cos(angle),
        ],
        axis=-1,
    )
    assert field_of(rim).distance(points).min() > 0.01


def test_same_generator_gives_the_same_field() -> None:
    first, again = field_of(sphere()), field_of(sphere())
    np.testing.assert_array_equal(first.points, again.points)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_distance_scales_with_the_surface(scale: float) -> None:
    point = np.array([[0.0, 0.0, (RADIUS + 0.004) * scale]])
    assert field_of(sphere(RADIUS * scale)).distance(point)[0] == pytest.approx(0.004 * scale, abs=2e-4)
