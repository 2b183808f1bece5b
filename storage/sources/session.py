"""Capture sessions: the project's own format, read into a clip.

    <session>/
      session.yaml              name, fps, units: m, participant, split, objects: {name: {mesh: path}}
      cameras.yaml              per camera: width, height, intrinsics, camera_from_world, distortion
      hands.npz                 {left,right}_{pose [T, 48], shape [10], translation [T, 3], valid [T]}
      objects.npz               {name}_world_from_object [T, 4, 4], {name}_valid [T]
      objects/*.glb             meshes, in metres
      videos/<camera>.mp4       T frames
      backgrounds/<camera>.png  clean plates

Hands, objects, videos and backgrounds may be absent; what is there must agree on T, the number of frames.
Poses where `valid` is false mean nothing and are read as zeros (hands) or the identity (objects).
"""

import logging
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, RootModel

from render.scene import SIDES, Camera, Clip, HandMotion, ObjectMotion
from storage.config import load_config
from storage.digests import digest_arrays, digest_file, digest_json
from storage.errors import InputError
from storage.pictures import read_picture
from storage.sources.arrays import ArrayFile, Shapes
from storage.sources.glb import digest_asset, read_object
from storage.sources.glb_limits import USUAL_LIMITS, GlbLimits
from storage.video import VideoFile

logger = logging.getLogger(__name__)

HAND_SHAPES: Shapes = {"pose": ("T", 48), "shape": (10,), "translation": ("T", 3), "valid": ("T",)}
OBJECT_SHAPES: Shapes = {"world_from_object": ("T", 4, 4), "valid": ("T",)}
_RIGID_TOLERANCE = 1e-3
_DISTORTIONS = (4, 5, 8)  # coefficients, OpenCV order


class ObjectEntry(BaseModel, frozen=True, extra="forbid"):
    """One object of session.yaml."""

    mesh: str
    """Path of its .glb, relative to the session."""


class SessionConfig(BaseModel, frozen=True, extra="forbid"):
    """session.yaml."""

    name: str
    """Names the session wherever its clips are used."""
    fps: float = Field(gt=0, allow_inf_nan=False)
    """Frames per second."""
    units: Literal["m"]
    """Everything is in metres."""
    participant: str = ""
    """Who is recorded."""
    objects: dict[str, ObjectEntry] = {}
    """By name; the first gives the references."""
    split: Literal["train", "val", "test"] | None = None
    """train, val or test where the session fixes it."""


class CameraEntry(BaseModel, frozen=True, extra="forbid"):
    """One camera of cameras.yaml."""

    width: int = Field(gt=0)
    """Pixels."""
    height: int = Field(gt=0)
    """Pixels."""
    intrinsics: list[list[float]]
    """3 by 3, pixels; whole numbers are pixel centres."""
    camera_from_world: list[list[float]]
    """4 by 4, OpenCV camera, metres."""
    distortion: list[float] | None = None
    """OpenCV order: k1, k2, p1, p2[, k3[, k4, k5, k6]]."""


class CamerasConfig(RootModel[dict[str, CameraEntry]], frozen=True):
    """cameras.yaml: cameras by name."""


