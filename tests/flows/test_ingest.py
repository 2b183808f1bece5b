"""Ingesting sessions: a change to one part rebuilds what depends on it and nothing else."""

import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import storage.sources.session
from flows.build import BuildConfig, build_objects, open_source
from flows.ingest import IngestConfig, finish, ingest_sessions, join
from flows.outcome import Outcome
from flows.sessions import find_sessions
from render.hands.procedural import build_hand
from render.layers import LayersConfig
from render.six_views import SixViewConfig
from storage.dataset import Dataset
from storage.manifest import update
from storage.records import ObjectData
from storage.sources.glb import read_object
from storage.sources.glb_writer import write_glb
from storage.sources.session_writer import write_session
from storage.store import Store
from storage.video import write_video
from tests.dexycb_writer import SERIALS, write_dexycb
from tests.flows.conftest import HEIGHT, NUM_FRAMES, WIDTH, MakeSession, still_clip

ALL = {"object": 1, "layers": 2, "frames": 2}  # of a session with one object and two cameras


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def config() -> IngestConfig:
    return IngestConfig(layers=LayersConfig(size=32), six_views=SixViewConfig(size=32))


def run(paths: list[Path], config: IngestConfig, store: Store) -> Outcome:
    outcome = join(ingest_sessions(paths, config, store, dry_run=False))
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
    for planned in outcome.missing:
        assert re.fullmatch("changed: inputs.hands: [0-9a-f]{8} → [0-9a-f]{8}", planned.reason)


def test_layers_hold_the_motion_of_another_first_object(
    config: IngestConfig, store: Store, tmp_path: Path
) -> None:
    clip = still_clip("two")
    (box,) = clip.objects
    moved = box.world_from_object.copy()
    moved[:, 0, 3] = 0.1
    clip = replace(clip, objects=(box, replace(box, name="other", world_from_object=moved)))
    write_session(tmp_path / "two", clip, {})
    places = []
    for _ in range(2):
        (row, *_) = run([tmp_path / "two"], config, store).rows
        places.append(store.open("layers", str(row.layers_key)).read("world_from_object")[0, 0, 3])
        described = yaml.safe_load((tmp_path / "two" / "session.yaml").read_text())
        described["objects"] = dict(reversed(described["objects"].items()))
        (tmp_path / "two" / "session.yaml").write_text(yaml.safe_dump(described, sort_keys=False))
    np.testing.assert_allclose(places, [0, 0.1], atol=1e-7)


def test_a_link_to_itself_ends_no_run(make_session: MakeSession, config: IngestConfig, store: Store) -> None:
    odd, broken = make_session("odd"), make_session("broken")
    (odd / "notes").symlink_to("notes")
    mesh = broken / "objects" / "box.glb"
    mesh.unlink()
    mesh.symlink_to("box.glb")
    outcome = run([odd, broken], config, store)
    assert {row.session for row in outcome.rows} == {"odd"}
    assert [(entry.input, entry.code) for entry in outcome.quarantined] == [("broken", "missing-file")]


