"""Grasps: fingers stop at the surface, nothing is passed through, and hands come from where a person sits."""

from dataclasses import replace

import numpy as np
import pytest

from render.contact import contact_field
from render.grasp import (
    Grasp,
    GraspConfig,
    Surroundings,
    close_hand,
    find_grasp,
    natural_forward,
    wrist_rotation,
)
from render.hands.model import default_hands
from render.procedural_objects import procedural_object
from render.procedural_shapes import Part, box, revolve
from render.rig import CLOSED, OPEN, THUMB, Rig
from render.scene import SIDES
from render.transforms import rigid, transform

CONFIG = GraspConfig(num_candidates=12)


def rig(side: str) -> Rig:
    return Rig(default_hands()[side], np.zeros(10))


def ball() -> Part:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 31)
    return revolve(0.035 * np.stack([np.cos(angle), np.sin(angle)], axis=-1))


def surroundings_of(vertices: np.ndarray, faces: np.ndarray) -> Surroundings:
    """The object on a table at y = 0."""
    world_from_object = rigid(np.eye(3), np.array([0.02, -vertices[:, 1].min(), 0.01]))
    return Surroundings(
        contact_field(vertices, faces, np.random.default_rng(0)), world_from_object, table_m=0.0
    )


def grasp_and_distance(side: str, surroundings: Surroundings) -> tuple[Grasp, np.ndarray]:
    """A grasp and its hand's signed distances [778] to the object and the table."""
    hand = rig(side)
    grasp = find_grasp(hand, surroundings, np.random.default_rng(4), CONFIG, share=False)
    wrist = surroundings.world_from_target @ grasp.object_from_wrist
    vertices = hand.vertices(grasp.flexion[None], wrist[None])
    return grasp, surroundings.distance(vertices)[0]


OBJECTS = {
    "ball": (ball().vertices, ball().faces),
    "box": (box((0.06, 0.12, 0.04)).vertices, box((0.06, 0.12, 0.04)).faces),
    **{
        kind: (mesh.vertices, mesh.faces)
        for kind in ("can", "mug", "teapot")
        for mesh in [procedural_object(kind, np.random.default_rng(1))]
    },
}


@pytest.mark.parametrize("name", OBJECTS)
def test_fingers_close_until_they_touch_and_do_not_enter(name: str) -> None:
    side = SIDES[len(name) % 2]
    grasp, distance = grasp_and_distance(side, surroundings_of(*OBJECTS[name]))
    assert grasp.holds
    digit = rig(side).links[:, 0]
    for row in np.flatnonzero(grasp.touching):
        assert distance[digit == row].min() < CONFIG.contact_m
    assert -distance.min() <= CONFIG.max_penetration_m
    assert grasp.penetration_m == pytest.approx(max(-distance.min(), 0), abs=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_a_hand_that_meets_nothing_stays_within_its_joints_range(side: str) -> None:
    far_away = surroundings_of(*OBJECTS["ball"])
    wrist = rigid(np.eye(3), np.array([2.0, 2.0, 2.0]))[None]
    flexion = close_hand(rig(side), wrist, far_away, CONFIG)
    assert (flexion >= OPEN - 1e-9).all()
    assert (flexion <= CLOSED + 1e-9).all()
    vertices = rig(side).vertices(flexion, wrist)[0]
    digit = rig(side).links[:, 0]
    thumb, fingers = vertices[digit == THUMB], vertices[(digit >= 0) & (digit != THUMB)]
    assert np.linalg.norm(thumb[:, None] - fingers[None], axis=-1).min() > 0.001


@pytest.mark.parametrize("side", SIDES)
def test_closing_moves_fingertips_towards_the_palm(side: str) -> None:
    hand = rig(side)
    tips = [
        hand.hand(hand.motion(angles[None], np.eye(4)[None])).joints[0, [8, 12, 16, 20]]
        for angles in (OPEN, CLOSED)
    ]
    assert ((tips[1] - tips[0]) @ hand.axes[1] > 0.0).all()  # along the way the palm faces
    assert ((tips[1] - tips[0]) @ hand.axes[2] < -0.04).all()  # back from where the fingers point


@pytest.mark.parametrize("side", SIDES)
def test_wrist_rotation_faces_palm_and_fingers_as_asked(side: str) -> None:
    hand = rig(side)
    palm, forward = np.array([0.0, -1.0, 0.0]), np.array([0.6, 0.0, 0.8])
    rotation = wrist_rotation(hand, palm, forward)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation @ hand.axes[1], palm, atol=1e-6)
    np.testing.assert_allclose(rotation @ hand.axes[2], forward, atol=1e-6)


