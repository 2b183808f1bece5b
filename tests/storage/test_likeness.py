"""Signatures: copies keep them whatever is done to their files, other takes and objects have others."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from render.procedural_objects import OBJECT_KINDS, procedural_object
from render.scene import Clip, HandMotion, Mesh, ObjectMotion
from render.trajectories import seed_generator
from storage.likeness import (
    TOLERANCES,
    Signature,
    groups,
    joined,
    picture_signatures,
    shape_signature,
    take_signatures,
)

T = 41


def alike(first: tuple[Signature, ...], second: tuple[Signature, ...]) -> bool:
    return len(set(groups({"first": first, "second": second}).values())) == 1


def mug() -> Mesh:
    return procedural_object("mug", seed_generator("mug"))


def with_surface(mesh: Mesh, vertices: NDArray, faces: NDArray) -> Mesh:
    """A mesh of which the surface alone matters."""
    return replace(mesh, vertices=np.asarray(vertices, np.float32), faces=np.asarray(faces, np.int32))


def cut_in_four(mesh: Mesh) -> Mesh:
    """The same surface of four times as many triangles."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    corners = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=1).reshape(-1, 3)
    return with_surface(mesh, corners, np.arange(len(corners)).reshape(-1, 3))


def moved(mesh: Mesh) -> Mesh:
    vertices = Rotation.from_rotvec([0.3, 1.0, -2.0]).apply(mesh.vertices) * 3.0 + [1, 2, 3]
    return with_surface(mesh, vertices, mesh.faces)


def shuffled(mesh: Mesh) -> Mesh:
    order = np.random.default_rng(0).permutation(len(mesh.vertices))
    return with_surface(mesh, mesh.vertices[order], np.argsort(order)[mesh.faces][::-1])


@pytest.mark.parametrize(
    "copy",
    [
        moved,
        shuffled,
        cut_in_four,
        lambda mesh: with_surface(mesh, mesh.vertices * [-1, 1, 1], mesh.faces[:, ::-1]),  # mirrored
        lambda mesh: with_surface(mesh, mesh.vertices.astype(np.float16), mesh.faces),  # another format
        lambda mesh: replace(mesh, colors=mesh.colors * 0.5, materials=()),  # another texture
    ],
)
def test_a_copy_of_an_object_has_its_shape(copy) -> None:
    assert alike((shape_signature(mug()),), (shape_signature(copy(mug())),))


def test_every_procedural_object_has_a_shape_of_its_own() -> None:
    shapes = {
        f"{kind} {seed}": (shape_signature(procedural_object(kind, seed_generator(f"{seed}:{kind}"))),)
        for kind in OBJECT_KINDS
        for seed in range(2)
    }
    found = groups(shapes)
    assert len(set(found.values())) >= 0.9 * len(shapes)  # balls are alike


def test_the_moments_of_a_cube_are_its_closed_form() -> None:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    cube = with_surface(mug(), corners, quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3))
    size = np.sqrt(5 / 3)  # each axis: a third of the surface at 1, the rest spread over [-1, 1]
    fourth = 1 + 2 * (1 / 3 + 1 / 3) + 2 * (1 / 5 + 1 / 9)  # of (1 + y² + z²)² on a face
    expected = [*[np.sqrt(1 / 3)] * 3, 24 / size**2 / 10, 0.0, fourth / size**4 / 2]
    assert shape_signature(cube).values == pytest.approx(expected, abs=1e-4)


def take(seed: int = 0) -> Clip:
    """A hand and an object that move smoothly."""
    rng, time = np.random.default_rng(seed), np.linspace(0, 1, T)
    waves = [np.sin(2 * np.pi * (time[:, None] + rng.random(n)) * rng.uniform(0.5, 1, n)) for n in (48, 3, 6)]
    pose, place, motion = (wave.astype(np.float32) for wave in waves)
    valid = np.ones(T, bool)
    world_from_object = np.tile(np.eye(4, dtype=np.float32), (T, 1, 1))
    world_from_object[:, :3, :3] = Rotation.from_rotvec(motion[:, :3]).as_matrix()
    world_from_object[:, :3, 3] = 0.2 * motion[:, 3:]
    hand = HandMotion(0.6 * pose, np.zeros(10, np.float32), 0.2 * place, valid)
    return Clip(
        f"take {seed}",
        30.0,
        T,
        {},
        {"right": hand},
        (ObjectMotion("mug", mug(), world_from_object, valid, ""),),
    )


