"""A clip's crop covers what moves, lies in the picture and is not moved by small changes."""

from dataclasses import replace

import numpy as np
import pytest

from render.camera import project
from render.crops import choose_crop
from render.scene import Camera, Clip, Material, Mesh, ObjectMotion
from render.transforms import look_at, transform


def clip_of_a_moving_cube(shift: float = 0.0) -> Clip:
    corners = np.stack(np.meshgrid(*[[-0.05, 0.05]] * 3), axis=-1).reshape(8, 3).astype(np.float32)
    mesh = Mesh(
        vertices=corners,
        faces=np.array([[0, 1, 2]], np.int32),
        normals=np.zeros((8, 3), np.float32),
        uvs=np.zeros((8, 2), np.float32),
        colors=np.ones((8, 4), np.float32),
        material_ids=np.zeros(1, np.int32),
        materials=(Material(),),
    )
    world_from_object = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
    world_from_object[:, 0, 3] = np.linspace(0.0, 0.2, 5) + shift
    moving = ObjectMotion("cube", mesh, world_from_object, np.ones(5, bool), digest="")
    intrinsics = np.array([[600.0, 0, 320], [0, 600.0, 240], [0, 0, 1]])
    camera = Camera(640, 480, intrinsics, look_at((0, 0, 1), (0, 0, 0)))
    return Clip("cube", 30.0, 5, {"a": camera}, {}, (moving,))


def test_crop_covers_the_motion_inside_the_picture() -> None:
    clip = clip_of_a_moving_cube()
    camera = clip.cameras["a"]
    crop = choose_crop(clip, camera, {})
    moving = clip.objects[0]
    pixels, _ = project(transform(moving.world_from_object, moving.mesh.vertices), camera)
    low, high = pixels.reshape(-1, 2).min(0), pixels.reshape(-1, 2).max(0)
    assert (low >= (crop.x0, crop.y0)).all()
    assert (high < np.add((crop.x0, crop.y0), crop.size_px)).all()
    assert crop.size_px < 480
    assert crop.x0 + crop.size_px <= 640
    assert crop.y0 + crop.size_px <= 480


def test_small_shift_leaves_the_crop_where_it_is() -> None:
    clips = clip_of_a_moving_cube(), clip_of_a_moving_cube(shift=0.002)
    crops = [choose_crop(clip, clip.cameras["a"], {}) for clip in clips]
    assert crops[0] == crops[1]


def test_centre_mode_and_nothing_seen_give_the_largest_centred_square() -> None:
    clip = clip_of_a_moving_cube()
    camera = clip.cameras["a"]
    centred = choose_crop(clip, camera, {}, "center")
    assert (centred.x0, centred.y0, centred.size_px) == (80, 0, 480)
    away = replace(camera, camera_from_world=look_at((0, 0, 1), (0, 0, 2)))
    assert choose_crop(clip, away, {}) == centred


@pytest.mark.parametrize("shift", [-0.55, 0.4])
def test_motion_that_leaves_the_picture_is_cropped_at_its_border(shift: float) -> None:
    clip = clip_of_a_moving_cube(shift)
    crop = choose_crop(clip, clip.cameras["a"], {})
    assert crop.x0 >= 0
    assert crop.x0 + crop.size_px <= 640
