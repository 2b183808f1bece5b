"""Videos come back as the frames that went in, and broken files say so."""

from collections.abc import Iterator
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from storage.errors import InputError
from storage.video import VideoFile, count_frames, probe_video, read_video, write_video

HEIGHT, WIDTH = 48, 64


def smooth_frames(count: int) -> list[NDArray[np.uint8]]:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    return [
        np.stack([columns * 3, rows * 4, (rows + columns + 4 * k) % 128], -1).astype(np.uint8)
        for k in range(count)
    ]


def test_round_trip_is_faithful_and_keeps_every_frame(tmp_path: Path) -> None:
    frames = smooth_frames(12)
    path = tmp_path / "clip é.mp4"
    assert write_video(path, iter(frames), fps=30000 / 1001) == 12
    video = VideoFile(path)
    read = list(video.frames())
    assert len(read) == video.num_frames == count_frames(path) == 12
    assert (video.info.width, video.info.height) == (WIDTH, HEIGHT)
    assert video.info.fps == pytest.approx(30000 / 1001)
    error = np.array(read, float) - np.array(frames)
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 35
    assert np.abs(error.mean((0, 1, 2))).max() < 1  # a wrong colour matrix or range shifts the mean
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (200, 150, 120)])
def test_flat_colors_survive(tmp_path: Path, color: tuple[int, int, int]) -> None:
    write_video(tmp_path / "flat.mp4", [np.full((32, 32, 3), color, np.uint8)], fps=25)
    (frame,) = read_video(tmp_path / "flat.mp4")
    assert np.abs(frame.astype(int) - color).max() <= 2


def test_frames_that_an_edit_list_hides_do_not_count(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth_frames(20), fps=25)
    cut = ffmpeg.input(str(tmp_path / "a.mp4"), ss=0.3).output(str(tmp_path / "b.mp4"), c="copy")
    cut.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), quiet=True)
    video = VideoFile(tmp_path / "b.mp4")
    assert len(list(video.frames())) == video.num_frames
    assert 10 <= video.num_frames <= 13


def test_a_name_that_could_be_an_address_is_a_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("12:30.mp4")
    write_video(path, smooth_frames(3), fps=25)
    assert len(list(VideoFile(path).frames())) == 3


def test_reading_can_stop_early(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth_frames(8), fps=25)
    frames = read_video(tmp_path / "a.mp4")
    assert next(frames).shape == (HEIGHT, WIDTH, 3)
    frames.close()


@pytest.mark.parametrize("content", [b"", b"not a video", bytes(4096)])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    for use in (probe_video, count_frames, lambda path: list(read_video(path))):
        with pytest.raises(InputError, match=r"broken\.mp4") as caught:
            use(path)
        assert caught.value.code == "video"


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-main:2011" mediaPresentationDuration="PT1S" minBufferTime="PT1S">'
    '<Period><AdaptationSet><Representation id="1" mimeType="video/mp4" bandwidth="1"><BaseURL>{}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)


@pytest.mark.parametrize("playlist", [HLS, DASH, "ffconcat version 1.0\nfile {}\n"])
@pytest.mark.parametrize("named", ["../secret.mp4", "beside.mp4"])
def test_a_video_cannot_lead_to_another_file(tmp_path: Path, playlist: str, named: str) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / named, smooth_frames(2), 24)
    path = tmp_path / "videos" / "front.mp4"
    path.write_text(playlist.format(named))
    for read in (probe_video, count_frames, lambda path: list(read_video(path))):
        with pytest.raises(InputError) as error:
            read(path)
        assert error.value.code == "video"


def test_missing_video_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        probe_video(tmp_path / "none.mp4")


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_damage_inside_a_video_is_noticed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.mp4"
    rng = np.random.default_rng(0)
    write_video(path, [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(12)], fps=25)
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) * 2 // 3]
    else:
        data[len(data) // 2 : len(data) // 2 + 8000] = bytes(8000)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.mp4"):
        list(VideoFile(path).frames())


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        ([np.zeros((31, 32, 3), np.uint8)], "even height"),
        ([np.zeros((32, 32, 3), np.uint8), np.zeros((32, 30, 3), np.uint8)], "frame 2"),
    ],
)
def test_unwritable_frames_leave_no_file(tmp_path: Path, frames: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", frames, fps=25)
    assert not list(tmp_path.iterdir())


def test_interrupted_write_leaves_no_file(tmp_path: Path) -> None:
    def interrupted() -> Iterator[NDArray[np.uint8]]:
        yield from smooth_frames(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a.mp4", interrupted(), fps=25)
    assert not list(tmp_path.iterdir())
