"""Videos of people (TikTok, Human4DiT and the like): frames, and nothing else that is known.

The first frame stands for the background O_B; hands, objects and cameras are absent (paper, Sec. 3.3).
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from render.scene import Camera, Clip
from storage.digests import digest_file, digest_json
from storage.sources.session import check_name
from storage.video import VideoFile

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
CAMERA = "main"


def find_videos(folder: Path) -> list[Path]:
    """Return the video files of a folder, sorted."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())


def video_id(path: Path) -> str:
    """Return the name of a video: its folder's and its own."""
    return f"{path.resolve().parent.name}_{path.stem}"


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
        )

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each part, named as a capture session's."""
        camera = self._camera()
        size = digest_json([camera.width, camera.height])
        return {f"cameras/{CAMERA}": size, f"videos/{CAMERA}": digest_file(self.path)}

    @cached_property
    def _video(self) -> VideoFile:
        return VideoFile(self.path)

    def _camera(self) -> Camera:
        """Return a camera of the video's size; nothing is projected with it, so its focal length is free."""
        width, height = self._video.info.width, self._video.info.height
        focal = float(max(width, height))
        intrinsics = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
        return Camera(width, height, intrinsics, np.eye(4))
