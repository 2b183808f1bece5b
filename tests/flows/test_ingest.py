"""Ingesting sessions: a change to one part rebuilds what depends on it and nothing else."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from flows.ingest import IngestConfig, finish, ingest_sessions
from flows.outcome import Outcome
from render.layers import LayersConfig
from render.six_views import SixViewConfig
from storage.dataset import Dataset
from storage.errors import InputError
from storage.store import Store
from storage.video import write_video
from tests.flows.conftest import HEIGHT, NUM_FRAMES, WIDTH, MakeSession

ALL = {"object": 1, "layers": 2, "frames": 2}  # of a session with one object and two cameras


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def config() -> IngestConfig:
    return IngestConfig(layers=LayersConfig(size=32), six_views=SixViewConfig(size=32))


def run(paths: list[Path], config: IngestConfig, store: Store) -> Outcome:
    outcome = ingest_sessions(paths, config, store, dry_run=False)
    finish(outcome, config, store)
    return outcome


def test_each_camera_is_a_clip_and_a_second_ingest_does_nothing(
    make_session: MakeSession, config: IngestConfig, store: Store
) -> None:
    session = make_session("cup-1", split="test")
    assert run([session], config, store).counts() == (ALL, {})
    assert run([session], config, store).counts() == ({}, ALL)
    dataset = Dataset.open(store, config.dataset)
    assert [(row.id, row.split, row.source) for row in dataset.rows()] == [
        ("cup-1/front", "test", "hoi"),
        ("cup-1/side", "test", "hoi"),
    ]
    window = dataset.read(dataset.rows()[0], 0, NUM_FRAMES)
    assert window.frames.shape == (NUM_FRAMES, 32, 32, 3)
    assert np.abs(window.frames.astype(int) - 90).max() <= 2  # the grey video, through h264


def test_refitted_hands_rebuild_layers_alone(
    make_session: MakeSession, config: IngestConfig, store: Store
) -> None:
    session = make_session("cup-1")
    run([session], config, store)
    with np.load(session / "hands.npz") as hands:
        arrays = dict(hands)
    arrays["right_pose"] = arrays["right_pose"] + np.float32(0.01)
    np.savez(session / "hands.npz", **arrays)
    outcome = run([session], config, store)
    assert outcome.counts() == ({"layers": 2}, {"object": 1, "frames": 2})
    assert {planned.reason for planned in outcome.missing} == {"changed: inputs.hands"}


def test_a_video_of_another_length_sets_that_session_aside_alone(
    make_session: MakeSession, config: IngestConfig, store: Store
) -> None:
    short, whole = make_session("short"), make_session("whole")
    frames = np.zeros((NUM_FRAMES - 1, HEIGHT, WIDTH, 3), np.uint8)
    write_video(short / "videos" / "side.mp4", frames, 24.0)
    outcome = run([short, whole], config, store)
    (entry,) = outcome.quarantined
    assert (entry.input, entry.code) == ("short", "frame-count")
    assert f"{NUM_FRAMES - 1} frames" in entry.reason
    assert f"{NUM_FRAMES} as in" in entry.reason
    assert {row.session for row in Dataset.open(store, config.dataset).rows()} == {"whole"}


def test_sessions_with_one_object_share_its_record(
    make_session: MakeSession, config: IngestConfig, store: Store
) -> None:
    outcome = run([make_session("a"), make_session("b")], config, store)
    assert outcome.counts()[0]["object"] == 1
    assert len({row.object_keys for row in outcome.rows}) == 1


def test_a_lost_camera_leaves_the_dataset(
    make_session: MakeSession, config: IngestConfig, store: Store
) -> None:
    session = make_session("cup-1")
    run([session], config, store)
    cameras = yaml.safe_load((session / "cameras.yaml").read_text())
    del cameras["side"]
    (session / "cameras.yaml").write_text(yaml.safe_dump(cameras))
    (session / "videos" / "side.mp4").unlink()
    outcome = run([session], config, store)
    assert outcome.counts() == ({}, {"object": 1, "layers": 1, "frames": 1})
    assert [row.id for row in Dataset.open(store, config.dataset).rows()] == ["cup-1/front"]


def test_two_sessions_of_one_name_are_refused(
    make_session: MakeSession, config: IngestConfig, store: Store, tmp_path: Path
) -> None:
    session = make_session("cup-1")
    copy = shutil.copytree(session, tmp_path / "elsewhere")
    with pytest.raises(InputError, match="same name: both make cup-1/front"):
        run([session, copy], config, store)
