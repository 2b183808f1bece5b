"""Building objects: only what is missing, the rest goes on when one cannot be read."""

from pathlib import Path

import pytest

from flows.build import BuildConfig, build_objects, finish, open_source
from flows.outcome import Outcome
from render.layers import LayersConfig
from render.six_views import SixViewConfig
from storage.dataset import Dataset
from storage.store import Store

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
    names = open_source(config, store).ids()
    outcome = build_objects(names, config, store, dry_run=dry_run)
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


def test_clips_can_be_read(config: BuildConfig, store: Store) -> None:
    run(config, store)
    dataset = Dataset.open(store, config.dataset)
    window = dataset.read(dataset.rows()[0], 0, 3)
    assert window.frames.shape == (3, 32, 32, 3)
    assert window.mask.any(axis=(1, 2)).all()
    assert (window.frames[:, 0, 0] == window.background[0, 0]).all()
    assert (window.background == window.background[0, 0]).all()


def test_a_second_build_builds_nothing(config: BuildConfig, store: Store) -> None:
    run(config, store)
    manifest = (store.root / "datasets" / "objects.jsonl").read_bytes()
    assert run(config, store).counts() == ({}, EACH_KIND)
    assert (store.root / "datasets" / "objects.jsonl").read_bytes() == manifest


def test_a_dry_run_names_what_changed_and_writes_nothing(
    config: BuildConfig, store: Store, objects: Path
) -> None:
    (objects / "torn.glb").unlink()  # a dry run does not open files, so it cannot know
    assert {planned.reason for planned in run(config, store, dry_run=True).missing} == {"new"}
    assert store.status() == {}
    run(config, store)
    larger = config.model_copy(update={"six_views": SixViewConfig(size=48)})
    missing = run(larger, store, dry_run=True).missing
    assert {planned.recipe.kind for planned in missing} == {"object"}
    assert {planned.reason for planned in missing} == {"changed: config.size"}


def test_motion_settings_leave_the_six_views_alone(config: BuildConfig, store: Store) -> None:
    run(config, store)
    built, cached = run(config.model_copy(update={"seed": 7}), store).counts()
    assert built == {"layers": 2, "frames": 2}
    assert cached == {"object": 2}


def test_stopping_after_objects_leaves_the_dataset_as_it_is(config: BuildConfig, store: Store) -> None:
    only_objects = config.model_copy(update={"only": ("object",)})
    outcome = run(only_objects, store)
    assert outcome.counts()[0] == {"object": 2}
    assert outcome.rows == ()


def test_an_object_that_is_gone_leaves_the_dataset(config: BuildConfig, store: Store, objects: Path) -> None:
    run(config, store)
    (objects / "box.glb").unlink()
    (objects / "torn.glb").unlink()
    run(config, store)
    manifest = Dataset.open(store, config.dataset).manifest
    assert [row.session for row in manifest.rows] == ["object:mug"]
    assert manifest.quarantined == ()
