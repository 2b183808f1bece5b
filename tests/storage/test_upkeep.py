"""Looking after a store: damage and loss are found, what is needed stays, and nobody is disturbed."""

from pathlib import Path

import numpy as np
import pytest

from storage.errors import InputError, StoreError
from storage.manifest import ClipRow, Manifest, manifest_name
from storage.recipe import Recipe
from storage.store import Store, record_name
from storage.upkeep import (
    Problem,
    drop_damaged,
    gc,
    missing_records,
    referenced_records,
    status,
    verify,
)

RECIPES = [Recipe("layers", 1, {"part": str(k)}, {}) for k in range(3)]
VALUES = {"values": np.random.default_rng(0).integers(0, 256, (8, 64, 64), dtype=np.uint8)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    for recipe in RECIPES:
        store.write(recipe, VALUES, {"near_m": 0.25})
    return store


def row(layers_key: str) -> ClipRow:
    return ClipRow(
        id="take/front",
        session="take",
        camera="front",
        split="train",
        source="hoi",
        object_keys=(),
        layers_key=layers_key,
        frames_key=None,
        has_hands=True,
        has_object=False,
        num_frames=8,
        fps=30.0,
    )


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "digest", "attributes"])
def test_verify_finds_damage(store: Store, damage: str) -> None:
    assert verify(store) == []
    folder = store.root / record_name("layers", RECIPES[0].key)
    shard = folder / "values" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    elif damage == "truncate":
        shard.write_bytes(data[:-1])
    elif damage == "delete":
        shard.unlink()
    elif damage == "digest":
        (folder / "content.sha256").unlink()
    else:
        text = (folder / "zarr.json").read_text()
        (folder / "zarr.json").write_text(text.replace("0.25", "0.35"))
    (problem,) = verify(store)
    assert (problem.kind, problem.key) == ("layers", RECIPES[0].key)


def test_verify_reports_what_datasets_need_and_the_store_lacks(store: Store) -> None:
    Manifest("demo", (row(RECIPES[0].key),)).write(store)
    assert verify(store) == []
    Manifest("demo", (row("ab" * 32),)).write(store)
    assert verify(store) == missing_records(store)
    (problem,) = verify(store)
    assert (problem.kind, problem.key, problem.is_there) == ("layers", "ab" * 32, False)
    assert "'demo' needs it" in problem.reason


def test_verify_reports_a_dataset_that_cannot_be_read(store: Store) -> None:
    Manifest("whole", (row("ab" * 32),)).write(store)
    (store.root / manifest_name("torn")).write_text('{"dataset": "to')
    torn, lost = verify(store)
    assert (torn.kind, torn.key) == ("dataset", "torn")
    assert lost.key == "ab" * 32


def test_dropping_the_damaged_leaves_the_rest(store: Store) -> None:
    damaged = [Problem("layers", RECIPES[0].key, "damaged"), Problem("layers", "ab" * 32, "lost", False)]
    assert drop_damaged(store, damaged) == 1
    assert store.keys("layers") == sorted(recipe.key for recipe in RECIPES[1:])


def test_status_counts_records_and_bytes(store: Store, tmp_path: Path) -> None:
    assert status(Store(tmp_path / "nothing")) == {}
    store.write(Recipe("object", 1, {}, {}), {}, {})
    usages = status(store)
    assert {kind: usage.records for kind, usage in usages.items()} == {"layers": 3, "object": 1}
    on_disk = sum(path.stat().st_size for path in store.root.rglob("*") if path.is_file())
    assert sum(usage.bytes for usage in usages.values()) == on_disk


def test_gc_drops_what_no_dataset_needs_now(store: Store) -> None:
    Manifest("demo", (row(RECIPES[0].key),)).write(store)
    Manifest("demo", (row(RECIPES[1].key),)).write(store)
    newest = Manifest.read(store, "demo")
    assert gc(store, dry_run=True)["layers"].records == 2
    assert len(store.keys("layers")) == 3
    assert gc(store)["layers"].records == 2
    assert store.keys("layers") == [RECIPES[1].key]
    assert gc(store) == {}
    assert verify(store) == []
    versions = [path.stem for path in (store.root / "datasets" / "demo").iterdir()]
    assert versions == [newest.version]


def test_gc_drops_nothing_where_a_dataset_cannot_be_read(store: Store) -> None:
    Manifest("demo").write(store)
    (store.root / manifest_name("demo")).write_text("{")
    with pytest.raises(InputError, match=r"demo\.jsonl"):
        gc(store)
    assert len(store.keys("layers")) == 3


def test_gc_waits_for_no_build(store: Store) -> None:
    with store.in_use(), pytest.raises(StoreError, match="a build is at work"):
        gc(store)
    assert len(store.keys("layers")) == 3
    assert gc(store)["layers"].records == 3


def test_references_are_those_of_every_dataset(store: Store) -> None:
    Manifest("one", (row("aa"),)).write(store)
    Manifest("two", (row("bb"),)).write(store)
    assert referenced_records(store) == {("layers", "aa"), ("layers", "bb")}
