"""Building objects: only what is missing, the rest goes on when one cannot be read."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import flows.sources
from flows.build import BuildConfig, build_objects, finish, open_source
from flows.outcome import Outcome
from flows.sources import procedural_folder
from render.layers import LayersConfig
from render.procedural_objects import procedural_object
from render.scene import Mesh
from render.six_views import SixViewConfig
from render.trajectories import seed_generator
from storage.dataset import Dataset
from storage.download import DownloadConfig
from storage.sources.glb import load_glb
from storage.sources.glb_limits import GlbLimits
from storage.sources.glb_writer import encode_glb, write_glb
from storage.sources.objaverse import ObjaverseConfig
from storage.store import Store
from storage.upkeep import status
from tests.objaverse_server import objaverse_files, path_of, serving, uid_of

EACH_KIND = {"object": 2, "layers": 2, "frames": 2}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def config(objects: Path) -> BuildConfig:
    return BuildConfig(
        objects=objects, num_frames=3, layers=LayersConfig(size=32), six_views=SixViewConfig(size=32)
    )


def run(config: BuildConfig, store: Store, *, dry_run: bool = False) -> Outcome:
    source = open_source(config, store)
    outcome = build_objects(source.ids(), source, config, store, dry_run=dry_run)
    if not dry_run:
        finish(outcome, config, store)
    return outcome


def test_good_objects_are_built_and_the_torn_one_is_set_aside(config: BuildConfig, store: Store) -> None:
    outcome = run(config, store)
    assert outcome.counts() == (EACH_KIND, {})
    (entry,) = outcome.quarantined
    assert (entry.input, entry.code) == ("object:torn", "truncated")
    rows = Dataset.open(store, config.dataset).rows()
    assert [row.session for row in rows] == ["object:box", "object:mug"]
    assert all(row.licence == "CC0-1.0" and row.has_object and not row.has_hands for row in rows)


def test_a_file_name_that_is_no_utf_8_is_set_aside_alone(
    config: BuildConfig, store: Store, objects: Path
) -> None:
    (objects / "torn.glb").rename(objects / os.fsdecode(b"cup\xff.glb"))
    (objects / "mug.glb").rename(objects / os.fsdecode(b"mug\xff.glb"))
    outcome = run(config, store)
    assert [row.session for row in outcome.rows] == ["object:box"]
    entries = Dataset.open(store, config.dataset).manifest.quarantined
    assert [entry.input for entry in entries] == [r"object:cup\udcff", r"object:mug\udcff"]


def test_object_beyond_a_limit_is_set_aside(config: BuildConfig, store: Store) -> None:
    outcome = run(config.model_copy(update={"limits": GlbLimits(triangles=12)}), store)
    codes = {entry.input: entry.code for entry in outcome.quarantined}
    assert codes == {"object:mug": "too-many-triangles", "object:torn": "truncated"}


def test_clips_can_be_read(config: BuildConfig, store: Store) -> None:
    run(config, store)
    dataset = Dataset.open(store, config.dataset)
    window = dataset.read(dataset.rows()[0], 0, 3)
    assert window.frames.shape == (3, 32, 32, 3)
    assert window.mask.any(axis=(1, 2)).all()
    assert (window.frames[:, 0, 0] == window.background[0, 0]).all()
    assert (window.background == window.background[0, 0]).all()


def test_two_builds_may_write_the_procedural_objects_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_while_another_does(mesh: Mesh, path: Path, **options: str) -> None:
        write_glb(mesh, path, **options)
        monkeypatch.setattr(flows.sources, "write_glb", write_glb)
        procedural_folder(tmp_path, 1, seed=0)

    monkeypatch.setattr(flows.sources, "write_glb", write_while_another_does)
    (file,) = procedural_folder(tmp_path, 1, seed=0).iterdir()
    assert len(load_glb(file).faces)


def test_a_second_build_builds_nothing(config: BuildConfig, store: Store) -> None:
    run(config, store)
    manifest = (store.root / "datasets" / "objects.jsonl").read_bytes()
    assert run(config, store).counts() == ({}, EACH_KIND)
    assert (store.root / "datasets" / "objects.jsonl").read_bytes() == manifest


def test_a_dry_run_names_what_changed_and_writes_nothing(config: BuildConfig, store: Store) -> None:
    dry = run(config, store, dry_run=True)
    assert {planned.reason for planned in dry.missing} == {"new"}
    assert [entry.input for entry in dry.quarantined] == ["object:torn"]
    assert status(store) == {}
    run(config, store)
    larger = config.model_copy(update={"six_views": SixViewConfig(size=48)})
    missing = run(larger, store, dry_run=True).missing
    assert {planned.kind for planned in missing} == {"object"}
    assert {planned.reason for planned in missing} == {"changed: config.size: 32 → 48"}


def test_motion_settings_leave_the_six_views_alone(config: BuildConfig, store: Store) -> None:
    run(config, store)
    built, cached = run(config.model_copy(update={"seed": 7}), store).counts()
    assert built == {"layers": 2, "frames": 2}
    assert cached == {"object": 2}


def test_stopping_after_objects_leaves_the_dataset_as_it_is(config: BuildConfig, store: Store) -> None:
    run(config, store)
    rows = Dataset.open(store, config.dataset).rows()
    changed = {"six_views": SixViewConfig(size=48), "layers": LayersConfig(size=48)}
    outcome = run(config.model_copy(update={**changed, "only": ("object",)}), store)
    assert outcome.counts()[0] == {"object": 2}
    assert Dataset.open(store, config.dataset).rows() == rows


def test_an_object_that_is_gone_leaves_the_dataset(config: BuildConfig, store: Store, objects: Path) -> None:
    run(config, store)
    (objects / "box.glb").unlink()
    (objects / "torn.glb").unlink()
    run(config, store)
    manifest = Dataset.open(store, config.dataset).manifest
    assert [row.session for row in manifest.rows] == ["object:mug"]
    assert manifest.quarantined == ()


def test_objaverse_is_fetched_and_built_and_its_failures_are_set_aside(tmp_path: Path, store: Store) -> None:
    glb = encode_glb(procedural_object("mug", seed_generator("mug")))
    with serving(objaverse_files([glb] * 4, {"mug": [1, 2, 3]}, {2: "by-nd"})) as server:
        server.faults[path_of(uid_of(3))].append(404)
        server.faults[path_of(uid_of(1))].extend(["drop", 503])
        config = BuildConfig(
            objaverse=ObjaverseConfig(
                lvis=("mug",),
                base_url=server.base_url,
                folder=tmp_path / "objaverse",
                download=DownloadConfig(backoff_s=0.001),
            ),
            num_frames=2,
            layers=LayersConfig(size=16),
            six_views=SixViewConfig(size=16),
        )
        planned = run(config, store, dry_run=True)
        assert {entry.reason for entry in planned.missing} == {"new"}
        assert server.asked(path_of(uid_of(1))) == []
        outcome = run(config, store)
    assert outcome.counts()[0] == dict.fromkeys(EACH_KIND, 1)
    assert {entry.input: entry.code for entry in outcome.quarantined} == {
        f"object:{uid_of(2)}": "licence",
        f"object:{uid_of(3)}": "not-found",
    }
    (row,) = Dataset.open(store, config.dataset).rows()
    assert row.licence == "CC-BY-4.0"
    record = store.open("object", row.object_keys[0])
    assert record.attrs["provenance"]["author"] == "A Maker"


def test_an_object_in_a_folder_keeps_its_clip_apart(config: BuildConfig, store: Store, objects: Path) -> None:
    (objects / "torn.glb").unlink()
    for folder in ("a", "b"):
        (objects / folder).mkdir()
        shutil.copy(objects / "mug.glb", objects / folder)
    (objects / "mug.glb").unlink()
    for _ in range(2):
        run(config, store)
        rows = Dataset.open(store, config.dataset).rows()
        assert [row.id for row in rows] == [
            "object:a%2Fmug.glb/main",
            "object:b%2Fmug.glb/main",
            "object:box/main",
        ]


def test_a_record_that_is_lost_is_built_again_and_the_plan_says_so(config: BuildConfig, store: Store) -> None:
    run(config, store)
    shutil.rmtree(store.root / "layers")
    missing = run(config, store, dry_run=True).missing
    assert [planned.kind for planned in missing] == ["layers", "layers"]
    assert {planned.reason for planned in missing} == {"lost: the dataset has it, the store does not"}
    assert run(config, store).counts()[0] == {"layers": 2}


def test_the_manifest_tells_split_licence_and_origin(config: BuildConfig, store: Store) -> None:
    run(config.model_copy(update={"test_fraction": 1.0}), store)
    for row in Dataset.open(store, config.dataset).rows():
        assert (row.split, row.object_split, row.licence) == ("test", "test", "CC0-1.0")
        (origin,) = row.provenance
        assert origin["name"] == row.session.removeprefix("object:")
        assert origin["licence"] == "CC0-1.0"


def test_an_object_in_other_colours_in_another_file_is_on_the_same_side(
    config: BuildConfig, objects: Path, store: Store
) -> None:
    mug = procedural_object("mug", seed_generator("mug"))
    for number in range(3):
        painted = replace(mug, colors=mug.colors * np.float32(0.2 + 0.2 * number))
        write_glb(painted, objects / f"copy-{number}.glb", copyright="CC0-1.0")
    run(config.model_copy(update={"test_fraction": 0.5}), store)
    rows = {row.session: row for row in Dataset.open(store, config.dataset).rows()}
    mugs = [row for session, row in rows.items() if session != "object:box"]
    assert len(mugs) == 4
    assert len({(row.split, row.object_split) for row in mugs}) == 1
    assert len({row.why["object"] for row in rows.values()}) == 2  # the box is drawn for itself
