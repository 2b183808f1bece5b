"""The store's promises: incremental, crash-safe, the same bytes every time."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import storage.store
from storage.digests import digest_tree
from storage.errors import InputError
from storage.recipe import Recipe
from storage.store import Store

RECIPE = Recipe("layers", 1, {"hands": "aa", "camera": "bb"}, {"size": 32, "crop": {"x0": 1.5}})


def arrays() -> dict[str, NDArray[Any]]:
    """Arrays of every layout: many chunks in a shard, several frames a chunk, one chunk, no frames at all."""
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (20, 13, 64, 64, 3), dtype=np.uint8)
    large[3:5] = 0  # empty chunks are not stored
    return {
        "large": large,
        "small_frames": rng.integers(0, 65536, (50, 40, 40), dtype=np.uint16),
        "joints": np.where(np.arange(7)[:, None] == 2, np.nan, rng.normal(size=(7, 3))).astype(np.float32),
        "matrix": rng.normal(size=(4, 4)),
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files_of(store: Store) -> list[str]:
    return sorted(p.relative_to(store.root).as_posix() for p in store.root.rglob("*") if p.is_file())


def test_arrays_and_attributes_come_back(store: Store) -> None:
    store.write(RECIPE, arrays(), {"near_m": 0.25, "name": "é"})
    record = store.open("layers", RECIPE.key)
    for name, values in arrays().items():
        assert np.array_equal(record[name][...], values, equal_nan=values.dtype.kind == "f"), name
    assert record.attrs == {"near_m": 0.25, "name": "é"}
    assert np.array_equal(record["large"][4:19:7], arrays()["large"][4:19:7])


def test_record_tells_its_recipe(store: Store) -> None:
    store.write(RECIPE, {}, {})
    assert store.open("layers", RECIPE.key).recipe == RECIPE
    assert store.open("layers", RECIPE.key).recipe.key == RECIPE.key


def test_changes_between_recipes_are_named() -> None:
    new = Recipe("layers", 2, {"hands": "cc", "camera": "bb"}, {"size": 32, "crop": {"x0": 2.0, "y0": 1}})
    assert new.changes_from(RECIPE) == ["config.crop.x0", "config.crop.y0", "inputs.hands", "schema_version"]
    assert RECIPE.changes_from(RECIPE) == []


def test_frames_are_chunks_of_one_shard(store: Store) -> None:
    store.write(RECIPE, arrays(), {})
    large = store.open("layers", RECIPE.key)["large"]
    assert large.chunks == (1, 13, 64, 64, 3)
    assert large.shards == large.shape
    assert len([name for name in files_of(store) if "/large/c/" in name]) == 1


def test_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    def write(number: int) -> str:
        store = Store(tmp_path / str(number))
        store.write(RECIPE, arrays(), {"b": 1, "a": 2})
        return digest_tree(store.path("layers", RECIPE.key))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(write, range(8)))) == 1


def test_writing_again_does_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(RECIPE, arrays(), {})
    before = {name: (store.root / name).stat().st_mtime_ns for name in files_of(store)}
    monkeypatch.setattr(os, "rename", lambda *_: pytest.fail("a second write reached the disk"))
    store.write(RECIPE, {}, {})
    assert {name: (store.root / name).stat().st_mtime_ns for name in files_of(store)} == before


def test_failed_write_leaves_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(storage.store, "_sync_tree", fail)
        with pytest.raises(OSError, match="disk full"):
            store.write(RECIPE, arrays(), {})
    assert not store.has("layers", RECIPE.key)
    assert store.status() == {}
    assert files_of(store) == [".staging/lock"]


def test_killed_write_leaves_rubbish_that_is_cleared(store: Store) -> None:
    script = f"""
        import os, signal
        import numpy as np
        import storage.store
        from pathlib import Path
        from storage.recipe import Recipe
        storage.store._sync_tree = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
        store = storage.store.Store(Path({str(store.root)!r}))
        store.write(Recipe("layers", 1, {{}}, {{}}), {{"a": np.ones((4, 4))}}, {{}})
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(storage.store.__file__).parents[1])}
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.status() == {}
    assert len(files_of(store)) > 1
    assert store.clear_staging() == 1
    assert files_of(store) == [".staging/lock"]


def test_resumed_store_equals_an_uninterrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = [Recipe("layers", 1, {"part": str(k)}, {}) for k in range(3)]
    whole, resumed = Store(tmp_path / "whole"), Store(tmp_path / "resumed")
    for recipe in recipes:
        whole.write(recipe, arrays(), {})
    resumed.write(recipes[0], arrays(), {})

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resumed.write(recipes[1], arrays(), {})
    for recipe in recipes:
        resumed.write(recipe, arrays(), {})
    assert digest_tree(resumed.root) == digest_tree(whole.root)


def test_writer_that_comes_second_drops_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = os.rename

    def be_overtaken(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        store.write(RECIPE, arrays(), {})
        rename(source, target)

    monkeypatch.setattr(os, "rename", be_overtaken)
    store.write(RECIPE, arrays(), {})
    assert store.keys("layers") == [RECIPE.key]
    assert store.verify() == []
    assert not [path for path in (store.root / ".staging").iterdir() if path.is_dir()]


def test_many_writers_of_one_key_make_one_record(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: store.write(RECIPE, arrays(), {}), range(8)))
    assert store.keys("layers") == [RECIPE.key]
    assert store.verify() == []


def test_clearing_leaves_live_writers_alone(store: Store) -> None:
    with store._staging() as folder:
        assert store.clear_staging() == 0
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "digest", "attributes"])
def test_verify_finds_damage(store: Store, damage: str) -> None:
    store.write(RECIPE, arrays(), {"near_m": 0.25})
    store.write(Recipe("object", 1, {}, {}), arrays(), {})
    assert store.verify() == []
    folder = store.path("layers", RECIPE.key)
    shard = next((folder / "large" / "c").rglob("0"))
    while shard.is_dir():
        shard = shard / "0"
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
    (problem,) = store.verify()
    assert (problem.kind, problem.key) == ("layers", RECIPE.key)


def test_status_counts_records_and_bytes(store: Store) -> None:
    assert store.status() == {}
    store.write(RECIPE, arrays(), {})
    store.write(Recipe("object", 1, {}, {}), {}, {})
    status = store.status()
    assert {kind: usage.records for kind, usage in status.items()} == {"layers": 1, "object": 1}
    on_disk = sum((store.root / name).stat().st_size for name in files_of(store))
    assert sum(usage.bytes for usage in status.values()) == on_disk


def test_gc_drops_what_is_not_kept(store: Store) -> None:
    recipes = [Recipe("layers", 1, {"part": str(k)}, {}) for k in range(3)]
    for recipe in recipes:
        store.write(recipe, {}, {})
    keep = {("layers", recipes[0].key)}
    assert store.gc(keep, dry_run=True)["layers"].records == 2
    assert len(store.keys("layers")) == 3
    assert store.gc(keep)["layers"].records == 2
    assert store.keys("layers") == [recipes[0].key]
    assert store.gc(keep) == {}


def test_missing_record_is_named(store: Store) -> None:
    with pytest.raises(InputError, match="no layers record abcdef"):
        store.open("layers", "abcdef")
