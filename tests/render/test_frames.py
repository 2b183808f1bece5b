"""Frames show hands and objects where the layers have them, before the background."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from render.frames import FramesConfig, render_frames
from render.hands.model import default_hands
from render.layers import LayersConfig, render_layers
from render.scene import Camera, Clip, HandMotion, Material, Mesh, ObjectMotion
from render.transforms import look_at

SIZE = 72
CONFIG = FramesConfig(supersample=1, rasterizer="numba")


@pytest.fixture
def camera() -> Camera:
    intrinsics = np.array([[110.0, 0, 35.5], [0, 110.0, 35.5], [0, 0, 1]])
    return Camera(SIZE, SIZE, intrinsics, look_at((0.05, 0.3, 0.5), (0, 0, 0)))


@pytest.fixture
def clip(camera: Camera) -> Clip:
    """A green ball under the right hand for five frames; the last lacks the hand, the last two the ball."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.05)
    mesh = Mesh(
        vertices=ball.vertices.astype(np.float32),
        faces=ball.faces.astype(np.int32),
        normals=ball.vertex_normals.astype(np.float32),
        uvs=np.zeros((len(ball.vertices), 2), np.float32),
        colors=np.ones((len(ball.vertices), 4), np.float32),
        material_ids=np.zeros(len(ball.faces), np.int32),
        materials=(Material(base_color_factor=(0.02, 0.6, 0.02, 1.0)),),
    )
    motion = HandMotion(
        pose=np.zeros((5, 48), np.float32),
        shape=np.zeros(10, np.float32),
        translation=np.tile(np.float32([0.05, 0.06, 0]), (5, 1)),
        valid=np.array([True, True, True, True, False]),
    )
    poses = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
    moving = ObjectMotion("ball", mesh, poses, np.array([True, True, True, False, False]), digest="")
    return Clip("clip", 30.0, 5, {"a": camera}, {"right": motion}, (moving,))


def test_frames_differ_from_the_background_exactly_where_layers_are(clip: Clip, camera: Camera) -> None:
    background = np.random.default_rng(0).integers(200, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    frames = render_frames(clip, camera, default_hands(), CONFIG, background)
    layers = render_layers(clip, camera, default_hands(), LayersConfig(size=SIZE, rasterizer="numba"))
    covered = (layers.depth > 0).any(axis=1)
    assert 0.1 < covered[0].mean() < 0.9
    np.testing.assert_array_equal((frames != background).any(axis=-1), covered)


def test_the_nearer_of_hand_and_object_is_seen(clip: Clip, camera: Camera) -> None:
    frames = render_frames(clip, camera, default_hands(), CONFIG).astype(int)
    layers = render_layers(clip, camera, default_hands(), LayersConfig(size=SIZE, rasterizer="numba"))
    depth = np.where(layers.depth[0] == 0, 65535, layers.depth[0].astype(int))
    in_front = depth[0] < depth[1:].min(axis=0)
    greenish = frames[0, ..., 1] > frames[0, ..., 0] + 20
    assert in_front.any()
    assert (depth[0] < 65535).sum() > in_front.sum()  # the hand hides a part of the ball
    np.testing.assert_array_equal(greenish, in_front)


def test_frame_without_anything_is_the_background(clip: Clip, camera: Camera) -> None:
    frames = render_frames(clip, camera, default_hands(), CONFIG)
    np.testing.assert_array_equal(frames[4], np.broadcast_to(np.uint8(CONFIG.background), (SIZE, SIZE, 3)))


def test_clip_without_hands_and_objects_is_the_background(camera: Camera) -> None:
    frames = render_frames(Clip("empty", 30.0, 2, {}, {}, ()), camera, {}, CONFIG)
    np.testing.assert_array_equal(frames, np.broadcast_to(np.uint8(CONFIG.background), (2, SIZE, SIZE, 3)))


def test_skin_colours_the_hand(clip: Clip, camera: Camera) -> None:
    blue = {"right": np.tile(np.float32([0.0, 0.0, 0.8]), (778, 1))}
    frames = render_frames(clip, camera, default_hands(), CONFIG, skin=blue).astype(int)
    hand = (frames[3] != CONFIG.background).any(axis=-1)
    assert (frames[3][hand][:, 2] > frames[3][hand][:, 0] + 30).all()


def test_supersampling_averages_light_at_the_outline(clip: Clip, camera: Camera) -> None:
    background = np.zeros((SIZE, SIZE, 3), np.uint8)
    hands = default_hands()
    coarse = render_frames(clip, camera, hands, CONFIG, background)
    fine = render_frames(clip, camera, hands, CONFIG.model_copy(update={"supersample": 3}), background)
    assert len(np.unique(fine[0, ..., 1])) > len(np.unique(coarse[0, ..., 1]))
    np.testing.assert_allclose(fine.mean(axis=(1, 2, 3)), coarse.mean(axis=(1, 2, 3)), rtol=0.03, atol=0.1)


def test_same_clip_gives_the_same_bytes_whatever_the_batch(
    clip: Clip, camera: Camera, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = []
    for batch in (1, 3):
        monkeypatch.setattr("render.frames.FRAMES_AT_ONCE", batch)
        frames.append(render_frames(clip, camera, default_hands(), CONFIG))
    assert frames[0].tobytes() == frames[1].tobytes()


def test_picture_need_not_be_square(clip: Clip, camera: Camera) -> None:
    wide = replace(camera, width=96)
    frames = render_frames(clip, wide, default_hands(), CONFIG)
    assert frames.shape == (5, SIZE, 96, 3)
    np.testing.assert_array_equal(frames[:, :, :SIZE], render_frames(clip, camera, default_hands(), CONFIG))


def test_background_of_another_size_is_an_error(clip: Clip, camera: Camera) -> None:
    with pytest.raises(ValueError, match=r"\(8, 8, 3\)"):
        render_frames(clip, camera, default_hands(), CONFIG, np.zeros((8, 8, 3), np.uint8))
