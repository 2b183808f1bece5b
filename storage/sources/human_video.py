"""Videos of people (TikTok, Human4DiT and the like): frames, and skeletons where they are known.

The first frame stands for the background O_B; hands, objects and cameras are absent (paper, Sec. 3.3).
Beside `<name>.mp4`, `<name>.keypoints.json` may hold what a pose detector found:

    {"format": "coco17", "keypoints": [T][17][column, row, confidence]}
"""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from render.scene import Camera, Clip
from render.skeleton import KEYPOINTS
from storage.digests import digest_arrays, digest_file, digest_json
from storage.errors import InputError, one_line
from storage.sources.session import check_name
from storage.video import VideoFile

KEYPOINTS_SUFFIX = ".keypoints.json"
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
CAMERA = "main"


def find_videos(folder: Path) -> list[Path]:
    """Return the video files of a folder, sorted."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())


def video_id(path: Path) -> str:
    """Return the name of a video: its folder's and its own."""
    return f"{path.resolve().parent.name}_{path.stem}"


def keypoints_file(path: Path) -> Path:
    """Return the file beside a video that may hold its keypoints."""
    return path.with_suffix(KEYPOINTS_SUFFIX)


def read_keypoints(path: Path, num_frames: int | None = None) -> NDArray[np.float32]:
    """Read keypoints [T, 17, 3]; InputError names what does not fit (`num_frames`: the T that is wanted)."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values["format"]
        keypoints = np.asarray(values["keypoints"], np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not keypoints: {one_line(error)}", code="keypoints") from error
    if found != "coco17":
        raise InputError.mismatch(path, "format", found=found, wanted="coco17", code="keypoints")
    wanted = (len(keypoints) if num_frames is None else num_frames, len(KEYPOINTS), 3)
    if keypoints.shape != wanted or not len(keypoints):
        raise InputError.mismatch(path, "keypoints", found=keypoints.shape, wanted=wanted, code="keypoints")
    if not np.isfinite(keypoints).all():
        raise InputError(f"{path}: keypoints: found a number that is not finite", code="keypoints")
    return keypoints


class HumanVideo:
    """One video file, named after its folder and itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = video_id(path)
        check_name(self.id, path)

    def load(self) -> Clip:
        """Read size, rate and length."""
        return Clip(
            id=self.id,
            fps=self._video.info.fps,
            num_frames=self._video.num_frames,
            cameras={CAMERA: self._camera()},
            hands={},
            objects=(),
            videos={CAMERA: self._video},
            skeletons=self._skeletons(),
        )

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each part, named as a capture session's."""
        camera = self._camera()
        size = digest_json([camera.width, camera.height])
        digests = {f"cameras/{CAMERA}": size, f"videos/{CAMERA}": digest_file(self.path)}
        keypoints = self._skeletons()
        return digests | {
            f"skeletons/{name}": digest_arrays({"keypoints": k}) for name, k in keypoints.items()
        }

    def _skeletons(self) -> dict[str, NDArray[np.float32]]:
        beside = keypoints_file(self.path)
        return {CAMERA: read_keypoints(beside, self._video.num_frames)} if beside.is_file() else {}

    @cached_property
    def _video(self) -> VideoFile:
        return VideoFile(self.path)

    def _camera(self) -> Camera:
        """Return a camera of the video's size; nothing is projected with it, so its focal length is free."""
        width, height = self._video.info.width, self._video.info.height
        focal = float(max(width, height))
        intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        return Camera(width, height, intrinsics, np.eye(4))
