"""What every place that can hold a store promises (`storage.backend`): the same facts for each."""

import pickle
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import storage.bucket
import storage.store
from storage.backend import DIGEST_FILE
from storage.errors import InputError, StoreError
from storage.manifest import Manifest
from storage.recipe import Recipe
from storage.store import Store, record_name
from storage.upkeep import drop_damaged, gc, status, verify
from tests.storage.test_manifest import ROW

RECIPE = Recipe("layers", 1, {"hands": "aa", "camera": "bb"}, {"size": 32})
NAME = record_name("layers", RECIPE.key)
OTHERS = [Recipe("layers", 1, {"part": str(k)}, {}) for k in range(3)]


def arrays(seed: int = 0) -> dict[str, NDArray[Any]]:
    """Arrays of every layout: many chunks in a shard, several frames a chunk, one chunk, no frames at all."""
    rng = np.random.default_rng(seed)
    large = rng.integers(0, 256, (8, 13, 64, 64, 3), dtype=np.uint8)
    large[3:5] = 0  # empty chunks are not stored
    return {
        "large": large,
        "small_frames": rng.integers(0, 65536, (50, 40, 40), dtype=np.uint16),
        "joints": np.where(np.arange(7)[:, None] == 2, np.nan, rng.normal(size=(7, 3))).astype(np.float32),
        "matrix": rng.normal(size=(4, 4)),
    }


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "store")
    url: str = request.getfixturevalue("bucket")
    return url


@pytest.fixture
def store(place: str) -> Store:
    return Store(place)


def run(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    root = Path(storage.store.__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script), *arguments], cwd=root)


def test_a_record_comes_back_whole_and_in_parts(store: Store) -> None:
    assert not store.has("layers", RECIPE.key)
    store.write(RECIPE, arrays(), {"near_m": 0.25, "name": "é"})
    record = store.open("layers", RECIPE.key)
    assert (record.recipe, record.attrs) == (RECIPE, {"near_m": 0.25, "name": "é"})
    for name, values in arrays().items():
        assert np.array_equal(record.read(name), values, equal_nan=values.dtype.kind == "f"), name
    assert np.array_equal(record.read("large", slice(1, 7, 2)), arrays()["large"][1:7:2])


def test_a_store_is_sent_to_another_process_by_its_address(store: Store) -> None:
    store.write(RECIPE, arrays(), {})
    sent = pickle.dumps(store)
    assert b"secret" not in sent  # the credentials of `bucket`
    assert pickle.loads(sent).records() == store.records()


def test_every_place_holds_the_same_bytes(store: Store, tmp_path: Path) -> None:
    beside = Store(tmp_path / "beside")
    for each in (store, beside):
        each.write(RECIPE, arrays(), {})
    assert dict(store.backend.contents(NAME)) == dict(beside.backend.contents(NAME))
    files = dict(beside.backend.contents(NAME))
    assert {DIGEST_FILE, "zarr.json", "large/c/0/0/0/0/0"} <= set(files)
    assert beside.backend.sizes("layers") == {RECIPE.key: sum(map(len, files.values()))}
    recorded = status(store)["layers"].bytes - status(beside)["layers"].bytes
    assert 0 <= recorded < 200  # a bucket's one object that makes the record


