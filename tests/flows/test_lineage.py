"""Which of a dataset's clips a model has seen while it was trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.lineage import TrainingRun, clips_trained_on, read_runs
from storage.errors import InputError
from storage.likeness import Signature
from storage.manifest import ClipRow, Manifest, drop_old_versions
from storage.splits import ObjectIdentity, SplitBasis
from storage.store import Store

TRAINED = ClipRow(
    id="pour/front", session="pour", camera="front", split="train", source="hoi", object_keys=("mug",),
    layers_key="l1", frames_key="f1", has_hands=True, has_object=True, num_frames=4, fps=24.0,
    participant="p",
)  # fmt: skip
TEST = replace(TRAINED, id="wipe/front", session="wipe", split="test", frames_key="f2", object_keys=("cup",))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    Manifest("mine", (TRAINED, TEST)).write(store)
    return store


def stage(**settings: Any) -> dict[str, TrainingRun]:
    """One run on the dataset's split for training."""
    version, shares = settings.pop("version", None), settings.pop("shares", None)
    settings = {
        "dataset": "mine",
        "split": "train",
        "init_from": None,
        "batch": {"shares": shares},
    } | settings
    return {"image": TrainingRun([], "", settings, version)}


@pytest.mark.parametrize(
    ("row", "dataset", "split", "is_seen"),
    [
        (TRAINED, "mine", "train", True),
        (TEST, "mine", "test", False),
        (replace(TEST, session="pour"), "mine", "test", True),  # another camera of what was trained on
        (replace(TEST, session="pour"), "other", "test", False),  # by chance of that name
        (replace(TEST, frames_key="f1"), "other", "test", True),  # the very pictures
        (replace(TEST, object_keys=("mug",)), "mine", "test", False),  # what a test by sequence allows
        (replace(TEST, object_keys=("mug",)), "mine", "object:test", True),
        (TEST, "mine", "participant:test", True),
        (replace(TEST, participant="q"), "mine", "participant:test", False),
    ],
)
def test_what_was_trained_on_is_named(
    store: Store, row: ClipRow, dataset: str, split: str, is_seen: bool
) -> None:
    notes = clips_trained_on([row], dataset, split, stage(), store)
    expected = {"clips trained on": f"1 of 1 are not held out: ['{row.id}']"} if is_seen else {}
    assert notes == expected


def shape(*values: float) -> Signature:
    return Signature("shape", values)


MUG = ObjectIdentity("mug", shape(0.5, 0.4))
POURED = Signature("hands", (0.1, 0.9))
BASED = replace(TRAINED, basis=SplitBasis(takes=(POURED,), objects=(MUG,)))


@pytest.mark.parametrize(
    ("basis", "split", "is_seen"),
    [
        (SplitBasis(objects=(MUG,)), "object:test", True),  # its record here has another key
        (SplitBasis(objects=(ObjectIdentity("copy", shape(0.501, 0.4)),)), "object:test", True),
        (SplitBasis(objects=(ObjectIdentity("cup", shape(0.6, 0.4)),)), "object:test", False),
        (SplitBasis(objects=(MUG,)), "test", False),
        (SplitBasis(takes=(POURED,)), "test", True),
        (SplitBasis(takes=(POURED,)), "object:test", False),  # the same motion with another object
        (SplitBasis(takes=(POURED,)), "participant:test", True),  # so that it is one person under two names
        (SplitBasis(takes=(Signature("hands", (0.1, 0.5)),)), "test", False),
    ],
)
def test_near_duplicates_of_other_datasets_are_not_held_out(
    store: Store, basis: SplitBasis, split: str, is_seen: bool
) -> None:
    Manifest("mine", (BASED,)).write(store)
    row = replace(TEST, session="pour", participant="q", basis=basis)
    notes = clips_trained_on([row], "other", split, stage(), store)
    assert notes == ({"clips trained on": f"1 of 1 are not held out: ['{row.id}']"} if is_seen else {})


def test_an_earlier_stage_that_cannot_be_found_is_told(store: Store) -> None:
    notes = clips_trained_on([TEST], "mine", "test", stage(init_from="moved/image/model"), store)
    told = "no run at moved/image, where it began: what that was trained on is not known"
    assert notes == {"before the image stage": told}


def test_a_source_that_no_step_drew_from_was_not_trained_on(store: Store) -> None:
    assert not clips_trained_on([TRAINED], "mine", "train", stage(shares={"hoi": 0, "object": 1}), store)


def test_what_counts_is_the_dataset_as_it_was(store: Store) -> None:
    then = Manifest.read(store, "mine").version
    moved = replace(TRAINED, split="test")
    Manifest("mine", (moved, TEST)).write(store)
    assert not clips_trained_on([moved], "mine", "test", stage(), store)
    assert clips_trained_on([moved], "mine", "test", stage(version=then), store)
    drop_old_versions(store)
    assert not clips_trained_on([moved], "mine", "test", stage(version=then), store)


def test_a_dataset_that_is_gone_is_told(store: Store) -> None:
    notes = clips_trained_on([TEST], "mine", "test", stage(dataset="lost@abc"), store)
    assert notes == {"image stage": "its dataset lost is gone: what it was trained on is not known"}


def write_settings(run: Path, dataset: str, start: Path | None) -> None:
    (run / "losses.jsonl").write_text('{"loss": 1.0}\n')
    start_from = None if start is None else str(start)
    settings = {"stage": "image", "dataset": dataset, "split": "train", "batch": {}, "init_from": start_from}
    (run / "config.yaml").write_text(yaml.safe_dump(settings))


def test_a_run_that_was_moved_to_where_it_began_has_an_end(tmp_path: Path) -> None:
    write_settings(tmp_path, "mine", tmp_path / "model")
    assert list(read_runs(tmp_path / "model")) == ["image"]


@pytest.mark.parametrize("text", ["{}", "stage: image", "stage: ["])
def test_settings_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    write_settings(tmp_path, "mine", None)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=r"config\.yaml: (found no batch, dataset|not YAML)"):
        read_runs(tmp_path / "model")


def test_two_runs_of_one_stage_are_both_there(tmp_path: Path) -> None:
    for name, start in (("first", None), ("second", tmp_path / "first" / "model")):
        (tmp_path / name).mkdir()
        write_settings(tmp_path / name, f"{name}@v", start)
    runs = read_runs(tmp_path / "second" / "model")
    assert {name: (run.dataset, run.version) for name, run in runs.items()} == {
        "earlier image": ("first", "v"),
        "image": ("second", "v"),
    }
