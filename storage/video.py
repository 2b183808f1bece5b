"""Video files as streams of frames, through the ffmpeg program.

A frame is [H, W, 3] uint8 sRGB, row 0 at the top. Written files are H.264, yuv420p, BT.709 in limited range,
tagged as such, so that players and the reader here use the same colour matrix.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import IO, Any

import ffmpeg
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError

# Containers that hold their own frames; playlists (HLS, DASH, ffconcat) would lead ffmpeg to other files.
_CONTAINERS = "mov,mp4,matroska,webm,avi"
_DISCARD = 4  # AV_PKT_FLAG_DISCARD
_SCALE_FLAGS = "accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"


@dataclass(frozen=True)
class VideoInfo:
    """What the first frame of a video tells."""

    width: int
    height: int
    fps: float


@dataclass(frozen=True)
class VideoFile:
    """The frames of a file, decoded when asked for (a render.scene.Video)."""

    path: Path

    @cached_property
    def num_frames(self) -> int:
        """Return the number of frames in the file."""
        return count_frames(self.path)

    @cached_property
    def info(self) -> VideoInfo:
        """Return size and rate."""
        return probe_video(self.path)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every frame, [H, W, 3] sRGB; raise InputError where one cannot be decoded."""
        count = 0
        for frame in read_video(self.path):
            count += 1
            yield frame
        if count != self.num_frames:
            raise InputError(f"{self.path}: {count} of {self.num_frames} frames decode", code="video")


def probe_video(path: Path) -> VideoInfo:
    """Return size and rate of a video; InputError where there is no frame to decode."""
    # A yuv4mpegpipe stream opens with one line that states both, after any rotation that the file asks for.
    output = _input(path).output("pipe:", format="yuv4mpegpipe", pix_fmt="yuv420p", strict=-1, vframes=1)
    header = _run(output, path).split(b"\n", 1)[0].decode("ascii", "replace").split()
    fields = {field[0]: field[1:] for field in header[1:]}
    if not {"W", "H", "F"} <= fields.keys():
        raise InputError(f"{path}: no video frame in it", code="video")
    fps = float(Fraction(fields["F"].replace(":", "/")))
    return VideoInfo(width=int(fields["W"]), height=int(fields["H"]), fps=fps)


def count_frames(path: Path) -> int:
    """Return the number of frames that a file shows, without decoding them."""
    # One line a packet; those that an edit list cuts off are in the file too, flagged to be discarded.
    report = _run(_input(path)["v:0"].output("pipe:", format="framecrc", vcodec="copy"), path)
    packets = [line for line in report.decode("ascii").splitlines() if not line.startswith("#")]
    flags = [re.search(r", F=0x([0-9A-Fa-f]+)", packet) for packet in packets]
    return sum(not (found and int(found[1], 16) & _DISCARD) for found in flags)


def read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of a video, [H, W, 3] sRGB, one at a time."""
    info = probe_video(path)
    output = _input(path).output(
        "pipe:", format="rawvideo", pix_fmt="rgb24", fps_mode="passthrough", sws_flags=_SCALE_FLAGS
    )
    num_bytes = info.width * info.height * 3
    with tempfile.TemporaryFile() as errors:
        process = _start(output, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        try:
            while len(data := process.stdout.read(num_bytes)) == num_bytes:
                yield np.frombuffer(data, np.uint8).reshape(info.height, info.width, 3)
            process.stdout.close()
            if process.wait() != 0 or data:
                raise InputError(f"{path}: {_last_line(errors)}", code="video")
        finally:  # also where the caller stops early
            process.kill()
            process.wait()
            process.stdout.close()


def write_video(path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, crf: int = 18) -> int:
    """Write frames [H, W, 3] sRGB as H.264 and return their number; H and W must be even (yuv420p).

    crf is x264's constant rate factor: 0 is lossless, 18 looks it, 51 is worst. The file appears when whole.
    """
    rest = iter(frames)
    first = next(rest, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write")
    height, width, channels = first.shape
    if height % 2 or width % 2 or channels != 3:
        raise ValueError(f"{path}: frames are {first.shape}, wanted even height and width and 3 channels")
    staging = path.with_name(f".{path.name}.part.mp4")
    with tempfile.TemporaryFile() as errors:
        process = _start(_encoder(staging, width, height, fps, crf), stdin=subprocess.PIPE, stderr=errors)
        try:
            count = _feed(process, chain([first], rest), first.shape, path)
            if process.wait() != 0:
                raise OSError(f"{path}: ffmpeg: {_last_line(errors)}")
        except BaseException:
            process.kill()
            process.communicate()  # closes its input
            staging.unlink(missing_ok=True)
            raise
    staging.replace(path)
    return count


def _encoder(path: Path, width: int, height: int, fps: float, crf: int) -> Any:
    """Return the ffmpeg command that encodes raw frames from its standard input."""
    raw = ffmpeg.input(
        "pipe:",
        format="rawvideo",
        pix_fmt="rgb24",
        s=f"{width}x{height}",
        framerate=Fraction(fps).limit_denominator(1001),
    )
    bt709 = raw.filter("scale", out_color_matrix="bt709", out_range="tv", flags=_SCALE_FLAGS)
    return bt709.output(
        _url(path),
        vcodec="libx264",
        pix_fmt="yuv420p",
        crf=crf,
        colorspace="bt709",
        color_primaries="bt709",
        color_trc="bt709",
        color_range="tv",
        movflags="+faststart",
    ).overwrite_output()


def _feed(
    process: subprocess.Popen[bytes],
    frames: Iterable[NDArray[np.uint8]],
    shape: tuple[int, ...],
    path: Path,
) -> int:
    """Send frames to a process and close its input; return their number."""
    assert process.stdin is not None
    count = 0
    try:
        for count, frame in enumerate(frames, start=1):
            if frame.shape != shape:
                raise ValueError(f"{path}: frame {count} is {frame.shape}, the first is {shape}")
            process.stdin.write(np.ascontiguousarray(frame, np.uint8).data)
        process.stdin.close()
    except BrokenPipeError:
        pass  # ffmpeg stopped: its exit status and message say why
    return count


def _input(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file", code="missing-file")
    return ffmpeg.input(_url(path), format_whitelist=_CONTAINERS)


def _url(path: Path) -> str:
    """Return a path as what it is for ffmpeg, which takes what comes before a colon for a protocol."""
    return f"file:{path}"


def _start(output: Any, **pipes: Any) -> subprocess.Popen[bytes]:
    command = output.global_args("-loglevel", "error", "-nostdin").compile(imageio_ffmpeg.get_ffmpeg_exe())
    return subprocess.Popen(command, **{"stdin": subprocess.DEVNULL, **pipes})


def _run(output: Any, path: Path) -> bytes:
    """Run ffmpeg over a file to its end and return what it printed."""
    with tempfile.TemporaryFile() as errors:
        process = _start(output, stdout=subprocess.PIPE, stderr=errors)
        printed, _ = process.communicate()
        if process.returncode != 0:
            raise InputError(f"{path}: {_last_line(errors)}", code="video")
    return printed


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return re.sub(r"^\[.*?\] ", "", lines[-1]) if lines else "not a video that ffmpeg can decode"