class SessionFolder:
    """One capture session."""

    def __init__(self, path: Path, limits: GlbLimits = USUAL_LIMITS) -> None:
        if not path.is_dir():
            raise InputError(f"{path}: no such folder", code="missing-folder")
        self.path = path
        self._limits = limits  # of its objects
        self.config = load_config(SessionConfig, path / "session.yaml")
        self.cameras = load_config(CamerasConfig, path / "cameras.yaml").root
        if not self.cameras:
            raise InputError(f"{path / 'cameras.yaml'}: no cameras", code="no-cameras")
        for file, names in (
            ("session.yaml", [self.id, *self.config.objects]),
            ("cameras.yaml", self.cameras),
        ):
            for name in names:
                check_name(name, path / file)

    @property
    def id(self) -> str:
        """Return the session's name."""
        return self.config.name

    def load(self) -> Clip:
        """Read everything but the videos' frames, which are read when asked for."""
        hands: dict[str, HandMotion] = {side: self._hand(side) for side in SIDES if self._hands.has(side)}
        objects = tuple(self._object(name) for name in self.config.objects)
        counts = {f"hands.npz: {side}_pose": len(hand.pose) for side, hand in hands.items()}
        counts |= {f"objects.npz: {o.name}_world_from_object": len(o.valid) for o in objects}
        counts |= {f"videos/{video.path.name}": video.num_frames for video in self._videos.values()}
        return Clip(
            id=self.id,
            fps=self.config.fps,
            num_frames=self._agreed(counts),
            cameras={name: self._camera(name) for name in self.cameras},
            hands=hands,
            objects=objects,
            videos=self._videos,
            backgrounds={name: self._background(name) for name in self._backgrounds},
            participant=self.config.participant,
            split=self.config.split,
        )

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each part: cameras/<name>, hands, objects/<name>/mesh and /motion, videos/…"""
        parts = {f"cameras/{name}": digest_json(entry.model_dump()) for name, entry in self.cameras.items()}
        if any(self._hands.has(side) for side in SIDES):
            parts["hands"] = digest_arrays(self._hands.arrays)
        for name in self.config.objects:
            parts[f"objects/{name}/mesh"] = digest_asset(self._mesh_path(name), self._limits)
            parts[f"objects/{name}/motion"] = digest_arrays(self._objects.part(name))
        parts |= {f"videos/{name}": digest_file(video.path) for name, video in self._videos.items()}
        parts |= {f"backgrounds/{name}": digest_file(path) for name, path in self._backgrounds.items()}
        return parts

    @cached_property
    def _hands(self) -> ArrayFile:
        return ArrayFile(self.path / "hands.npz", SIDES, HAND_SHAPES)

    @cached_property
    def _objects(self) -> ArrayFile:
        return ArrayFile(self.path / "objects.npz", tuple(self.config.objects), OBJECT_SHAPES)

    @cached_property
    def _videos(self) -> dict[str, VideoFile]:
        videos = {name: VideoFile(path) for name, path in self._by_camera("videos", ".mp4").items()}
        for name, video in videos.items():
            _check_size(video.path, (video.info.width, video.info.height), self.cameras[name])
        return videos

    @cached_property
    def _backgrounds(self) -> dict[str, Path]:
        return self._by_camera("backgrounds", ".png")

    def _by_camera(self, folder: str, suffix: str) -> dict[str, Path]:
        """Return the files of the cameras that have one, in the cameras' order."""
        present = sorted((self.path / folder).glob("[!.]*"))
        for path in present:
            if path.suffix != suffix:
                logger.warning("%s: not a %s file, so it is left out", path, suffix)
        files = {path.stem: path for path in present if path.suffix == suffix}
        for name in sorted(files.keys() - self.cameras.keys()):
            logger.warning("%s: cameras.yaml has no camera %r, so it is left out", files[name], name)
        return {name: files[name] for name in self.cameras if name in files}

    def _agreed(self, counts: dict[str, int]) -> int:
        """Return the number of frames that every part has."""
        if not counts:
            raise InputError(f"{self.path}: neither hands nor objects nor videos", code="empty-session")
        (reference, wanted), *others = counts.items()
        if wanted < 1:
            raise InputError(f"{self.path}: {reference} has no frames", code="frame-count")
        for part, found in others:
            if found != wanted:
                raise InputError.mismatch(
                    self.path,
                    part,
                    found=f"{found} frames",
                    wanted=f"{wanted} as in {reference}",
                    code="frame-count",
                )
        return wanted

    def _camera(self, name: str) -> Camera:
        entry, file = self.cameras[name], self.path / "cameras.yaml"
        intrinsics = _matrix(entry.intrinsics, 3, f"{name}.intrinsics", file)
        if not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0 and np.array_equal(intrinsics[2], (0, 0, 1))):
            wanted = "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with positive fx and fy"
            raise InputError.mismatch(
                file, f"{name}.intrinsics", found=entry.intrinsics, wanted=wanted, code="intrinsics"
            )
        camera_from_world = _matrix(entry.camera_from_world, 4, f"{name}.camera_from_world", file)
        _check_rigid(camera_from_world[None], f"{name}.camera_from_world", file)
        if entry.distortion is not None and len(entry.distortion) not in _DISTORTIONS:
            found = f"{len(entry.distortion)} coefficients"
            raise InputError.mismatch(
                file, f"{name}.distortion", found=found, wanted="4, 5 or 8", code="shape"
            )
        distortion = None if entry.distortion is None else np.array(entry.distortion, np.float64)
        if distortion is not None:
            _check_finite(distortion, f"{name}.distortion", file)
        return Camera(entry.width, entry.height, intrinsics, camera_from_world, distortion)

    def _hand(self, side: str) -> HandMotion:
        arrays = self._hands.part(side)
        valid = arrays["valid"].astype(np.bool_)
        return HandMotion(
            pose=np.where(valid[:, None], arrays["pose"], 0).astype(np.float32),
            shape=arrays["shape"].astype(np.float32),
            translation=np.where(valid[:, None], arrays["translation"], 0).astype(np.float32),
            valid=valid,
        )

    def _object(self, name: str) -> ObjectMotion:
        arrays = self._objects.part(name)
        valid = arrays["valid"].astype(np.bool_)
        world_from_object = np.where(valid[:, None, None], arrays["world_from_object"], np.eye(4))
        _check_rigid(world_from_object, f"{name}_world_from_object", self._objects.path)
        mesh_path = self._mesh_path(name)
        mesh, provenance = read_object(mesh_path, limits=self._limits)
        return ObjectMotion(
            name=name,
            mesh=mesh,
            world_from_object=world_from_object.astype(np.float32),
            valid=valid,
            digest=digest_asset(mesh_path, self._limits),
            provenance=provenance,
        )

    def _mesh_path(self, name: str) -> Path:
        """Return the mesh file of an object; it must not leave the session's folder."""
        mesh = self.config.objects[name].mesh
        path = self.path / mesh
        if "\0" in mesh or not Path(os.path.realpath(path)).is_relative_to(self.path.resolve()):
            found, key = repr(mesh), f"objects.{name}.mesh"
            raise InputError.mismatch(
                self.path / "session.yaml",
                key,
                found=found,
                wanted="a file in the session",
                code="unsafe-path",
            )
        return path

    def _background(self, name: str) -> NDArray[np.uint8]:
        picture = read_picture(self._backgrounds[name])
        _check_size(self._backgrounds[name], (picture.shape[1], picture.shape[0]), self.cameras[name])
        return picture


