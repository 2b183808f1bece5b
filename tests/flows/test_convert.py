"""Recorded motion becomes an ordinary session: upright, on the table, and otherwise unchanged."""

from pathlib import Path

import numpy as np
import pytest

import flows.synthesize
from flows.convert import ConvertConfig, convert_recordings, on_stage
from flows.sources import load_hands
from flows.synthesize import is_current, put_session
from render.camera import project
from render.transforms import transform
from storage.sources.session import SessionFolder
from storage.sources.taco import UP, read_taco
from tests.flows.conftest import still_clip
from tests.recordings import NUM_FRAMES, write_hot3d, write_taco

SMALL = ConvertConfig(width=48, height=32, num_cameras=2)


def test_the_stage_moves_hands_and_objects_together(tmp_path: Path) -> None:
    hands = load_hands(None)
    before = read_taco(write_taco(tmp_path), hands.arrays, keep_shape=True)
    after = on_stage(before, UP, hands.arrays)
    gaps = []
    for clip in (before, after):
        joints = hands.models["right"](clip.hands["right"]).joints[:, :, None]  # [T, 21, 1, 3]
        corners = transform(clip.objects[0].world_from_object, clip.objects[0].mesh.vertices)[:, None]
        gaps.append(np.linalg.norm(joints - corners, axis=-1))
    np.testing.assert_allclose(gaps[1], gaps[0], atol=1e-6)


def test_the_object_stands_on_the_table_and_the_person_sits_behind_it(tmp_path: Path) -> None:
    hands = load_hands(None)
    clip = on_stage(read_taco(write_taco(tmp_path), hands.arrays, keep_shape=True), UP, hands.arrays)
    corners = transform(clip.objects[0].world_from_object, clip.objects[0].mesh.vertices)
    np.testing.assert_allclose(corners[..., 1].min(axis=1), (0.0, 0.1, 0.2), atol=1e-6)
    np.testing.assert_allclose(corners.mean(axis=(0, 1))[[0, 2]], 0, atol=1e-6)
    wrists = hands.models["right"](clip.hands["right"]).joints[:, 0]
    assert wrists[:, 2].max() < -0.05


def test_a_recording_becomes_a_session_once(tmp_path: Path) -> None:
    recording, out = write_taco(tmp_path), tmp_path / "sessions"
    made = convert_recordings("taco", [recording], SMALL, out)
    assert made.made == made.folders == (out / "taco-20231104_017",)
    clip = SessionFolder(made.folders[0]).load()
    assert (clip.num_frames, list(clip.cameras)) == (NUM_FRAMES, ["camera0", "camera1"])
    assert set(clip.videos) == set(clip.backgrounds) == set(clip.cameras)
    assert clip.objects[0].provenance["licence"] == "CC-BY-4.0"
    assert convert_recordings("taco", [recording], SMALL, out).made == ()
    every_other = SMALL.model_copy(update={"stride": 2, "num_cameras": 1})
    again = convert_recordings("taco", [recording], every_other, out)
    assert SessionFolder(again.made[0]).load().num_frames == 2


def test_a_session_of_a_run_killed_before_its_stamp_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    folder, clip = tmp_path / "cup", still_clip("cup")
    with monkeypatch.context() as patch:
        patch.setattr(flows.synthesize, "write_stamp", killed)
        with pytest.raises(KeyboardInterrupt):
            put_session(folder, clip, {}, {"seed": 1})
    assert not is_current(folder, {"seed": 1})
    for seed in (1, 2):
        put_session(folder, clip, {}, {"seed": seed})
        assert is_current(folder, {"seed": seed})
    assert list(tmp_path.iterdir()) == [folder]


def test_a_bad_recording_is_set_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    recording, library = write_hot3d(tmp_path)
    config = SMALL.model_copy(update={"library": library, "num_cameras": 1})
    result = convert_recordings("hot3d", [tmp_path / "nothing", recording], config, tmp_path / "sessions")
    assert [entry.code for entry in result.quarantined] == ["missing-file"]
    (folder,) = result.made
    assert set(SessionFolder(folder).load().hands) == {"left", "right"}


def test_hot3d_needs_its_library(tmp_path: Path) -> None:
    recording, _ = write_hot3d(tmp_path)
    (entry,) = convert_recordings("hot3d", [recording], SMALL, tmp_path / "sessions").quarantined
    assert entry.code == "config"
    assert "--library DIR" in entry.reason


def test_every_frame_is_in_every_picture(tmp_path: Path) -> None:
    (folder,) = convert_recordings("taco", [write_taco(tmp_path)], SMALL, tmp_path / "sessions").made
    clip = SessionFolder(folder).load()
    (moving,) = clip.objects
    joints = load_hands(None).models["right"](clip.hands["right"]).joints
    corners = transform(moving.world_from_object, moving.mesh.vertices)
    for camera in clip.cameras.values():
        pixels, depth = project(np.concatenate([joints, corners], axis=1), camera)
        assert depth.min() > 0
        assert (pixels > -0.5).all()
        assert (pixels < (camera.width - 0.5, camera.height - 0.5)).all()
