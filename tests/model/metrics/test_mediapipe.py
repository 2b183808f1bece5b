"""MediaPipe on pictures of the project's hands: sides, order of joints, whole pixels, what it misses."""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from model.evaluate import measure
from model.figures import Metrics, MetricsConfig
from model.metrics_joints import MediapipeDetector
from render.camera import project
from render.frames import FramesConfig, render_frames
from render.hands.model import default_hands
from render.hands.poses import MIRROR, articulate
from render.hands.skin import skin_colors
from render.scene import SIDES, Camera, Clip, HandMotion
from render.transforms import look_at
from storage.dataset import ClipWindow
from storage.manifest import ClipRow

T, SIZE, FOCAL_PX = 10, 256, 300.0
ROW = ClipRow("a/cam", "a", "cam", "test", "hoi", (), None, None, True, True, 2, 24.0)


class Scene(NamedTuple):
    """Two raised hands, crossed or not, of which palm or back is seen, and what MediaPipe finds of them."""

    frames: NDArray[np.uint8]  # [T, H, W, 3]
    true: NDArray[np.float32]  # [T, 2, J, 2] pixels
    px_per_m: NDArray[np.float32]  # [T, 2, J]
    found: NDArray[np.float32]  # [T, 2, J, 2]

    @property
    def hit(self) -> NDArray[np.bool_]:
        """[T, 2] the hand was found."""
        return np.isfinite(self.found).all(axis=(2, 3))

    @property
    def hand_px(self) -> float:
        """From the wrist to the tip of the middle finger."""
        return float(np.linalg.norm(self.true[:, :, 12] - self.true[:, :, 0], axis=-1).mean())


@pytest.fixture(scope="module")
def scene() -> Scene:
    rng = np.random.default_rng(1)
    hands, crossed, motions = default_hands(), rng.random(T) < 0.5, {}
    for side in SIDES:
        shown = np.where(rng.random(T) < 0.5, 90.0, -90.0)  # palm or back
        facing = Rotation.from_euler("y", shown[:, None], degrees=True)
        raised = Rotation.from_euler("z", -90.0, degrees=True)
        turn = (Rotation.from_rotvec(rng.normal(0.0, 0.25, (T, 3))) * facing * raised).as_rotvec()
        flexion = np.broadcast_to(np.radians(35) * rng.random((T, 5, 1)), (T, 5, 3))
        spread = np.radians(rng.uniform(-8.0, 12.0, (T, 5)))
        pose = np.concatenate(
            [turn * (MIRROR if side == "left" else 1.0), articulate(flexion, spread, np.zeros((T, 5)), side)],
            axis=1,
        )
        outward = np.where(crossed == (side == "left"), 0.1, -0.1)  # left hand on the left, unless crossed
        wrist = np.stack([outward, np.full(T, -0.08), np.zeros(T)], axis=1) - hands[side].rest_joints[0]
        valid = np.ones(T, bool)
        motions[side] = HandMotion(
            pose.astype(np.float32), np.zeros(10, np.float32), wrist.astype(np.float32), valid
        )
    middle = (SIZE - 1) / 2
    intrinsics = np.array([[FOCAL_PX, 0, middle], [0, FOCAL_PX, middle], [0, 0, 1]])
    camera = Camera(SIZE, SIZE, intrinsics, look_at((0.0, 0.0, 0.5), (0.0, 0.0, 0.0)))
    clip = Clip("raised", 24.0, T, {"a": camera}, motions, ())
    skin = {side: skin_colors(hand, np.random.default_rng(1)) for side, hand in hands.items()}
    frames = render_frames(clip, camera, hands, FramesConfig(rasterizer="numba"), skin=skin)
    joints = np.stack([hands[side](motions[side]).joints for side in SIDES], axis=1)  # [T, 2, J, 3]
    true, depth = project(joints, camera)
    px_per_m = (FOCAL_PX / depth).astype(np.float32)
    return Scene(frames, true.astype(np.float32), px_per_m, MediapipeDetector().detect(frames))


def test_the_left_hand_comes_first_wherever_it_is_and_whatever_is_seen_of_it(scene: Scene) -> None:
    own, other = (
        np.linalg.norm(scene.found - true, axis=-1).mean(axis=-1)[scene.hit]
        for true in (scene.true, scene.true[:, ::-1])
    )
    assert np.mean(own < other) > 0.9
    assert (scene.hit.sum(axis=0) > T / 2).all()


