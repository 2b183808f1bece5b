"""MPJPE: true joints are no error, shifted ones exactly their shift, missed hands are counted beside it."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import euclidean

from model.figures import Metrics, MetricsConfig
from model.metrics_joints import JointErrors, MediapipeDetector, get_detector, joint_errors, why_no_detector

SIZE = (60, 80)  # H, W
PX_PER_M = np.full((5, 2, 21), 400.0, np.float32)


@pytest.fixture
def true() -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(5, 50, (5, 2, 21, 2)).astype(np.float32)


def test_true_joints_have_no_error(true: NDArray[np.float32]) -> None:
    assert joint_errors(true, true, PX_PER_M, SIZE) == JointErrors(0.0, 0.0, 0.0)


@pytest.mark.parametrize("shift", [(3.0, 0.0), (3.0, 4.0), (-2.0, 1.5)])
def test_shifted_joints_are_off_by_their_shift(true: NDArray[np.float32], shift: tuple[float, float]) -> None:
    errors = joint_errors(true + np.float32(shift), true, PX_PER_M, SIZE)
    assert errors.mpjpe_px == pytest.approx(np.hypot(*shift), rel=1e-5)
    assert errors.mpjpe_mm == pytest.approx(np.hypot(*shift) / 400.0 * 1000.0, rel=1e-5)


def test_a_hand_twice_as_far_is_off_by_twice_as_many_millimetres(true: NDArray[np.float32]) -> None:
    near, far = (joint_errors(true + 1, true, PX_PER_M / factor, SIZE) for factor in (1, 2))
    assert far.mpjpe_mm == pytest.approx(2 * near.mpjpe_mm)
    assert far.mpjpe_px == near.mpjpe_px


def test_errors_are_means_of_scipy_s_distances_over_whole_hands_that_are_found(
    true: NDArray[np.float32],
) -> None:
    rng = np.random.default_rng(1)
    found = (true + rng.normal(0, 4, true.shape)).astype(np.float32)
    px_per_m = rng.uniform(200, 900, true.shape[:-1]).astype(np.float32)
    found[2, 1], true[4, 0, 20] = np.nan, (SIZE[1], 3)
    pixels, millimetres = [], []
    for frame, hand in np.ndindex(5, 2):
        if (frame, hand) not in ((2, 1), (4, 0)):
            for joint in range(21):
                pixels.append(euclidean(found[frame, hand, joint], true[frame, hand, joint]))
                millimetres.append(pixels[-1] / px_per_m[frame, hand, joint] * 1000)
    errors = joint_errors(found, true, px_per_m, SIZE)
    assert errors.mpjpe_px == pytest.approx(np.mean(pixels), rel=1e-5)
    assert errors.mpjpe_mm == pytest.approx(np.mean(millimetres), rel=1e-5)
    assert errors.miss_rate == pytest.approx(1 / 9)


def test_missed_hands_are_counted_and_leave_the_error_to_the_others(true: NDArray[np.float32]) -> None:
    found = true + np.float32((0, 2))
    found[1, 0] = np.nan
    found[2:4, 1, 7] = np.nan  # a hand with a joint missing
    errors = joint_errors(found, true, PX_PER_M, SIZE)
    assert errors.mpjpe_px == pytest.approx(2.0, rel=1e-5)
    assert errors.miss_rate == pytest.approx(3 / 10)


def test_hands_that_are_not_whole_in_the_picture_do_not_count(true: NDArray[np.float32]) -> None:
    absent, found = true.copy(), true.copy()
    absent[:, 1] = np.nan
    absent[0, 0, 4] = (-1, 20)
    absent[1, 0, 4] = (20, SIZE[0])
    found[2, 0] = np.nan
    assert joint_errors(found, absent, PX_PER_M, SIZE).miss_rate == pytest.approx(1 / 3)


def test_no_hand_and_no_hit_are_told_apart(true: NDArray[np.float32]) -> None:
    nothing = np.full_like(true, np.nan)
    assert joint_errors(true, nothing, PX_PER_M, SIZE) == JointErrors(None, None, None)
    assert joint_errors(nothing, true, PX_PER_M, SIZE) == JointErrors(None, None, 1.0)


def test_shapes_that_differ_are_an_error(true: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="do not match"):
        joint_errors(true[:4], true, PX_PER_M, SIZE)


def test_mediapipe_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.metrics_joints.find_spec", lambda name: None)
    assert get_detector("mediapipe") is None
    monkeypatch.setattr("model.metrics_joints.find_spec", lambda name: object())
    monkeypatch.setattr("model.metrics_joints.import_module", lambda name: object())
    assert isinstance(get_detector("mediapipe"), MediapipeDetector)
    assert get_detector("none") is None


def test_a_mediapipe_that_does_not_load_is_none_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> None:
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr("model.metrics_joints.import_module", fail)
    assert get_detector("mediapipe") is None
    assert why_no_detector("mediapipe") == (
        "MediaPipe does not load: libGL.so.1: cannot open shared object file"
    )
    assert "libGL" in Metrics(MetricsConfig()).notes["mpjpe"]


class FakeHands:
    """MediaPipe's interface: results of one frame with two hands that it takes for the same, then of none."""

    def __init__(self, **settings: Any) -> None:
        self.frames = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def process(self, frame: NDArray[np.uint8]) -> SimpleNamespace:
        self.frames += 1
        if self.frames == 2:
            return SimpleNamespace(multi_handedness=None, multi_hand_landmarks=None)
        kinds = [SimpleNamespace(classification=[SimpleNamespace(label="Left", score=s)]) for s in (0.9, 0.6)]
        hands = [SimpleNamespace(landmark=[SimpleNamespace(x=x, y=0.5)] * 21) for x in (0.25, 0.75)]
        return SimpleNamespace(multi_handedness=kinds, multi_hand_landmarks=hands)


def test_mediapipe_s_left_is_the_right_hand_and_the_surer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mediapipe.python.solutions.hands")
    monkeypatch.setattr(module, "Hands", FakeHands, raising=False)
    monkeypatch.setitem(sys.modules, "mediapipe.python.solutions.hands", module)
    joints = MediapipeDetector().detect(np.zeros((2, *SIZE, 3), np.uint8))
    assert np.isnan(joints[0, 0]).all()
    assert np.isnan(joints[1]).all()
    assert np.array_equal(joints[0, 1], np.tile(np.float32([0.25 * 80, 0.5 * 60]), (21, 1)))