def test_a_writer_killed_before_the_last_step_leaves_no_record(
    store: Store, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
        import os, signal, sys
        import numpy as np
        from storage.recipe import Recipe
        from storage.s3 import Objects
        from storage.store import Store

        store = Store(sys.argv[1])
        os.rename = Objects.put_if = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        store.write(Recipe("layers", 1, {"part": "0"}, {}), {"a": np.ones((4, 4))}, {})
    """
    assert run(script, place).wait() == -signal.SIGKILL
    assert (store.records(), status(store), verify(store)) == ([], {}, [])
    monkeypatch.setattr(storage.bucket, "RUBBISH_S", -60)  # what lies in a bucket is rubbish at once
    store.write(RECIPE, arrays(), {})
    assert store.clear_staging() == 1
    assert store.clear_staging() == 0
    assert store.records() == [("layers", RECIPE.key)]
    assert verify(store) == []


def test_many_writers_of_one_key_make_one_record(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.write(RECIPE, arrays(), {}), range(8)))
    assert store.records() == [("layers", RECIPE.key)]
    assert verify(store) == []


def test_of_two_writers_whose_bytes_differ_one_wins_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.bucket, "RUBBISH_S", -60)
    monkeypatch.setattr(Store, "has", lambda *_: False)  # neither saw the other's
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: store.write(RECIPE, arrays(seed), {}), range(8)))
    assert verify(store) == []
    read = store.open("layers", RECIPE.key).read("large")
    assert any(np.array_equal(read, arrays(seed)["large"]) for seed in range(8))
    assert store.clear_staging() == 0  # the others took theirs back


def test_damage_is_found_dropped_and_made_again(store: Store) -> None:
    for recipe in (RECIPE, *OTHERS):
        store.write(recipe, arrays(), {})
    shard = next(file for file in store.backend.files("layers") if RECIPE.key in file and "/large/c/" in file)
    data = store.backend.read(shard)
    assert data is not None
    store.backend.put(shard, data[:-1])
    problems = verify(store)
    assert [problem.key for problem in problems] == [RECIPE.key]
    with pytest.raises(StoreError, match=r"this layers record is damaged .*verify --drop"):
        store.open("layers", RECIPE.key).read("large")
    assert drop_damaged(store, problems) == 1
    assert not store.has("layers", RECIPE.key)
    store.write(RECIPE, arrays(), {})
    assert verify(store) == []


def test_two_processes_that_change_a_dataset_at_once_lose_nothing(store: Store, place: str) -> None:
    script = """
        import sys
        from dataclasses import replace
        from storage.manifest import update
        from storage.store import Store
        from tests.storage.test_manifest import ROW

        name, store = sys.argv[1], Store(sys.argv[2])
        for number in range(12):
            row = replace(ROW, id=f"{name}{number}/front", session=f"{name}{number}")
            update(store, "demo", lambda manifest: manifest.updated([row], [], sessions=[row.session]))
    """
    writers = [run(script, name, place) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    sessions = {row.session for row in Manifest.read(store, "demo").rows}
    assert sessions == {f"{name}{number}" for name in "ab" for number in range(12)}


def test_versions_stay_until_gc(store: Store) -> None:
    Manifest("demo", (ROW,)).write(store)
    first = Manifest.read(store, "demo").version
    Manifest("demo").write(store)
    assert Manifest.read(store, "demo").rows == ()
    assert Manifest.read(store, f"demo@{first}").rows == (ROW,)
    with pytest.raises(InputError, match="no dataset 'demo@0'"):
        Manifest.read(store, "demo@0")
    gc(store)
    newest = Manifest.read(store, "demo").version
    assert store.backend.files("datasets") == sorted(["datasets/demo.jsonl", f"datasets/demo/{newest}.jsonl"])


def test_gc_drops_what_no_dataset_needs_and_nothing_during_a_build(store: Store) -> None:
    for recipe in OTHERS:
        store.write(recipe, arrays(), {})
    row = replace(ROW, object_keys=(), provenance=(), layers_key=OTHERS[0].key, frames_key=None)
    Manifest("demo", (row,)).write(store)
    store.backend.put(".seen/ab/x.json", b"{}")
    with store.in_use(), store.in_use():
        with pytest.raises(StoreError, match="a build is at work"):
            gc(store)
        assert len(store.records()) == 3
    assert gc(store)["layers"].records == 2
    assert store.records() == [("layers", OTHERS[0].key)]
    assert store.backend.read(".seen/ab/x.json") is None
    assert verify(store) == []


def test_what_is_no_record_is_neither_counted_nor_cleared(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = (
        "photos/2024/spring/tree.jpg",
        "photos/ab/abroad/sea.jpg",
        f"layers/{RECIPE.key[:2]}/{RECIPE.key[:2]}-notes/read.me",
        f"backup/00/{RECIPE.key}/zarr.json",
        "notes/read.me",
    )
    for name in others:
        store.backend.put(name, b"somebody else's")
    monkeypatch.setattr(storage.bucket, "RUBBISH_S", -60)  # what lies in a bucket is old at once
    assert (store.records(), status(store), verify(store)) == ([], {}, [])
    assert gc(store) == {}
    assert all(store.backend.read(name) for name in others)


def test_a_missing_record_is_named(store: Store) -> None:
    with pytest.raises(StoreError, match="no layers record abcdef"):
        store.open("layers", "abcdef")


def test_a_write_that_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(storage.store, "write_group", fail)
        with pytest.raises(StoreError, match=r"cannot write layers record \w+: disk full .*record stays"):
            store.write(RECIPE, arrays(), {})
    assert store.records() == []
