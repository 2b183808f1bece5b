"""Generating a video: of a dataset's clip, or of a session's motion with another object and background."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers.utils.logging import disable_progress_bar
from numpy.typing import NDArray
from pydantic import BaseModel

from flows.console import stderr
from flows.ingest import IngestConfig, ingest_clip, prepare_job
from model.evaluate import EvaluateConfig, generate, read_clip
from model.pipeline import ManiVideoPipeline, read_pipeline
from render.camera import Crop
from render.scene import Clip, Mesh
from render.skeleton import crop_keypoints, draw_skeletons
from storage.dataset import ClipWindow, Dataset
from storage.errors import InputError
from storage.manifest import Manifest
from storage.pictures import crop_and_resize, read_picture
from storage.sources.glb import digest_asset, read_object
from storage.sources.human_video import read_keypoints
from storage.sources.session import SessionFolder
from storage.store import Store
from storage.video import write_video

Precision = Literal["float32", "bfloat16", "float16"]


class GenerateConfig(BaseModel, frozen=True, extra="forbid"):
    """How a video is generated."""

    dataset: str = "captures"
    """Dataset of the clip that is named."""
    sampling: EvaluateConfig = EvaluateConfig()
    """Length, steps and guidance."""
    precision: Precision = "float32"
    """Arithmetic and weights of the network; the codec stays float32, as pictures show what it rounds."""
    cpu_offload: bool = False
    """Keep network and codec on the CPU and move each to the GPU while it works: slower, less GPU memory."""
    ingest: IngestConfig = IngestConfig()
    """How a session's motion is rendered; its size must be that of the clips the model was trained on."""


@dataclass(frozen=True)
class Motion:
    """A session's motion, with what takes the place of its object and background."""

    session: Path
    camera: str | None = None  # None: the session's first
    glb: Path | None = None  # None: the session's own object
    background: Path | None = None  # None: the session's own plate; a human picture for a human video
    first_object: Path | None = None  # the object in the first frame, f_8; None: not given
    keypoints: Path | None = None  # of the human in the background: S; None: not given


def generate_clip(model_dir: Path, clip_id: str, config: GenerateConfig, store: Store, out: Path) -> int:
    """Generate a dataset's clip; return the number of frames written."""
    pipeline = load_pipeline(model_dir, config.precision, cpu_offload=config.cpu_offload)
    dataset = Dataset.open(store, config.dataset, layers=pipeline.network.settings.num_layers)
    row = dataset.row(clip_id)
    window = read_clip(dataset, row, config.sampling)
    return write_generated(pipeline, window, row.id, row.fps, config, out)


def generate_motion(model_dir: Path, motion: Motion, config: GenerateConfig, store: Store, out: Path) -> int:
    """Generate a session's motion seen by one of its cameras; return the number of frames written."""
    pipeline = load_pipeline(model_dir, config.precision, cpu_offload=config.cpu_offload)
    first_object = read_picture(motion.first_object).copy() if motion.first_object else None
    window, fps = motion_window(motion, config, store, pipeline.network.settings.num_layers)
    return write_generated(pipeline, window, motion.session.name, fps, config, out, first_object)


def motion_window(
    motion: Motion, config: GenerateConfig, store: Store, layers: Literal[7, 13] = 7
) -> tuple[ClipWindow, float]:
    """Return the conditions of a motion, rendered into the store, and its frames a second."""
    clip, digests = compose(motion)
    (camera,) = clip.cameras
    outcome = ingest_clip(clip, digests, prepare_job(config.ingest, store))
    if not outcome.rows:
        entry = outcome.quarantined[0]
        raise InputError(entry.reason, code=entry.code)
    (row,) = outcome.rows
    window = read_clip(Dataset(store, Manifest("motion", (row,)), layers=layers), row, config.sampling)
    plate = clip.backgrounds[camera]
    crop = Crop(**store.open("layers", str(row.layers_key)).recipe.config["crop"])
    background = crop_and_resize(plate, crop, config.ingest.layers.size).copy()  # torch wants it writable
    window = replace(window, background=background)
    if motion.keypoints is not None:
        keypoints = read_keypoints(motion.keypoints, clip.num_frames)[:: config.sampling.stride]
        moved = crop_keypoints(keypoints[: len(window.mask)], crop, config.ingest.layers.size)
        window = replace(window, skeleton=draw_skeletons(moved, window.mask.shape[1:]))
    return window, clip.fps


def compose(motion: Motion) -> tuple[Clip, Mapping[str, str]]:
    """Return a session's clip with one camera, no video, and the object and background that are wanted."""
    folder = SessionFolder(motion.session)
    digests, clip = folder.digests(), folder.load()  # in this order, see `flows.ingest`
    camera = motion.camera or next(iter(clip.cameras))
    if camera not in clip.cameras:
        known = ", ".join(clip.cameras)
        raise InputError(f"{motion.session}: no camera {camera!r} (there are: {known})", code="config")
    objects = clip.objects
    if motion.glb is not None:
        if not objects:
            raise InputError(f"{motion.session}: no object to replace", code="config")
        digest = digest_asset(motion.glb)
        mesh, provenance = read_object(motion.glb, centred=True)
        first = replace(
            objects[0], mesh=moved_to(mesh, objects[0].mesh), digest=digest, provenance=provenance
        )
        objects = (first, *objects[1:])
        digests = {**digests, f"objects/{first.name}/mesh": digest}
    backgrounds = {camera: _plate(motion, clip, camera)}
    cameras = {camera: clip.cameras[camera]}
    return replace(clip, cameras=cameras, objects=objects, videos={}, backgrounds=backgrounds), digests


def moved_to(mesh: Mesh, other: Mesh) -> Mesh:
    """Move a mesh that is centred on its bounding box to where another has its own."""
    centre = (other.vertices.min(axis=0) + other.vertices.max(axis=0)) / 2
    return replace(mesh, vertices=mesh.vertices + centre)


def _plate(motion: Motion, clip: Clip, camera: str) -> np.ndarray:
    """Return the background [H, W, 3] at the camera's size."""
    view = clip.cameras[camera]
    if motion.background is not None:
        plate = read_picture(motion.background)
        found, wanted = (plate.shape[1], plate.shape[0]), (view.width, view.height)
        if found != wanted:
            raise InputError.mismatch(
                motion.background, "size", found=found, wanted=wanted, code="frame-size"
            )
        return plate
    if camera in clip.backgrounds:
        return clip.backgrounds[camera]
    raise InputError(f"{motion.session}: no plate of {camera}: name a background", code="config")


def load_pipeline(
    model_dir: Path, precision: Precision = "float32", *, cpu_offload: bool = False
) -> ManiVideoPipeline:
    """Load a saved model, its network in some precision, on the GPU if there is one."""
    disable_progress_bar()
    pipeline = read_pipeline(model_dir, getattr(torch, precision))
    pipeline.set_progress_bar_config(disable=not stderr.is_terminal, desc="denoising", leave=False)
    if cpu_offload and torch.cuda.is_available():
        pipeline.enable_model_cpu_offload()
        return pipeline
    return pipeline.to(fastest_device())


def fastest_device() -> str:
    """Return the GPU's name if there is one, else the CPU's."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def write_generated(
    pipeline: ManiVideoPipeline,
    window: ClipWindow,
    clip: str,
    fps: float,
    config: GenerateConfig,
    out: Path,
    first_object: NDArray[np.uint8] | None = None,
) -> int:
    """Generate a window's frames and write them as a video; return their number."""
    frames = generate(pipeline, window, config.sampling, clip, first_object)
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_video(out, frames, fps / config.sampling.stride)
