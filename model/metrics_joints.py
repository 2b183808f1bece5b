"""MPJPE (Sec. 4.1): how far each hand's 21 joints, as a detector finds them, are from where they truly are.

Joints: wrist, then thumb, index, middle, ring, little, each from the palm to the tip.
Letters: T frames, J = 21 joints; hands are left, right. Pixels are (column, row).
"""

import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

NUM_JOINTS = 21
DetectorName = Literal["mediapipe", "none"]


class JointDetector(Protocol):
    """Finds hands in pictures."""

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find joints [T, 2, J, 2] in pixels, nan for a hand that is not found, in frames [T, H, W, 3]."""
        ...


@dataclass(frozen=True)
class JointErrors:
    """What a detector's joints come to; None where it found no hand at all."""

    mpjpe_px: float | None  # over all joints of the hands that were found
    mpjpe_mm: float | None  # the same, at the true joints' distances from the camera
    miss_rate: float | None  # share of the true hands that were not found; None: there are none

    def as_figures(self) -> dict[str, float | None]:
        """Return what metrics.json holds of it."""
        return {"mpjpe": self.mpjpe_px, "mpjpe_mm": self.mpjpe_mm, "miss_rate": self.miss_rate}


def joint_errors(
    found: NDArray[np.float32],
    true: NDArray[np.float32],
    px_per_m: NDArray[np.float32],
    size: tuple[int, int],
) -> JointErrors:
    """Compare found and true joints [T, 2, J, 2].

    px_per_m: [T, 2, J] length in pixels of a metre at each true joint, f / z.
    size: H, W; a true hand counts where all its joints are inside the picture.
    """
    if not found.shape == true.shape == (*px_per_m.shape, 2):
        raise ValueError(f"found {found.shape}, true {true.shape} and px_per_m {px_per_m.shape} do not match")
    there = np.all((true >= 0) & (true <= np.array([size[1] - 1, size[0] - 1])), axis=(2, 3))  # [T, 2]
    hit = there & np.isfinite(found).all(axis=(2, 3))
    if not there.any():
        return JointErrors(None, None, None)
    miss_rate = 1.0 - float(hit.sum() / there.sum())
    if not hit.any():
        return JointErrors(None, None, miss_rate)
    distance_px = np.linalg.norm(found[hit].astype(np.float64) - true[hit], axis=-1)  # [n, J]
    distance_mm = 1000.0 * distance_px / px_per_m[hit]
    return JointErrors(float(distance_px.mean()), float(distance_mm.mean()), miss_rate)


class MediapipeDetector:
    """MediaPipe's hand landmarks (Zhang et al. 2020), each frame by itself; needs `manivideo[mediapipe]`."""

    def detect(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Find joints [T, 2, J, 2]; of two hands of one side the surer counts."""
        from mediapipe.python.solutions.hands import Hands

        _, height, width, _ = frames.shape
        joints = np.full((len(frames), 2, NUM_JOINTS, 2), np.nan, np.float32)
        # It names hands as in a mirror.
        sides = {"Right": 0, "Left": 1}
        with Hands(static_image_mode=True, max_num_hands=2) as hands, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "SymbolDatabase.GetPrototype", UserWarning)  # MediaPipe's call
            for found, frame in zip(joints, frames, strict=True):
                result = hands.process(np.ascontiguousarray(frame))
                kinds = [handedness.classification[0] for handedness in result.multi_handedness or ()]
                pairs = zip(kinds, result.multi_hand_landmarks or (), strict=True)
                for kind, marks in sorted(pairs, key=lambda pair: pair[0].score):
                    # Shares of the size. It cuts hands out by OpenCV's warp, so that share · size is a whole
                    # number at a pixel's centre, not at its edge.
                    shares = np.array([(mark.x, mark.y) for mark in marks.landmark])
                    found[sides[kind.label]] = shares * (width, height)
        return joints


def get_detector(name: DetectorName) -> JointDetector | None:
    """Return the detector of a name; None where `why_no_detector` has a reason."""
    return MediapipeDetector() if why_no_detector(name) is None else None


def why_no_detector(name: DetectorName) -> str | None:
    """Return why there is no detector of a name on this machine; None where there is one."""
    if name == "none":
        return "none is wanted; manivideo[mediapipe] has one"
    if find_spec("mediapipe") is None:
        return "pip install 'manivideo[mediapipe]'"
    try:
        import_module("mediapipe.python.solutions.hands")
    except ImportError as error:  # OpenCV's wheel wants libGL, which a server may lack
        return f"MediaPipe does not load: {error}"
    return None