def test_a_mesh_edited_while_it_is_read_is_read_again_by_the_next_ingest(
    make_session: MakeSession, config: IngestConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = make_session("cup-1")
    mesh = session / "objects" / "box.glb"
    before, grey = mesh.read_bytes(), still_clip("grey").objects[0].mesh
    write_glb(replace(grey, colors=grey.colors * np.float32(0.5)), mesh, copyright="CC0-1.0")
    edited = mesh.read_bytes()
    mesh.write_bytes(before)

    def read_then_edit(*arguments: Any, **options: Any) -> Any:
        read = read_object(*arguments, **options)
        mesh.write_bytes(edited)
        return read

    with monkeypatch.context() as patch:
        patch.setattr(storage.sources.session, "read_object", read_then_edit)
        run([session], config, store)
    stores = store, Store(f"{store.root}-of-the-edited-alone")
    keys = [run([session], config, each).rows[0].object_keys[0] for each in stores]
    views = [ObjectData.read(each, key).views for each, key in zip(stores, keys, strict=True)]
    assert keys[0] == keys[1]
    assert np.array_equal(*views)


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


def test_an_object_in_its_own_frame_is_another_record_than_one_that_is_centred(
    make_session: MakeSession, config: IngestConfig, store: Store, tmp_path: Path
) -> None:
    session, folder = make_session("cup-1"), tmp_path / "objects"
    folder.mkdir()
    box = still_clip("cup-1").objects[0].mesh
    write_glb(replace(box, vertices=box.vertices + np.float32(0.3)), folder / "box.glb", copyright="CC0-1.0")
    shutil.copy(folder / "box.glb", session / "objects" / "box.glb")
    building = BuildConfig(objects=folder, only=("object",), six_views=config.six_views)
    source = open_source(building, store)
    (built,) = build_objects(["box"], source, building, store, dry_run=False).planned
    ((own,), *_) = (row.object_keys for row in run([session], config, store).rows)
    centres = [ObjectData.read(store, key).centre for key in (built.key, own)]
    np.testing.assert_allclose(centres, [[0.0] * 3, [0.3] * 3], atol=1e-6)


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


def test_of_two_sessions_of_one_name_the_first_lands_and_the_second_is_set_aside(
    make_session: MakeSession, config: IngestConfig, store: Store, tmp_path: Path
) -> None:
    session, other = make_session("cup-1"), make_session("cup-2")
    copy = shutil.copytree(session, tmp_path / "elsewhere")
    run([session, copy, other], config, store)
    manifest = Dataset.open(store, config.dataset).manifest
    assert {row.session for row in manifest.rows} == {"cup-1", "cup-2"}
    (entry,) = manifest.quarantined
    assert (entry.input, entry.code, entry.path) == ("cup-1", "name-taken", str(copy))
    assert f"found the name 'cup-1', which {session} has" in entry.reason
    description = copy / "session.yaml"
    description.write_text(description.read_text().replace("cup-1", "cup-3"))
    run([session, copy, other], config, store)
    manifest = Dataset.open(store, config.dataset).manifest
    assert manifest.sessions() == {"cup-1", "cup-2", "cup-3"}
    assert manifest.quarantined == ()


def test_dexycb_is_ingested_with_the_published_hands(
    config: IngestConfig, store: Store, tmp_path: Path
) -> None:
    sequence = write_dexycb(tmp_path / "dexycb", build_hand("right"))
    mano = tmp_path / "mano"
    mano.mkdir()
    for side in ("left", "right"):
        (mano / f"MANO_{side.upper()}.pkl").write_bytes(pickle.dumps(build_hand(side)))
    paths = find_sessions(sequence.parents[1])
    (entry,) = run(paths, config, store).quarantined
    assert (entry.input, entry.code) == ("20200709-subject-01_20200709_141754", "mano-missing")
    outcome = run(paths, config.model_copy(update={"mano": mano}), store)
    assert outcome.counts() == (ALL, {})
    dataset = Dataset.open(store, config.dataset)
    assert dataset.manifest.quarantined == ()
    assert [(row.camera, row.source) for row in dataset.rows()] == [(serial, "hoi") for serial in SERIALS]
    window = dataset.read(dataset.rows()[0], 0, NUM_FRAMES)
    assert np.isfinite(window.joints_2d[:, 1]).all(axis=(1, 2)).tolist() == [False, True, True, True]
    assert [int(frame.mean().round()) for frame in window.frames] == [60, 100, 140, 180]


def test_videos_of_people_are_frames_alone(config: IngestConfig, store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "dances"
    folder.mkdir()
    shades = np.arange(0, 200, 50, dtype=np.uint8)[:, None, None, None]
    write_video(folder / "one.mp4", np.broadcast_to(shades, (4, HEIGHT, WIDTH, 3)), 30.0)
    (folder / "torn.mp4").write_bytes(b"not a video")
    (folder / "notes.txt").write_text("left alone")
    assert find_sessions(folder) == [folder / "one.mp4", folder / "torn.mp4"]
    outcome = run(find_sessions(folder), config, store)
    assert [(entry.input, entry.code) for entry in outcome.quarantined] == [("dances_torn", "video")]
    assert outcome.counts() == ({"frames": 1}, {})
    dataset = Dataset.open(store, config.dataset)
    (row,) = dataset.rows()
    assert (row.id, row.source, row.layers_key) == ("dances_one/main", "human", None)
    window = dataset.read(row, 0, 4)
    assert not window.normals.any()
    assert not window.views.any()
    np.testing.assert_array_equal(window.background, window.frames[0])


def test_a_session_that_is_mended_leaves_the_quarantine_whatever_its_folder_is_called(
    make_session: MakeSession, config: IngestConfig, store: Store, tmp_path: Path
) -> None:
    folder = make_session("cup-1").rename(tmp_path / "monday")
    description = (folder / "session.yaml").read_text()
    (folder / "session.yaml").write_text("name: [")
    other = make_session("monday")  # a session whose name is that of the other's folder
    run([folder, other], config, store)
    manifest = Dataset.open(store, config.dataset).manifest
    assert [(entry.input, entry.code) for entry in manifest.quarantined] == [("monday", "config")]
    (folder / "session.yaml").write_text(description)
    run([folder], config, store)
    manifest = Dataset.open(store, config.dataset).manifest
    assert manifest.quarantined == ()
    assert {row.session for row in manifest.rows} == {"cup-1", "monday"}


def test_pruning_keeps_the_given_sessions_and_the_objects(
    make_session: MakeSession, config: IngestConfig, store: Store
) -> None:
    kept, gone = make_session("kept"), make_session("gone")
    run([kept, gone], config, store)
    (row, *_) = Dataset.open(store, config.dataset).rows()
    update(store, config.dataset, lambda m: m.updated([replace(row, session="object:mug")], [], sessions=[]))
    outcome = run([kept], config.model_copy(update={"prune": True}), store)
    assert outcome.counts() == ({}, ALL)
    assert Dataset.open(store, config.dataset).manifest.sessions() == {"kept", "object:mug"}


def test_nothing_is_pruned_while_it_is_not_known_which_sessions_were_given(
    make_session: MakeSession, config: IngestConfig, store: Store, tmp_path: Path
) -> None:
    kept, broken = make_session("kept"), make_session("broken")
    run([kept, broken], config, store)
    (broken / "session.yaml").write_text("name: [")
    for given in ([], [tmp_path / "not-mounted"], [kept, broken]):
        run(given, config.model_copy(update={"prune": True}), store)
        rows = Dataset.open(store, config.dataset).rows()
        assert {row.session for row in rows} == {"kept", "broken"}, given


def test_a_take_recorded_again_under_another_name_follows_the_one_that_is_held_out(
    tmp_path: Path, config: IngestConfig, store: Store
) -> None:
    """The copy has another name, participant, encoding of its videos and texture on its object."""
    rng, clip = np.random.default_rng(0), still_clip("held-out")
    bending = rng.uniform(0, 0.5, 48).astype(np.float32) * np.linspace(0, 1, NUM_FRAMES)[:, None]
    hands = {side: replace(hand, pose=bending.astype(np.float32)) for side, hand in clip.hands.items()}
    box = replace(clip.objects[0].mesh, colors=clip.objects[0].mesh.colors * np.float32(0.5))
    other = replace(hands["right"], pose=hands["right"].pose[::-1])
    takes = {
        "held-out": replace(clip, hands=hands, split="test", participant="ann"),
        "copy": replace(
            clip, id="copy", hands=hands, objects=(replace(clip.objects[0], mesh=box),), participant="bob"
        ),
        "another": replace(clip, id="another", hands={"right": replace(other, pose=2 * other.pose)}),
    }
    for grey, (name, take) in enumerate(takes.items()):
        video = np.full((NUM_FRAMES, HEIGHT, WIDTH, 3), 90 + 20 * grey, np.uint8)
        write_session(tmp_path / "takes" / name, take, dict.fromkeys(take.cameras, video))
    run([tmp_path / "takes" / name for name in takes], config, store)
    rows = Dataset.open(store, config.dataset).rows()
    assert {row.session for row in rows if row.split == "test"} == {"held-out", "copy"}
    assert {row.why["sequence"] for row in rows if row.session == "copy"} == {
        "near-duplicate of held-out, whose source fixes it"
    }
    assert len({row.object_split for row in rows}) == 1
    people = {row.participant: (row.participant_split, row.why["participant"]) for row in rows}
    assert people["bob"] == (people["ann"][0], "drawn with ann, by near-duplicate takes")


def test_a_human_video_is_known_again_mirrored_and_encoded_anew(
    tmp_path: Path, config: IngestConfig, store: Store
) -> None:
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (2, 8, 8, 3)).repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)
    videos = {"dance": scenes[0], "copy": scenes[0, :, ::-1], "other": scenes[1]}
    folder = tmp_path / "people"
    folder.mkdir()
    for name, scene in videos.items():
        write_video(folder / f"{name}.mp4", [scene] * 4, 24.0, crf=30 if name == "copy" else 18)
    run([folder / f"{name}.mp4" for name in videos], config, store)
    why = {row.session: row.why["sequence"] for row in Dataset.open(store, config.dataset).rows()}
    assert why["people_dance"] == "drawn with its near-duplicate people_copy"
    assert why["people_other"] == "drawn by its name"
