"""TACO-style and HOT3D recordings: frames, wrists and objects are where the files say."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from render.hands.model import HandModel
from render.hands.procedural import build_hand
from render.transforms import transform
from storage.errors import InputError
from storage.sources.graspxl import read_graspxl
from storage.sources.hot3d import read_hot3d
from storage.sources.taco import read_taco
from tests.recordings import HOT3D_UID, write_hot3d, write_taco

HANDS = {side: build_hand(side) for side in ("left", "right")}
PUZZLE, KEYBOARD = "106957734975303", "37787722328019"


class TestTaco:
    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("keep_shape", [True, False])
    def test_the_wrist_is_where_the_file_says(self, tmp_path: Path, side: str, keep_shape: bool) -> None:
        path = write_taco(tmp_path, side)
        hand = read_taco(path, HANDS, keep_shape=keep_shape).hands[side]
        joints = HandModel(HANDS[side], side)(hand).joints
        np.testing.assert_allclose(joints[:, 0], np.load(path)["hand_trans"], atol=1e-6)
        assert hand.shape.any() == keep_shape

    def test_a_real_hand_grasps_its_object(self, shared_data: Path) -> None:
        clip = read_taco(shared_data / "motion" / "taco" / "20231104_017.npz", HANDS, keep_shape=False)
        assert (clip.num_frames, clip.fps, list(clip.hands)) == (146, 30.0, ["left"])
        (moving,) = clip.objects
        assert len(moving.mesh.faces) == 2000
        hand = HandModel(HANDS["left"], "left")(clip.hands["left"])
        surface = transform(moving.world_from_object, moving.mesh.vertices)
        gaps = [cKDTree(surface[frame]).query(hand.vertices[frame])[0].min() for frame in (0, 50, 70, 90)]
        assert gaps[0] > 0.01  # it reaches for it
        assert max(gaps[1:]) < 0.01  # and holds it, though the procedural hand is another's

    @pytest.mark.parametrize(
        ("key", "value", "code"),
        [
            ("hand_pose", np.zeros((3, 45), np.float32), "shape"),
            ("obj_pose", np.zeros((2, 4, 4), np.float32), "shape"),
            ("hand_trans", np.full((3, 3), np.nan, np.float32), "non-finite"),
            ("hand_shape", np.array([{}]), "npz"),
        ],
    )
    def test_a_bad_array_is_named(self, tmp_path: Path, key: str, value: np.ndarray, code: str) -> None:
        path = write_taco(tmp_path)
        np.savez(path, **{**np.load(path), key: value})
        with pytest.raises(InputError, match=path.name) as error:
            read_taco(path, HANDS, keep_shape=True)
        assert error.value.code == code


class TestHot3d:
    def test_frames_stamped_twice_are_one(self, tmp_path: Path) -> None:
        recording, library = write_hot3d(tmp_path)
        clip = read_hot3d(recording, library, HANDS, keep_shape=True)
        assert (clip.num_frames, clip.fps, clip.participant) == (3, 30.0, "P0001")
        assert clip.hands["left"].valid.tolist() == [True, False, True]
        assert [moving.name for moving in clip.objects] == [HOT3D_UID]  # the other has no mesh
        np.testing.assert_allclose(clip.objects[0].world_from_object[:, 2, 3], (0.5, 0.51, 0.52), atol=1e-6)

    def test_components_and_quaternions_become_a_pose(self, tmp_path: Path) -> None:
        recording, library = write_hot3d(tmp_path)
        hand = read_hot3d(recording, library, HANDS, keep_shape=True).hands["right"]
        first = HANDS["right"]["hands_mean"] + 0.5 * HANDS["right"]["hands_components"][0]
        np.testing.assert_allclose(hand.pose[0, 3:], first, atol=1e-6)
        np.testing.assert_allclose(hand.pose[0, :3], (np.pi / 2, 0, 0), atol=1e-6)

    def test_a_real_recording_is_read(self, shared_data: Path, tmp_path: Path) -> None:
        for uid, name in ((KEYBOARD, "keyboard"), (PUZZLE, "puzzle_toy")):
            shutil.copy(shared_data / "objects" / "good" / f"hot3d_{name}.glb", tmp_path / f"{uid}.glb")
        recording = shared_data / "motion" / "hot3d" / "Aria_P0003_c701bd11"
        clip = read_hot3d(recording, tmp_path, HANDS, keep_shape=False)
        assert (clip.num_frames, round(clip.fps)) == (34, 30)
        assert set(clip.hands) == {"left", "right"}
        assert {moving.name for moving in clip.objects} == {KEYBOARD, PUZZLE}
        keyboard = next(moving for moving in clip.objects if moving.name == KEYBOARD)
        assert keyboard.world_from_object[:, 2, 1].min() > 0.99  # it lies flat: its +Y is the world's +Z

    def test_a_uid_cannot_lead_out_of_the_library(self, tmp_path: Path) -> None:
        recording, library = write_hot3d(tmp_path, uid="../secret")
        with pytest.raises(InputError) as error:
            read_hot3d(recording, library, HANDS, keep_shape=True)
        assert error.value.code == "unsafe-name"

    @pytest.mark.parametrize("line", ["", "[]", "{", json.dumps({"timestamp_ns": 1})])
    def test_a_bad_line_is_named(self, tmp_path: Path, line: str) -> None:
        recording, library = write_hot3d(tmp_path)
        file = recording / "mano_hand_pose_trajectory.jsonl"
        lines = file.read_text().splitlines()
        file.write_text("\n".join([lines[0], line, *lines[1:]]))
        with pytest.raises(InputError, match="line 2") as error:
            read_hot3d(recording, library, HANDS, keep_shape=True)
        assert error.value.code == "hot3d"

    def test_an_empty_library_is_said(self, tmp_path: Path) -> None:
        recording, _ = write_hot3d(tmp_path)
        with pytest.raises(InputError, match="the mesh of no object"):
            read_hot3d(recording, tmp_path, HANDS, keep_shape=True)


class TestGraspXl:
    UID = "00000054c36d44a2a483bdbff31d8edf"

    def test_a_real_hand_grasps_its_object(self, shared_data: Path) -> None:
        path = shared_data / "motion" / "graspxl" / self.UID / "mano_1.npy"
        clip = read_graspxl(path, HANDS)
        assert (clip.id, clip.num_frames, list(clip.hands)) == (f"graspxl-{self.UID}-mano_1", 155, ["right"])
        (moving,) = clip.objects
        hand = HandModel(HANDS["right"], "right")(clip.hands["right"])
        surface = transform(moving.world_from_object, moving.mesh.vertices)
        gaps = [
            cKDTree(surface[frame]).query(hand.joints[frame, 4::4])[0].mean() for frame in (0, 60, 100, 150)
        ]
        assert gaps[0] > 0.05  # it reaches for it
        assert max(gaps[1:]) < 0.025  # and all five tips are near it

    def test_a_file_cannot_run_code(self, tmp_path: Path) -> None:
        trace, path = tmp_path / "trace", tmp_path / self.UID / "mano_1.npy"
        path.parent.mkdir()
        np.save(path, np.array(Runs(trace), object), allow_pickle=True)
        with pytest.raises(InputError, match=r"mano_1\.npy: refers to") as error:
            read_graspxl(path, HANDS)
        assert error.value.code == "unsafe-pickle"
        assert not trace.exists()
        np.load(path, allow_pickle=True)
        assert trace.exists()  # so the file was indeed live

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            ({}, "missing-key"),
            ([1], "missing-key"),
            ({"right_hand": {"pose": np.zeros((2, 45))}, UID: {}}, "missing-key"),
            ({"right_hand": {"pose": np.zeros((2, 48))}, UID: {}}, "shape"),
            ({"right_hand": {"pose": np.full((2, 45), np.nan)}, UID: {}}, "non-finite"),
        ],
    )
    def test_bad_content_is_named(self, tmp_path: Path, content: object, code: str) -> None:
        path = tmp_path / self.UID / "mano_1.npy"
        path.parent.mkdir()
        boxed = np.empty((), object)
        boxed[()] = content
        np.save(path, boxed, allow_pickle=True)
        with pytest.raises(InputError, match=path.name) as error:
            read_graspxl(path, HANDS)
        assert error.value.code == code

    @pytest.mark.parametrize("data", [b"", b"no array", b"\x93NUMPY\x01\x00"])
    def test_a_torn_file_is_named(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "mano_1.npy"
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"not an \.npy") as error:
            read_graspxl(path, HANDS)
        assert error.value.code == "npy"


class Runs:
    """Makes a folder when an ordinary unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return Path.mkdir, (self.path,)
