"""A synthetic person's videos become clips of O_B and S, and a session's motion gets both."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.generate import GenerateConfig, Motion, motion_window
from flows.human import HumanConfig, check_held_out, sessions_beside
from flows.ingest import IngestConfig, ingest_session, prepare_job
from flows.people import PeopleConfig, write_people, write_scene
from model.clip_tensors import FrameTensors
from model.config import ModelConfig
from model.pipeline import build_pipeline
from render.camera import Crop
from render.scene import SIDES, HandMotion
from render.skeleton import KEYPOINTS, crop_keypoints
from storage.config import load_config
from storage.dataset import Dataset
from storage.errors import InputError
from storage.manifest import Manifest
from storage.sources.human_video import keypoints_file, read_keypoints
from storage.sources.session import SessionFolder
from storage.sources.session_writer import write_session
from storage.store import Store
from storage.video import VideoFile
from tests.flows.conftest import HEIGHT, NUM_FRAMES, WIDTH, still_clip
from tests.flows.test_generate import SMALL, TINY

WRIST = {side: KEYPOINTS.index(f"{side}_wrist") for side in SIDES}
PEOPLE = PeopleConfig(videos=1, num_frames=4, width=64, height=48)
WHOLE = Crop(0, 0, PEOPLE.height)
INGEST = IngestConfig.model_validate(
    {
        "dataset": "people",
        "test_fraction": 0,
        "crop": "center",
        "layers": {"size": 32},
        "six_views": {"size": 16},
    }
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = write_people(PEOPLE, tmp_path_factory.mktemp("people"))
    return path


@pytest.fixture
def session(tmp_path: Path) -> Path:
    """Both hands beside a box, seen by two cameras with plates."""
    clip = still_clip("both")
    right = clip.hands["right"]
    hands: dict[str, HandMotion] = {
        "left": replace(right, translation=right.translation + 0.1),
        "right": right,
    }
    plates = {name: np.full((HEIGHT, WIDTH, 3), 90, np.uint8) for name in clip.cameras}
    grey = np.full((NUM_FRAMES, HEIGHT, WIDTH, 3), 90, np.uint8)
    path, clip = tmp_path / "captures" / "both", replace(clip, hands=hands, backgrounds=plates)
    write_session(path, clip, dict.fromkeys(plates, grey))
    return path


def human_config(session: Path) -> HumanConfig:
    """All steps at their smallest, from the folder that a session is in."""
    return HumanConfig.model_validate(
        {
            "people": PEOPLE,
            "sessions": session.parent,
            "ingest": INGEST,
            "human": {
                "stage": "human",
                "dataset": "people",
                "init_from": session.parents[1] / "model",
                "iterations": 2,
                "threads": 1,
                "batch": {"clips": 1, "frames": 2, "shares": {"human": 1, "hoi": 1}},
                "memory_estimate": False,
            },
            "session": session,
            "generate": {"sampling": {"num_frames": 2, "num_inference_steps": 1}, "ingest": INGEST},
        }
    )


def renamed_copy(session: Path, name: str) -> Path:
    """Copy a session beside itself, as another one."""
    copy = shutil.copytree(session, session.with_name(name))
    about = copy / "session.yaml"
    about.write_text(yaml.safe_dump(yaml.safe_load(about.read_text()) | {"name": name}))
    return copy


def test_a_video_of_a_person_is_a_clip_with_a_skeleton_where_the_person_is(
    video: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    outcome = ingest_session(video, prepare_job(INGEST, store))
    (row,) = outcome.rows
    assert (row.source, row.layers_key, row.has_hands) == ("human", None, False)
    assert ("skeleton", row.skeleton_key) in row.records()
    window = Dataset(store, Manifest("people", (row,))).read(row, 0, 4)
    assert window.skeleton is not None
    assert window.skeleton.shape == (4, 32, 32, 3)
    assert window.skeleton.any(axis=(1, 2, 3)).all()
    assert not np.array_equal(window.skeleton[0], window.skeleton[3])  # it gestures
    assert not window.normals.any()
    tensors = FrameTensors.from_window(window)
    assert np.array_equal(tensors.skeleton.movedim(1, -1).numpy(), window.skeleton)
    assert not FrameTensors.from_window(replace(window, skeleton=None)).skeleton.any()


def test_people_that_are_there_stay(video: Path) -> None:
    before = video.stat().st_mtime_ns
    assert write_people(PEOPLE, video.parent) == [video]
    assert video.stat().st_mtime_ns == before


def test_people_whose_change_was_interrupted_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    (video,) = write_people(PEOPLE, tmp_path)
    slower = PEOPLE.model_copy(update={"fps": 12.0})
    with monkeypatch.context() as patch:
        patch.setattr("flows.people.write_stamp", killed)
        with pytest.raises(RuntimeError, match="killed"):
            write_people(slower, tmp_path)
    assert VideoFile(video).info.fps == 12
    write_people(PEOPLE, tmp_path)
    assert VideoFile(video).info.fps == 24


def test_keypoints_that_do_not_fit_are_named(video: Path, tmp_path: Path) -> None:
    assert read_keypoints(keypoints_file(video), 4).shape == (4, 17, 3)
    with pytest.raises(InputError, match=r"keypoints: found \(4, 17, 3\), wanted \(5, 17, 3\)"):
        read_keypoints(keypoints_file(video), 5)
    other = tmp_path / "x.keypoints.json"
    other.write_text(json.dumps({"format": "openpose", "keypoints": []}))
    with pytest.raises(InputError, match="format: found openpose, wanted coco17"):
        read_keypoints(other)
    other.write_text("{")
    with pytest.raises(InputError, match="not keypoints"):
        read_keypoints(other)


def test_a_scene_s_person_is_in_the_picture_and_its_arms_end_at_the_hands(
    session: Path, tmp_path: Path
) -> None:
    scene, keypoints = write_scene(session, PEOPLE, tmp_path / "out")
    config = GenerateConfig.model_validate({"ingest": INGEST.model_dump(), "sampling": {"num_frames": 3}})
    motion = Motion(scene, keypoints=keypoints)
    window, _ = motion_window(motion, config, Store(tmp_path / "store"))
    assert window.skeleton is not None
    assert window.skeleton.shape == (3, 32, 32, 3)
    points = read_keypoints(keypoints)
    seen = points[:, [KEYPOINTS.index(name) for name in ("nose", "left_elbow", "right_elbow")], :2]
    assert (seen > 0).all()
    assert (seen < PEOPLE.height - 1).all()
    wrists = crop_keypoints(points[:3], WHOLE, 32)[:, [WRIST["left"], WRIST["right"]], :2]
    np.testing.assert_allclose(wrists, window.joints_2d[:, :, 0], atol=0.01)


def test_a_scene_s_video_is_its_plate_but_for_hands_object_and_what_moves(
    session: Path, tmp_path: Path
) -> None:
    scene, _ = write_scene(session, PEOPLE, tmp_path / "out")  # a clip in which nothing moves
    clip = SessionFolder(scene).load()
    (plate,), (video,) = clip.backgrounds.values(), clip.videos.values()
    difference = np.abs(next(iter(video.frames())).astype(int) - plate).max(axis=2)
    changed = difference > 40  # more than a codec changes
    assert changed.any()
    assert changed.mean() < 0.3
    assert write_scene(session, PEOPLE, tmp_path / "out")[0] == scene  # it may be there already


def test_sessions_to_train_on_are_all_but_the_one_that_is_generated(session: Path) -> None:
    with pytest.raises(InputError, match="sessions to train on: found none beside"):
        sessions_beside(human_config(session))
    other = renamed_copy(session, "other")
    assert sessions_beside(human_config(session)) == [other]
    for key in ("session", "sessions"):
        config = human_config(session).model_copy(update={key: session.parent / "none"})
        with pytest.raises(InputError, match="none"):
            sessions_beside(config)


def test_the_session_that_is_generated_is_not_trained_on_by_another_name(
    session: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    copy = shutil.copytree(session, session.with_name("moved"))
    outcome = ingest_session(copy, prepare_job(INGEST, store))
    Manifest("people", outcome.rows).write(store)
    with pytest.raises(InputError, match="dataset people: found session both, wanted it held out"):
        check_held_out(human_config(session), store)


def test_the_whole_way_to_a_person_who_handles_an_object(
    session: Path, tmp_path: Path, prefect_server: None
) -> None:
    settings = human_config(session)
    build_pipeline(load_config(ModelConfig, TINY, SMALL)).save_pretrained(tmp_path / "model")
    renamed_copy(session, "other")
    (session.parent / "broken").mkdir()
    config, out = tmp_path / "human.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    arguments = ["human", str(config), "-o", str(out), "--store", str(tmp_path / "store"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    files = json.loads(result.stdout.splitlines()[-1])
    assert VideoFile(Path(files["video"])).num_frames == 2
    assert Path(files["sheet"]).read_bytes().startswith(b"\x89PNG")
    assert list(files["psnr"]) == ["generated", "image stage alone", "O_B, repeated"]
    assert files["psnr"]["generated"] != files["psnr"]["image stage alone"]
    assert all(np.isfinite(value) for of in files["psnr"].values() for value in of.values())
    assert [entry["input"] for entry in files["quarantined"]] == ["broken"]
    rows = Manifest.read(Store(tmp_path / "store"), "people").rows
    assert {(row.source, row.session) for row in rows} == {("hoi", "other"), ("human", "people_person-0-0")}
