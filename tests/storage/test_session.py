"""Capture sessions: written ones read back equal, and every mistake names file, key, found and wanted."""

import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from PIL import Image

from render.scene import Clip
from storage.errors import InputError
from storage.sources.glb_limits import GlbLimits
from storage.sources.session import SessionFolder
from storage.sources.session_writer import write_session
from storage.video import write_video

WIDTH, HEIGHT, NUM_FRAMES = 48, 32, 5
# An .npy header that claims 10^15 numbers.
PETABYTES = b"\x93NUMPY\x01\x00\x48\x00" + (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}".ljust(71) + b"\n"
)


def flat_frames(count: int, width: int = WIDTH) -> list[NDArray[np.uint8]]:
    return [np.full((HEIGHT, width, 3), 20 * k, np.uint8) for k in range(count)]


@pytest.fixture
def session(tmp_path: Path, clip: Clip) -> Path:
    """A whole session on disk; its video is of the front camera."""
    path = tmp_path / "take"
    write_session(path, clip, {"front": flat_frames(NUM_FRAMES)})
    return path


def edit_yaml(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def edit_arrays(path: Path, **changes: NDArray[Any] | None) -> None:
    arrays = dict(np.load(path)) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def error_of(session: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        SessionFolder(session).load()
    assert str(session) in str(caught.value)
    return caught.value


def test_written_session_reads_back_equal(session: Path, clip: Clip) -> None:
    read = SessionFolder(session).load()
    for name in ("id", "fps", "num_frames", "participant", "split"):
        assert getattr(read, name) == getattr(clip, name), name
    assert list(read.cameras) == list(clip.cameras)
    for name, camera in clip.cameras.items():
        got = read.cameras[name]
        assert (got.width, got.height) == (camera.width, camera.height)
        assert np.array_equal(got.intrinsics, camera.intrinsics)
        assert np.array_equal(got.camera_from_world, camera.camera_from_world)
        assert (got.distortion is None) == (camera.distortion is None)
    for side, hand in clip.hands.items():
        for name in ("pose", "shape", "translation", "valid"):
            assert np.array_equal(getattr(read.hands[side], name), getattr(hand, name)), name
    (box,), (wanted,) = read.objects, clip.objects
    assert box.name == wanted.name
    assert np.array_equal(box.mesh.vertices, wanted.mesh.vertices)
    assert np.array_equal(box.world_from_object[box.valid], wanted.world_from_object[wanted.valid])
    assert np.array_equal(box.valid, wanted.valid)
    assert box.provenance["licence"] == "CC0"
    assert np.array_equal(read.backgrounds["front"], clip.backgrounds["front"])
    frames = list(read.videos["front"].frames())
    assert [round(frame.mean() / 20) for frame in frames] == list(range(NUM_FRAMES))


def test_digests_name_every_part(session: Path) -> None:
    folder = SessionFolder(session)
    assert sorted(folder.digests()) == [
        "backgrounds/front",
        "cameras/front",
        "cameras/side",
        "hands",
        "objects/box/mesh",
        "objects/box/motion",
        "videos/front",
    ]
    assert folder.digests()["objects/box/mesh"] == folder.load().objects[0].digest


def test_a_change_changes_its_own_digest_alone(session: Path) -> None:
    before = SessionFolder(session).digests()
    pose = np.load(session / "hands.npz")["left_pose"]
    edit_arrays(session / "hands.npz", left_pose=pose + np.float32(0.1))
    edit_yaml(session / "cameras.yaml", lambda cameras: cameras["side"].update(width=40))
    after = SessionFolder(session).digests()
    assert {part for part in before if before[part] != after[part]} == {"hands", "cameras/side"}


def test_rewriting_the_same_arrays_changes_no_digest(session: Path) -> None:
    before = SessionFolder(session).digests()
    edit_arrays(session / "hands.npz")  # another compression, another file
    assert SessionFolder(session).digests() == before


def test_objects_obey_limits(session: Path) -> None:
    with pytest.raises(InputError, match=r"limits\.triangles") as error:
        SessionFolder(session, GlbLimits(triangles=1)).load()
    assert error.value.code == "too-many-triangles"


def test_session_may_lack_hands_videos_and_backgrounds(session: Path) -> None:
    for path in (session / "hands.npz", *session.glob("videos/*"), *session.glob("backgrounds/*")):
        path.unlink()
    read = SessionFolder(session).load()
    assert (read.hands, read.videos, read.backgrounds) == ({}, {}, {})
    assert read.num_frames == NUM_FRAMES


def test_removed_camera_leaves_its_video_out(session: Path, caplog: pytest.LogCaptureFixture) -> None:
    edit_yaml(session / "cameras.yaml", lambda cameras: cameras.pop("front"))
    read = SessionFolder(session).load()
    assert list(read.cameras) == ["side"]
    assert read.videos == {}
    assert "no camera 'front'" in caplog.text


def test_invalid_frames_may_hold_anything(session: Path) -> None:
    with np.load(session / "hands.npz") as hands:
        valid, pose = hands["left_valid"], hands["left_pose"]
    edit_arrays(session / "hands.npz", left_pose=np.where(valid[:, None], pose, np.nan))
    transforms = np.load(session / "objects.npz")["box_world_from_object"]
    transforms[~valid] = 0
    edit_arrays(session / "objects.npz", box_world_from_object=transforms)
    read = SessionFolder(session).load()
    assert (read.hands["left"].pose[~valid] == 0).all()
    assert (read.objects[0].world_from_object[~valid] == np.eye(4)).all()


def test_wrong_number_of_video_frames_says_both(session: Path) -> None:
    write_video(session / "videos" / "front.mp4", flat_frames(NUM_FRAMES - 1), 30)
    error = error_of(session)
    assert error.code == "frame-count"
    assert "videos/front.mp4: found 4 frames, wanted 5 as in hands.npz: left_pose" in str(error)


def test_wrong_video_size_says_both(session: Path) -> None:
    write_video(session / "videos" / "front.mp4", flat_frames(NUM_FRAMES, 64), 30)
    error = error_of(session)
    assert error.code == "frame-size"
    assert "found 64 x 32, wanted 48 x 32" in str(error)


def test_wrong_plate_size_says_both(session: Path) -> None:
    Image.new("RGB", (10, 10)).save(session / "backgrounds" / "front.png")
    assert "found 10 x 10, wanted 48 x 32" in str(error_of(session))


@pytest.mark.parametrize(
    ("changes", "message", "code"),
    [
        ({"left_pose": None}, "hands.npz: missing key 'left_pose'", "missing-key"),
        (
            {"left_pose": np.zeros((5, 45))},
            "left_pose: found float64 (5, 45), wanted numbers (5, 48)",
            "shape",
        ),
        (
            {"left_translation": np.zeros((4, 3))},
            "left_translation: found float64 (4, 3), wanted numbers (5, 3)",
            "shape",
        ),
        (
            {"left_shape": np.zeros((5, 10))},
            "left_shape: found float64 (5, 10), wanted numbers (10)",
            "shape",
        ),
        ({"left_pose": np.full((5, 48), "x")}, "left_pose: found <U1 (5, 48), wanted numbers", "shape"),
        ({"left_pose": np.full((5, 48), np.nan)}, "left_pose: not finite", "non-finite"),
        ({"left_translation": np.full((5, 3), 1e300)}, "left_translation: not finite", "non-finite"),
        ({"left_poses": np.zeros(1)}, "unknown key 'left_poses' (did you mean 'left_pose'?)", "unknown-key"),
    ],
)
def test_mistakes_in_hands_are_named(session: Path, changes: dict[str, Any], message: str, code: str) -> None:
    edit_arrays(session / "hands.npz", **changes)
    error = error_of(session)
    assert message in str(error)
    assert error.code == code


def test_hands_and_objects_must_agree_on_frames(session: Path) -> None:
    edit_arrays(
        session / "objects.npz",
        box_world_from_object=np.tile(np.eye(4), (6, 1, 1)),
        box_valid=np.ones(6, bool),
    )
    assert "objects.npz: box_world_from_object: found 6 frames, wanted 5" in str(error_of(session))


@pytest.mark.parametrize("scale", [1.1, -1.0])
def test_transforms_must_be_rigid(session: Path, scale: float) -> None:
    transforms = np.load(session / "objects.npz")["box_world_from_object"]
    transforms[3, :3, :3] *= scale
    edit_arrays(session / "objects.npz", box_world_from_object=transforms)
    error = error_of(session)
    assert error.code == "not-rigid"
    assert "box_world_from_object: found matrix 3 of 5" in str(error)


def test_missing_mesh_is_named(session: Path) -> None:
    (session / "objects" / "box.glb").unlink()
    assert "box.glb" in str(error_of(session))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("session.yaml", {"fpz": 3}, "unknown key 'fpz' (did you mean 'fps'?)"),
        ("session.yaml", {"fps": 0}, "'fps': found 0, wanted greater than 0"),
        ("session.yaml", {"fps": float("nan")}, "'fps': found nan"),
        ("session.yaml", {"units": "cm"}, "'units': found 'cm', wanted 'm'"),
        ("session.yaml", {"name": "../take"}, "'../take' is no fit name"),
        ("session.yaml", {"name": "object:mug"}, "'object:mug' is no fit name"),
        ("session.yaml", {"split": "tset"}, "'split': found 'tset', wanted 'train', 'val' or 'test'"),
        ("session.yaml", {"objects": {"box": {"mesh": "a\0.glb"}}}, "wanted a file in the session"),
        ("session.yaml", {"objects": {"a/b": {"mesh": "objects/box.glb"}}}, "'a/b' is no fit name"),
        ("session.yaml", {"objects": {"box": {"mesh": "../box.glb"}}}, "wanted a file in the session"),
        (
            "session.yaml",
            {"objects": {"cup": {"mesh": "objects/box.glb"}}},
            "unknown key 'box_world_from_object'",
        ),
        ("cameras.yaml", {"..": {}}, "missing key '...width'"),
        ("cameras.yaml", {"back": {"widht": 3}}, "unknown key 'back.widht' (did you mean 'width'?)"),
    ],
)
def test_mistakes_in_yaml_are_named(session: Path, file: str, change: dict[str, Any], message: str) -> None:
    edit_yaml(session / file, lambda values: values.update(change))
    assert message in str(error_of(session))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intrinsics": [[1, 0], [0, 1]]}, "front.intrinsics: found 2 rows of 2, wanted 3 x 3"),
        ({"intrinsics": [[0, 0, 1], [0, 1, 1], [0, 0, 1]]}, "positive fx and fy"),
        ({"camera_from_world": np.diag([2.0, 1, 1, 1]).tolist()}, "front.camera_from_world: found matrix 0"),
        ({"distortion": [0.1, 0.2]}, "front.distortion: found 2 coefficients, wanted 4, 5 or 8"),
        (
            {"intrinsics": [[1, 0, float("inf")], [0, 1, 1], [0, 0, 1]]},
            "front.intrinsics: found [[1.0, 0.0, inf]",
        ),
        ({"distortion": [float("nan")] * 4}, "front.distortion: found [nan, nan, nan, nan], wanted finite"),
        ({"width": -1}, "'front.width': found -1, wanted greater than 0"),
    ],
)
def test_mistakes_in_cameras_are_named(session: Path, change: dict[str, Any], message: str) -> None:
    edit_yaml(session / "cameras.yaml", lambda cameras: cameras["front"].update(change))
    assert message in str(error_of(session))