def test_palm_down_puts_thumbs_inwards() -> None:
    for side, inwards in (("right", 1.0), ("left", -1.0)):
        hand = rig(side)
        rotation = wrist_rotation(hand, np.array([0.0, -1.0, 0.0]), np.array([0.0, 0.0, 1.0]))
        joints = hand.hand(hand.motion(OPEN[None], rigid(rotation, np.zeros(3))[None])).joints[0]
        assert (joints[4, 0] - joints[20, 0]) * inwards > 0.05  # thumb tip against little fingertip


def test_hands_come_from_their_own_side() -> None:
    surroundings = surroundings_of(*OBJECTS["box"])
    for side, own in (("right", -1.0), ("left", 1.0)):
        grasp, _ = grasp_and_distance(side, surroundings)
        wrist = transform(surroundings.world_from_target, grasp.object_from_wrist[:3, 3])
        assert wrist[2] < surroundings.world_from_target[2, 3]  # nearer to the person than the object
        assert natural_forward(side)[0] * own < 0


def test_second_hand_keeps_clear_of_the_first() -> None:
    surroundings = surroundings_of(*OBJECTS["box"])
    first, _ = grasp_and_distance("left", surroundings)
    vertices = rig("left").vertices(first.flexion[None], first.object_from_wrist[None])[0]
    left = contact_field(vertices, rig("left").hand.faces, np.random.default_rng(0))
    both = Surroundings(surroundings.target, surroundings.world_from_target, (left,), 0.0)
    second = find_grasp(rig("right"), both, np.random.default_rng(5), CONFIG, share=True)
    other = rig("right").vertices(second.flexion[None], second.object_from_wrist[None])[0]
    assert left.distance(other).min() > -CONFIG.max_penetration_m


def test_same_generator_finds_the_same_grasp() -> None:
    surroundings = surroundings_of(*OBJECTS["can"])
    first, again = (grasp_and_distance("right", surroundings)[0] for _ in range(2))
    np.testing.assert_array_equal(first.object_from_wrist, again.object_from_wrist)
    np.testing.assert_array_equal(first.flexion, again.flexion)


def test_a_grasp_that_interlocks_has_its_fingers_nearer_to_the_other_hand() -> None:
    alone = surroundings_of(*OBJECTS["box"])
    first = find_grasp(rig("left"), alone, np.random.default_rng(4), CONFIG, share=True)
    hand = rig("left")
    vertices = hand.vertices(first.flexion[None], first.object_from_wrist[None])[0]
    other = contact_field(vertices, hand.hand.faces, np.random.default_rng(0))
    both = replace(alone, others=(other,))
    gaps = []
    for interlock in (0.0, 100.0):
        config = CONFIG.model_copy(update={"interlock": interlock})
        grasp = find_grasp(rig("right"), both, np.random.default_rng(4), config, share=False)
        wrist = alone.world_from_target @ grasp.object_from_wrist
        fingers = rig("right").vertices(grasp.flexion[None], wrist[None])[0][rig("right").links[:, 0] >= 0]
        gaps.append(both.others_distance(fingers))
    plain, interlocked = gaps
    assert (interlocked < 0.015).mean() > (plain < 0.015).mean()
    assert np.isinf(alone.others_distance(fingers)).all()