def test_joints_come_in_the_order_of_the_true_ones(scene: Scene) -> None:
    found, true = scene.found[scene.hit], scene.true[scene.hit]  # [n, J, 2]
    nearest = np.linalg.norm(found[:, :, None] - true[:, None], axis=-1).argmin(axis=-1)  # [n, J]
    assert np.mean(nearest == np.arange(21)) > 0.8
    assert [np.bincount(joint).argmax() for joint in nearest.T] == list(range(21))


def test_its_error_is_a_small_share_of_a_hand_and_what_it_missed_stands_beside_it(scene: Scene) -> None:
    figures = Metrics(MetricsConfig()).joints(scene.frames, scene.true, scene.px_per_m)
    assert figures["mpjpe"] is not None
    assert 0.005 < figures["mpjpe"] / scene.hand_px < 0.08
    assert figures["mpjpe_mm"] == pytest.approx(figures["mpjpe"] * 1000.0 * 0.5 / FOCAL_PX, rel=0.05)
    whole = ((scene.true >= 0) & (scene.true <= SIZE - 1)).all(axis=(2, 3))
    assert figures["miss_rate"] == pytest.approx(1.0 - scene.hit[whole].mean())
    assert figures["miss_rate"] < 0.35


def test_whole_numbers_are_pixel_centres(scene: Scene) -> None:
    """Pixel c is the pixels k c … k c + k − 1 of a picture k times as large: their mean is its centre."""
    k = 4
    enlarged = MediapipeDetector().detect(scene.frames.repeat(k, axis=1).repeat(k, axis=2))
    shift = (enlarged - (k * scene.found + (k - 1) / 2)) / k
    assert np.isfinite(shift).all(axis=(2, 3)).sum() > T
    # Half a pixel taken off, as edges would need, is 0.375 pixels here.
    assert np.nanmedian(shift, axis=(0, 1, 2)) == pytest.approx([0.0, 0.0], abs=0.2)


def test_a_mirrored_picture_has_the_hands_exchanged(scene: Scene) -> None:
    mirrored = MediapipeDetector().detect(scene.frames[:, :, ::-1])[:, ::-1]
    mirrored[..., 0] = SIZE - 1 - mirrored[..., 0]
    both = scene.hit & np.isfinite(mirrored).all(axis=(2, 3))
    assert both.sum() > T
    distance = np.linalg.norm(mirrored - scene.found, axis=-1)[both]
    assert np.median(distance) < 0.03 * scene.hand_px


def test_a_frame_without_hands_has_none_and_counts_as_missed(scene: Scene) -> None:
    frames = scene.frames.copy()
    frames[:2] = FramesConfig().background
    found = MediapipeDetector().detect(frames)
    assert np.isnan(found[:2]).all()
    assert np.array_equal(found[2:], scene.found[2:], equal_nan=True)


def test_an_evaluation_says_what_it_missed_in_generated_and_in_true_frames(scene: Scene) -> None:
    few = slice(0, 2)
    window = ClipWindow(
        normal_steps=np.zeros((2, 7, SIZE, SIZE, 3), np.int8),
        confidence=np.zeros((2, 7, SIZE, SIZE), np.float32),
        frames=scene.frames[few],
        mask=(scene.frames[few] != FramesConfig().background).any(axis=-1),
        background=np.zeros((SIZE, SIZE, 3), np.uint8),
        views=np.zeros((6, 8, 8, 4), np.uint8),
        points=np.zeros((5, 3), np.float32),
        joints_2d=scene.true[few],
    )
    metrics = Metrics(MetricsConfig(fid_frames=0))
    blank = np.full_like(window.frames, 128)
    clip = measure(metrics, ROW, window, blank, scene.px_per_m[few], None)
    summary = metrics.summarize([clip.figures])
    assert (summary["mpjpe"], summary["mpjpe_mm"], summary["miss_rate"]) == (None, None, 1.0)
    assert summary["notes"]["mpjpe"] == "not computed: the detector found no hand"
    assert summary["joints_on_truth"]["miss_rate"] < 1.0
    assert summary["joints_on_truth"]["mpjpe"] < 0.08 * scene.hand_px