def test_pickled_arrays_are_refused(session: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("code ran",)

    np.savez(session / "hands.npz", left_pose=np.array([Trap()], object), allow_pickle=True)
    assert error_of(session).code == "npz"
    (session / "hands.npz").write_bytes(pickle.dumps(Trap()))
    assert error_of(session).code == "npz"


def test_corrupt_arrays_are_named(session: Path) -> None:
    data = (session / "hands.npz").read_bytes()
    (session / "hands.npz").write_bytes(data[: len(data) // 2])
    assert error_of(session).code == "npz"


@pytest.mark.parametrize(("name", "member"), [("left_pose", b"text"), ("left_pose.npy", PETABYTES)])
def test_archives_of_something_else_are_named(session: Path, name: str, member: bytes) -> None:
    with zipfile.ZipFile(session / "hands.npz", "w") as archive:
        archive.writestr(name, member)
    assert error_of(session).code == "npz"


def test_encrypted_arrays_are_named(session: Path) -> None:
    data = bytearray((session / "hands.npz").read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1  # the flag in the archive's directory
    (session / "hands.npz").write_bytes(data)
    assert error_of(session).code == "npz"


def test_a_video_of_another_format_is_said_to_be_left_out(
    session: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (session / "videos" / "front.mp4").rename(session / "videos" / "front.MOV")
    assert SessionFolder(session).load().videos == {}
    assert "front.MOV: not a .mp4 file" in caplog.text


def test_folder_that_is_no_session_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        SessionFolder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"session\.yaml: No such file"):
        SessionFolder(tmp_path)


def test_existing_session_is_not_overwritten(session: Path, clip: Clip) -> None:
    with pytest.raises(InputError, match="exists already"):
        write_session(session, clip, {})


def test_failed_write_leaves_nothing(tmp_path: Path, clip: Clip) -> None:
    with pytest.raises(ValueError, match="even"):
        write_session(tmp_path / "take", clip, {"front": [np.zeros((31, 47, 3), np.uint8)]})
    with pytest.raises(InputError, match="no fit name"):
        write_session(tmp_path / "take", replace(clip, id="../x"), {})
    assert not list(tmp_path.iterdir())
