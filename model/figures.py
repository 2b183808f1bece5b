"""All figures of an evaluation: of each clip, of all clips together, and what each of them stands on.

Every figure is of an area: that of hands and object, unless who measures names another. One that cannot be
computed is None, with its reason among the notes; one that went through a network without its public weights
is marked as not calibrated, and its note says so.
Letters: T frames, H rows, W columns.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from model.metrics import flicker_error, masked_psnr, masked_ssim
from model.metrics_fid import ENOUGH, area_crops, frechet_distance
from model.metrics_inception import NUM_FEATURES, Inception
from model.metrics_joints import DetectorName, JointDetector, get_detector, joint_errors, why_no_detector
from model.metrics_lpips import SMALLEST, Lpips, masked_lpips
from model.metrics_weights import (
    ALEXNET,
    INCEPTION,
    MetricWeightsConfig,
    PublicWeights,
    load_or_randomize,
    locate,
)

PICTURE_FIGURES = ("psnr", "ssim", "lpips", "flicker")
JOINT_FIGURES = ("mpjpe", "mpjpe_mm", "miss_rate")
NO_FEATURES = np.zeros((0, NUM_FEATURES), np.float32)  # features of no picture

Figures = dict[str, float | None]


class MetricsConfig(BaseModel, frozen=True, extra="forbid"):
    """What is measured beside PSNR, SSIM and flicker, and with which networks."""

    weights: MetricWeightsConfig = MetricWeightsConfig()
    """Public weights for LPIPS and FID; figures through random ones are labelled uncalibrated."""
    fid_frames: int | None = Field(default=None, ge=0)
    """Frames of each clip, evenly spaced, that FID is of; null: all; 0: no FID."""
    detector: DetectorName = "mediapipe"
    """Finds the hand joints that MPJPE is of, where it is installed."""


def available(config: MetricsConfig) -> dict[str, bool]:
    """Return which of what figures need is on this machine: public weights by name, and the detector."""
    found = {it.name: locate(it, config.weights) is not None for it in (ALEXNET, INCEPTION)}
    return {**found, "detector": why_no_detector(config.detector) is None}


class Metrics:
    """Measures clips one after the other, and keeps of them what figures of the whole set need."""

    def __init__(
        self, config: MetricsConfig, device: torch.device | str = "cpu", detector: JointDetector | None = None
    ) -> None:
        self.config, self.device = config, device
        self.detector = get_detector(config.detector) if detector is None else detector
        self.notes: dict[str, str] = {}
        if self.detector is None:
            why = why_no_detector(config.detector)
            self.notes["mpjpe"] = f"not computed: no hand-joint detector ({why})"
        self.calibrated = dict.fromkeys(("psnr", "ssim", "flicker", *JOINT_FIGURES), True)
        self._features: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []  # generated, true

    def compare(
        self, generated: NDArray[np.uint8], truth: NDArray[np.uint8], area: NDArray[np.bool_]
    ) -> Figures:
        """Figures of frames [T, H, W, 3] on area [T, H, W]; None where undefined, as all of an empty one."""
        if not area.any():
            return dict.fromkeys(PICTURE_FIGURES)
        psnr = masked_psnr(generated, truth, area)
        return {
            "psnr": psnr if math.isfinite(psnr) else None,
            "ssim": masked_ssim(generated, truth, area),
            "lpips": masked_lpips(self._lpips, generated, truth, area),
            "flicker": flicker_error(generated, truth, area) if len(truth) > 1 else None,
        }

    def joints(
        self, frames: NDArray[np.uint8], true: NDArray[np.float32], px_per_m: NDArray[np.float32]
    ) -> Figures:
        """Errors of the joints found in frames [T, H, W, 3] against the true ones [T, 2, 21, 2]."""
        if self.detector is None:
            return dict.fromkeys(JOINT_FIGURES)
        height, width = frames.shape[1:3]
        return joint_errors(self.detector.detect(frames), true, px_per_m, (height, width)).as_figures()

    def add_to_fid(
        self, generated: NDArray[np.uint8], truth: NDArray[np.uint8], area: NDArray[np.bool_]
    ) -> None:
        """Remember what FID needs of a clip's frames [T, H, W, 3]."""
        self._features.append((self.fid_features(generated, area), self.fid_features(truth, area)))

    def fid_features(self, frames: NDArray[np.uint8], area: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return what FID looks at [n, 2048] of a clip's frames [T, H, W, 3]; n ≤ T: see MetricsConfig."""
        total = len(frames)
        count = total if self.config.fid_frames is None else min(self.config.fid_frames, total)
        if not count:
            return NO_FEATURES
        chosen = np.linspace(0, total - 1, count).round().astype(int)
        return self._inception.features(area_crops(frames[chosen], area[chosen])).numpy()

    def fid(self, generated: NDArray[np.float32], truth: NDArray[np.float32]) -> float | None:
        """FID of features [n, 2048] of generated and of true frames; None, with a note, of too few."""
        counted = len(generated)
        if min(counted, len(truth)) < 2:
            self.notes["fid"] = "not computed: fewer than two pictures"
            return None
        if counted < ENOUGH:
            said = f"n = {counted} is too small (below {ENOUGH}): biased upwards, compare equal n only"
            before = self.notes.get("fid", "")
            self.notes["fid"] = before if said in before else "; ".join(filter(None, (before, said)))
        return frechet_distance(generated, truth)

    def summarize(self, clips: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """metrics.json of clips: means over those that have a figure, FID of all, and notes on both."""
        means = mean_figures(clips, (*PICTURE_FIGURES, *JOINT_FIGURES))
        of_baselines = {
            name: [clip["baselines"][name] for clip in clips if name in clip["baselines"]]
            for name in ("first_frame", "mean_frame")
        }
        baselines = {name: mean_figures(each) for name, each in of_baselines.items()}
        on_truth = mean_figures([clip["joints_on_truth"] for clip in clips], JOINT_FIGURES)
        seen = zip(*self._features, strict=True)
        generated, true = (
            (np.concatenate(features) for features in seen) if self._features else (NO_FEATURES, NO_FEATURES)
        )
        self._explain(means, clips)
        self._note_counts("", clips, of=len(clips))
        for name, each in of_baselines.items():
            self._note_counts(f"baselines.{name}.", each, of=len(clips))
        return {
            **means,
            "fid": self.fid(generated, true),
            "fid_pictures": len(generated),
            "baselines": baselines,
            "joints_on_truth": on_truth,
            "clips": list(clips),
            "calibrated": dict(self.calibrated),
            "notes": dict(self.notes),
        }

    def _explain(self, means: Figures, clips: Sequence[Mapping[str, Any]]) -> None:
        """Note why figures are missing."""
        if left_out := [clip["id"] for clip in clips if clip["psnr"] is None]:
            self.notes["psnr"] = f"undefined for {left_out}: no hand-object area, or no error at all"
        if means["lpips"] is None:
            self.notes["lpips"] = f"not computed: no area, or pictures under {SMALLEST} pixels"
        if means["flicker"] is None:
            self.notes["flicker"] = "not computed: no clip of more than one frame with a hand-object area"
        if self.detector is None:
            return
        if means["miss_rate"] is None:
            self.notes["mpjpe"] = "not computed: no whole hand is inside the pictures"
        elif means["mpjpe"] is None:
            self.notes["mpjpe"] = "not computed: the detector found no hand"

    def _note_counts(self, prefix: str, clips: Sequence[Mapping[str, Any]], *, of: int) -> None:
        """Note which means are of fewer clips than others beside them."""
        for name in PICTURE_FIGURES:
            count = sum(clip[name] is not None for clip in clips)
            if 0 < count < of:
                said = f"mean of {count} of {of} clips: it is undefined for the others"
                self.notes[prefix + name] = "; ".join(filter(None, (self.notes.get(prefix + name), said)))

    @cached_property
    def _lpips(self) -> Lpips:
        network = Lpips(self.config.weights)
        self._judge("lpips", network.calibrated, ALEXNET)
        return network.to(self.device)

    @cached_property
    def _inception(self) -> Inception:
        network = Inception()
        self._judge("fid", load_or_randomize(network, INCEPTION, self.config.weights), INCEPTION)
        return network.to(self.device)

    def _judge(self, figure: str, calibrated: bool, weights: PublicWeights) -> None:
        self.calibrated[figure] = calibrated
        if not calibrated:
            self.notes[figure] = (
                f"uncalibrated: {weights.name} with seeded random weights, on no published scale "
                "(metrics.weights.fetch=true fetches the public ones)"
            )


def mean_figures(clips: Sequence[Mapping[str, Any]], names: Sequence[str] = PICTURE_FIGURES) -> Figures:
    """Mean of each figure over the clips that have it."""
    means: Figures = {}
    for name in names:
        values = [clip[name] for clip in clips if clip[name] is not None]
        means[name] = float(np.mean(values)) if values else None
    return means
