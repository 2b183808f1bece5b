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
