"""A store in a folder: incremental, crash-safe, the same bytes every time."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import storage.folder
import storage.store
from storage.digests import digest_tree
from storage.errors import StoreError
from storage.recipe import Recipe
from storage.store import Store, record_name
from storage.upkeep import status, verify
from tests.full_disk import files_up_to
from tests.storage.test_places import arrays

RECIPE = Recipe("layers", 1, {"hands": "aa", "camera": "bb"}, {"size": 32, "crop": {"x0": 1.5}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files_of(store: Store) -> list[str]:
    return sorted(p.relative_to(store.root).as_posix() for p in store.root.rglob("*") if p.is_file())


def test_record_tells_its_recipe(store: Store) -> None:
    store.write(RECIPE, {}, {})
    assert store.open("layers", RECIPE.key).recipe == RECIPE
    assert store.open("layers", RECIPE.key).recipe.key == RECIPE.key


@pytest.mark.parametrize("asked_each", [0, 10])
def test_missing_records_are_found_one_by_one_or_in_a_list(
    store: Store, monkeypatch: pytest.MonkeyPatch, asked_each: int
) -> None:
    monkeypatch.setattr("storage.store.ASKED_EACH", asked_each)
    store.write(RECIPE, {}, {})
    there, lacking = ("layers", RECIPE.key), [("layers", "0" * 64), ("frames", RECIPE.key)]
    assert store.missing([there, *lacking]) == set(lacking)
    assert store.missing([]) == set()


def test_changes_between_recipes_are_named() -> None:
    new = Recipe("layers", 2, {"hands": "cc", "camera": "bb"}, {"size": 32, "crop": {"x0": 2.0, "y0": 1}})
    assert [str(change) for change in new.changes_from(RECIPE)] == [
        "config.crop.x0: 1.5 → 2.0",
        "config.crop.y0: absent → 1",
        "inputs.hands: aa → cc",
        "schema_version: 1 → 2",
    ]
    assert RECIPE.changes_from(RECIPE) == []
    digests = [Recipe("layers", 1, {"hands": letter * 64}, {}) for letter in "ab"]
    assert [str(change) for change in digests[1].changes_from(digests[0])] == [
        "inputs.hands: aaaaaaaa → bbbbbbbb"
    ]


@pytest.mark.parametrize(
    ("frame", "frames"),
    [((2, 4), 4096), ((40, 40), 21), ((64, 64, 3), 4), ((512, 512, 4), 4), ((512, 513, 4), 1)],
)
def test_chunks_are_of_four_frames_or_of_32_kib_and_one_shard_holds_them(
    store: Store, frame: tuple[int, ...], frames: int
) -> None:
    values = np.ones((frames + 1, *frame), np.uint8)
    store.write(RECIPE, {"a": values}, {})
    array = store.open("layers", RECIPE.key)["a"]
    assert array.chunks == (frames, *frame)
    assert array.shards == (2 * frames, *frame)
    assert np.array_equal(array[...], values)
    assert len([name for name in files_of(store) if "/a/c/" in name]) == 1


def test_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    def write(number: int) -> str:
        store = Store(tmp_path / str(number))
        store.write(RECIPE, arrays(), {"b": 1, "a": 2})
        return digest_tree(store.root / record_name("layers", RECIPE.key))

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
        patch.setattr(storage.folder, "sync_tree", fail)
        wanted = r"cannot write layers record \w+: disk full .*finished record stays"
        with pytest.raises(StoreError, match=wanted):
            store.write(RECIPE, arrays(), {})
    assert not store.has("layers", RECIPE.key)
    assert status(store) == {}
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
    assert verify(store) == []
    assert not [path for path in (store.root / ".staging").iterdir() if path.is_dir()]


def test_clearing_leaves_live_writers_alone(store: Store) -> None:
    with store.backend.writing("a record") as folder:
        assert store.clear_staging() == 0
        assert folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize("file", ["zarr.json", "large/zarr.json", "large/c/0/0/0/0/0"])
def test_reading_a_truncated_record_names_it_and_what_to_do(store: Store, file: str) -> None:
    store.write(RECIPE, arrays(), {})
    damaged = store.root / record_name("layers", RECIPE.key) / file
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    with pytest.raises(StoreError, match=rf"{RECIPE.key}: this layers record is damaged .*verify --drop"):
        store.open("layers", RECIPE.key).read("large", slice(3, 9))


def test_a_file_system_that_takes_no_more_leaves_whole_records_and_says_so(store: Store) -> None:
    store.write(Recipe("layers", 1, {}, {}), {}, {})
    told = f"cannot write layers record {RECIPE.key[:12]}: File too large"
    with files_up_to(1 << 17), pytest.raises(StoreError, match=told):
        store.write(RECIPE, arrays(), {})
    assert verify(store) == []
    assert len(store.records()) == 1
    store.write(RECIPE, arrays(), {})
    assert verify(store) == []
    assert len(store.records()) == 2


def test_a_folder_that_cannot_be_written_is_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(StoreError, match="file/store: cannot write anything: Not a directory"),
        Store(tmp_path / "file" / "store").in_use(),
    ):
        pytest.fail("a store that cannot be written was taken into use")


def test_a_build_clears_what_killed_writers_left(store: Store) -> None:
    rubbish = store.root / ".staging" / "0123" / "record"
    rubbish.mkdir(parents=True)
    with store.in_use():
        assert not rubbish.exists()
        with store.in_use():  # two builds at once
            store.write(RECIPE, {}, {})
    assert store.has("layers", RECIPE.key)
