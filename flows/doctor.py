"""What this machine has, and what to do about what it lacks."""

import ctypes.util
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from model.metrics_joints import why_no_detector
from model.metrics_weights import ALEXNET, INCEPTION, MetricWeightsConfig, PublicWeights, locate
from model.pretrained import (
    IMAGE_ENCODER,
    IMAGE_ENCODER_FILES,
    MOTION_MODULES,
    MOTION_MODULES_FILES,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_FILES,
    PretrainedConfig,
    missing_parts,
)
from render.rasterizers.protocol import why_not_nvdiffrast
from storage.errors import InputError
from storage.mano import read_mano_folder


@dataclass(frozen=True)
class Check:
    """One thing looked for."""

    name: str
    present: bool
    found: str
    advice: str  # what to do where it is missing; empty where it is there


def examine(mano: Path | None, weights: PretrainedConfig) -> list[Check]:
    """Look for everything; `mano` is the folder of the user's licensed hand model."""
    metrics = [_metric_weights("LPIPS", ALEXNET), _metric_weights("FID", INCEPTION), _joint_detector()]
    machine = [_gpu(), _nvdiffrast(), _ffmpeg(), _egl()]
    return [*machine, _mano(mano), *_weights(weights), *metrics, _prefect_server()]


def _gpu() -> Check:
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Check("GPU", True, f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB", "")
    return Check(
        "GPU", False, f"none; torch {torch.__version__}", "the tiny network runs on a CPU; sd15 needs one"
    )


def _nvdiffrast() -> Check:
    missing = why_not_nvdiffrast()
    if not missing:
        return Check("nvdiffrast", True, "works: layers are rendered by it", "")
    advice = "layers are rendered by numba; with a GPU, build nvdiffrast from its source for speed"
    return Check("nvdiffrast", False, missing, advice)


def _ffmpeg() -> Check:
    try:
        return Check("ffmpeg", True, imageio_ffmpeg.get_ffmpeg_exe(), "")
    except RuntimeError as error:
        return Check("ffmpeg", False, str(error), "install ffmpeg, or set IMAGEIO_FFMPEG_EXE to its path")


def _egl() -> Check:
    library = ctypes.util.find_library("EGL")
    advice = "" if library else "only pyrender needs it: apt install libegl1 libgl1-mesa-dri"
    return Check("EGL", library is not None, library or "no libEGL", advice)


def _mano(folder: Path | None) -> Check:
    advice = "the procedural hand is used; get MANO from mano.is.tue.mpg.de and pass --mano DIR"
    if folder is None:
        return Check("MANO files", False, "no folder given", advice)
    try:
        read_mano_folder(folder)
    except InputError as error:
        return Check("MANO files", False, str(error), advice)
    return Check("MANO files", True, str(folder), "")


def _weights(config: PretrainedConfig) -> list[Check]:
    """The public weights that sd15 starts from: where the config says, else in the hub's cache."""
    stable_diffusion = config.stable_diffusion or STABLE_DIFFUSION
    motion_modules = config.motion_modules or MOTION_MODULES
    image_encoder = config.image_encoder or IMAGE_ENCODER
    return [
        _source("SD 1.5 weights", stable_diffusion, STABLE_DIFFUSION_FILES),
        _source("AnimateDiff weights", motion_modules, MOTION_MODULES_FILES)
        if not Path(motion_modules).is_file()  # of the original release
        else Check("AnimateDiff weights", True, motion_modules, ""),
        _source("CLIP image encoder", image_encoder, IMAGE_ENCODER_FILES),
    ]


def _source(name: str, source: str, parts: Mapping[str, tuple[str, ...]]) -> Check:
    missing = missing_parts(source, parts)
    if not missing:
        return Check(name, True, f"{source}: {', '.join(parts)}", "")
    advice = "the tiny network needs none"
    if Path(source).is_dir():
        return Check(name, False, f"no {', '.join(missing)} in {source}", advice)
    try:
        validate_repo_id(source)
    except HFValidationError:
        return Check(name, False, f"{source}: no such folder, and no hub id", advice)
    found = f"no {', '.join(missing)} in the hub's cache of {source}"
    return Check(name, False, found, f"hf download {source}; {advice}")


def _metric_weights(metric: str, weights: PublicWeights) -> Check:
    """The public weights that a metric is calibrated by."""
    name, cache = f"{metric} weights", Path(torch.hub.get_dir()) / "checkpoints"
    try:
        path = locate(weights, MetricWeightsConfig())
    except InputError as error:
        return Check(name, False, str(error), f"delete the file; fetch {weights.url}")
    if path is not None:
        return Check(name, True, str(path), "")
    advice = (
        f"{metric} is labelled uncalibrated; manivideo evaluate --set metrics.weights.fetch=true gets them"
    )
    return Check(name, False, f"no {weights.name} in {cache}", advice)


def _joint_detector() -> Check:
    why = why_no_detector("mediapipe")
    if why is None:
        return Check("hand-joint detector", True, "MediaPipe", "")
    return Check("hand-joint detector", False, "none", f"MPJPE needs one: {why}")


def _prefect_server() -> Check:
    address = os.environ.get("PREFECT_API_URL")
    if not address:
        return Check("Prefect server", True, "embedded, started by each command", "")
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=5):
            return Check("Prefect server", True, address, "")
    except OSError as error:
        return Check(
            "Prefect server", False, f"{address}: {error}", "start it (make serve) or unset PREFECT_API_URL"
        )
