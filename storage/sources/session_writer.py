"""Clips written as capture sessions, which `SessionFolder` reads back."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from render.scene import Camera, Clip
from storage.errors import InputError
from storage.sources.glb_writer import write_glb
from storage.sources.session import HAND_SHAPES, OBJECT_SHAPES, check_name
from storage.video import write_video


def write_session(path: Path, clip: Clip, videos: Mapping[str, Iterable[NDArray[np.uint8]]]) -> None:
    """Write a clip, and the frames [H, W, 3] of each camera, as a session that appears when it is whole.

    Meshes are written as they are in the clip, with their licence where the provenance states one; so are the
    clip's backgrounds. The clip's own videos are not: frames come from `videos`.
    """
    if path.exists():
        raise InputError(f"{path}: exists already", code="exists")
    for name in [clip.id, *clip.cameras, *(moving.name for moving in clip.objects)]:
        check_name(name, path)
    staging = path.with_name(f".{path.name}.part")
    shutil.rmtree(staging, ignore_errors=True)
    for folder in ("objects", "videos", "backgrounds"):
        (staging / folder).mkdir(parents=True)
    try:
        _write_yaml(staging / "session.yaml", _describe(clip))
        _write_yaml(staging / "cameras.yaml", {name: _describe_camera(c) for name, c in clip.cameras.items()})
        _write_arrays(staging, clip)
        for moving in clip.objects:
            licence = moving.provenance.get("licence", "")
            write_glb(moving.mesh, staging / "objects" / f"{moving.name}.glb", copyright=licence)
        for name, background in clip.backgrounds.items():
            Image.fromarray(background).save(staging / "backgrounds" / f"{name}.png")
        for name, frames in videos.items():
            write_video(staging / "videos" / f"{name}.mp4", frames, clip.fps)
        staging.rename(path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _describe(clip: Clip) -> dict[str, Any]:
    """Return session.yaml."""
    described: dict[str, Any] = {
        "name": clip.id,
        "fps": clip.fps,
        "units": "m",
        "participant": clip.participant,
        "objects": {moving.name: {"mesh": f"objects/{moving.name}.glb"} for moving in clip.objects},
    }
    return described | ({"split": clip.split} if clip.split else {})


def _describe_camera(camera: Camera) -> dict[str, Any]:
    """Return one camera of cameras.yaml."""
    described = {
        "width": camera.width,
        "height": camera.height,
        "intrinsics": np.asarray(camera.intrinsics, np.float64).tolist(),
        "camera_from_world": np.asarray(camera.camera_from_world, np.float64).tolist(),
    }
    return described | ({} if camera.distortion is None else {"distortion": camera.distortion.tolist()})


def _write_arrays(folder: Path, clip: Clip) -> None:
    """Write hands.npz and objects.npz, each where there is something to write."""
    hands = {
        f"{side}_{name}": getattr(motion, name) for side, motion in clip.hands.items() for name in HAND_SHAPES
    }
    objects = {
        f"{moving.name}_{name}": getattr(moving, name) for moving in clip.objects for name in OBJECT_SHAPES
    }
    for file, arrays in (("hands.npz", hands), ("objects.npz", objects)):
        if arrays:
            np.savez_compressed(folder / file, allow_pickle=False, **arrays)


def _write_yaml(path: Path, values: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")