def without_hands(clip: Clip) -> Clip:
    return replace(clip, hands={})


def in_another_world(clip: Clip) -> Clip:
    turn, hand = Rotation.from_rotvec([0.5, -1.0, 0.2]), clip.hands["right"]
    pose = hand.pose.copy()
    pose[:, :3] = (turn * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    placed = replace(hand, pose=pose, translation=turn.apply(hand.translation).astype(np.float32) + 1)
    other = np.eye(4)
    other[:3, :3], other[:3, 3] = turn.as_matrix(), 1
    objects = tuple(
        replace(moving, world_from_object=(other @ moving.world_from_object).astype(np.float32))
        for moving in clip.objects
    )
    return replace(clip, hands={"right": placed}, objects=objects)


def mirrored(clip: Clip) -> Clip:
    hand, flip = clip.hands["right"], np.diag([-1.0, 1, 1, 1])
    pose = (hand.pose.reshape(T, 16, 3) * [1, -1, -1]).reshape(T, 48).astype(np.float32)
    placed = replace(hand, pose=pose, translation=hand.translation * np.float32([-1, 1, 1]))
    objects = tuple(
        replace(moving, world_from_object=(flip @ moving.world_from_object @ flip).astype(np.float32))
        for moving in clip.objects
    )
    return replace(clip, hands={"left": placed}, objects=objects)


def at_half_the_rate(clip: Clip) -> Clip:
    hand, half = clip.hands["right"], slice(None, None, 2)
    slower = replace(hand, pose=hand.pose[half], translation=hand.translation[half], valid=hand.valid[half])
    return replace(clip, fps=15.0, num_frames=T // 2 + 1, hands={"right": slower})


def stored_coarsely(clip: Clip) -> Clip:
    hand = clip.hands["right"]
    return replace(clip, hands={"right": replace(hand, pose=hand.pose.astype(np.float16).astype(np.float32))})


@pytest.mark.parametrize("copy", [in_another_world, mirrored, at_half_the_rate, stored_coarsely])
def test_a_copy_of_a_take_is_alike_and_another_take_is_not(copy) -> None:
    assert alike(take_signatures(take()), take_signatures(copy(take())))
    assert not alike(take_signatures(take(1)), take_signatures(copy(take())))


@pytest.mark.parametrize("copy", [in_another_world, mirrored])
def test_without_hands_the_object_s_motion_tells(copy) -> None:
    assert alike(take_signatures(without_hands(take())), take_signatures(without_hands(copy(take()))))
    assert not alike(take_signatures(without_hands(take(1))), take_signatures(without_hands(copy(take()))))


def test_what_stands_still_has_no_signature_of_its_motion() -> None:
    still = np.tile(np.eye(4, dtype=np.float32), (T, 1, 1))
    clip = without_hands(take())
    clip = replace(clip, objects=(replace(clip.objects[0], world_from_object=still),))
    assert take_signatures(clip) == ()
    assert take_signatures(replace(clip, objects=())) == ()


def test_a_video_is_known_by_its_pictures_encoded_anew_or_mirrored() -> None:
    rng = np.random.default_rng(0)
    video, other = (
        rng.integers(0, 256, (1, 6, 6, 3)).repeat(9, 1).repeat(9, 2).astype(np.uint8) for _ in range(2)
    )
    noise = rng.integers(-6, 7, video.shape)
    encoded = np.clip(video + noise, 0, 255).astype(np.uint8)
    assert alike(picture_signatures(video), picture_signatures(encoded))
    assert alike(picture_signatures(video), picture_signatures(encoded[:, :, ::-1]))
    assert not alike(picture_signatures(video), picture_signatures(other))


def test_groups_join_through_others_and_kinds_stay_apart() -> None:
    step = 0.9 * TOLERANCES["shape"]
    shapes = {name: [Signature("shape", (k * step, 0.0))] for k, name in enumerate("cab")}
    shapes["far"] = [Signature("shape", (1.0, 0.0))]
    shapes["other"] = [Signature("hands", (0.0, 0.0))]
    shapes["none"] = []
    assert groups(shapes) == {**dict.fromkeys("cab", "a"), "far": "far", "other": "other", "none": "none"}


def test_what_has_a_mark_in_common_is_one_group_if_through_others() -> None:
    marks = {"c": [1, 2], "a": [3], "b": [2, 3], "far": [4], "none": []}
    assert joined(marks) == {**dict.fromkeys("cab", "a"), "far": "far", "none": "none"}
    assert joined({}) == {}