def check_name(name: str, file: Path) -> None:
    """Refuse names that are not fit to be file names."""
    if not re.fullmatch(r"(?!\.)[^/\\:\x00-\x1f\ud800-\udfff]{1,100}", name):
        raise InputError(f"{file}: {name!r} is no fit name: it becomes a file's name", code="unsafe-name")


def _check_size(path: Path, size: tuple[int, int], camera: CameraEntry) -> None:
    if size != (camera.width, camera.height):
        found, wanted = f"{size[0]} x {size[1]}", f"{camera.width} x {camera.height} as in cameras.yaml"
        raise InputError.mismatch(path, "size", found=found, wanted=wanted, code="frame-size")


def _matrix(rows: list[list[float]], size: int, key: str, file: Path) -> NDArray[np.float64]:
    widths = {len(row) for row in rows}
    if len(rows) != size or widths != {size}:
        found = f"{len(rows)} rows of {', '.join(map(str, sorted(widths)))}"
        raise InputError.mismatch(file, key, found=found, wanted=f"{size} x {size}", code="shape")
    matrix = np.array(rows, np.float64)
    _check_finite(matrix, key, file)
    return matrix


def _check_finite(numbers: NDArray[np.float64], key: str, file: Path) -> None:
    """Refuse what float32, in which everything is drawn, cannot hold."""
    if not (np.abs(numbers) <= np.finfo(np.float32).max).all():
        found = numbers.tolist()
        raise InputError.mismatch(file, key, found=found, wanted="finite numbers", code="non-finite")


def _check_rigid(transforms: NDArray[np.float64], key: str, file: Path) -> None:
    """Refuse transforms [N, 4, 4] that are not a rotation and a translation."""
    rotations = transforms[:, :3, :3]
    errors = np.abs(rotations @ rotations.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
    errors = np.maximum(errors, np.abs(transforms[:, 3] - (0, 0, 0, 1)).max(axis=1))
    errors = np.where(np.linalg.det(rotations) > 0, errors, np.inf)
    if len(errors) and not errors.max() <= _RIGID_TOLERANCE:
        worst = int(np.argmax(errors))
        found = f"matrix {worst} of {len(errors)} is not a rotation and a translation"
        raise InputError.mismatch(file, key, found=found, wanted="rigid transforms", code="not-rigid")
