"""Manifests: versions, splits, and what is replaced."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storage.errors import InputError
from storage.manifest import (
    SCHEMA_VERSION,
    ClipRow,
    Manifest,
    Quarantined,
    name_and_version,
    read_or_new,
    update,
)
from storage.store import Store

ROW = ClipRow(
    id="take/front",
    session="take",
    camera="front",
    split="train",
    source="hoi",
    object_keys=("aa", "bb"),
    layers_key="cc",
    frames_key="dd",
    has_hands=True,
    has_object=True,
    num_frames=6,
    fps=30.0,
    provenance=({"name": "mug", "licence": "CC0"}, {"name": "line\u2028end"}),
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_manifest_reads_back_equal_and_sorted(store: Store) -> None:
    rows = (replace(ROW, id="z/é"), ROW)
    manifest = Manifest("demo", rows, (Quarantined("bad.glb", "truncated", "bad.glb: 3 bytes"),))
    manifest.write(store)
    read = Manifest.read(store, "demo")
    assert read == replace(manifest, rows=rows[::-1])
    path = store.root / "datasets" / "demo.jsonl"
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    read.write(store)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["demo", "demo.jsonl"]


def test_the_version_is_that_of_the_clips(store: Store) -> None:
    manifest = Manifest("demo", (ROW,))
    assert replace(manifest, quarantined=(Quarantined("a", "b", "c"),)).version == manifest.version
    assert replace(manifest, rows=(replace(ROW, split="test"),)).version != manifest.version
    manifest.write(store)
    header = json.loads((store.root / "datasets" / "demo.jsonl").read_text().split("\n")[0])
    assert header == {"dataset": "demo", "version": manifest.version, "schema_version": SCHEMA_VERSION}


def test_update_replaces_its_sessions_and_folders_alone() -> None:
    rows = tuple(replace(ROW, id=f"{s}/{c}", session=s, camera=c) for s in ("a", "b/c") for c in "xy")
    entries = (
        Quarantined("a/z", "video", "", session="a"),
        Quarantined("old name", "config", "", session="old name", path="/captures/a"),
        Quarantined("b/c", "truncated", "", session="b/c"),
    )
    new = replace(ROW, id="a/w", session="a", camera="w")
    again = Quarantined("a", "config", "", session="a")
    updated = Manifest("demo", rows, entries).updated([new], [again], sessions=["a"], paths=["/captures/a"])
    assert [row.id for row in updated.rows] == ["b/c/x", "b/c/y", "a/w"]
    assert [entry.input for entry in updated.quarantined] == ["b/c", "a"]


def test_a_change_that_fails_leaves_the_dataset(store: Store) -> None:
    Manifest("demo", (ROW,)).write(store)

    def fail(_: Manifest) -> Manifest:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(store, "demo", fail)
    update(store, "demo", lambda manifest: manifest)
    assert Manifest.read(store, "demo").rows == (ROW,)


def test_unknown_dataset_names_those_there_are(store: Store) -> None:
    with pytest.raises(InputError, match=r"no dataset 'x' \(there are: none\)"):
        Manifest.read(store, "x")
    Manifest("demo").write(store)
    with pytest.raises(InputError, match=r"no dataset 'x' \(there are: demo\)"):
        Manifest.read(store, "x")
    assert read_or_new(store, "x") == Manifest("x")
    for name in ("../x", "", "@1", "x@", ".x"):
        with pytest.raises(InputError, match="plain name"):
            Manifest(name).write(store)


@pytest.mark.parametrize(
    ("name", "parts"), [("a", ("a", None)), ("a@b", ("a", "b")), ("a@", ("a", "")), ("a@b@c", ("a", "b@c"))]
)
def test_a_dataset_s_name_ends_at_the_first_at_sign(name: str, parts: tuple[str, str | None]) -> None:
    assert name_and_version(name) == parts


@pytest.mark.parametrize("damage", [lambda clips: clips[:-1], lambda clips: [clips[0], *clips]])
def test_a_manifest_that_lost_clips_at_the_end_of_a_line_is_not_taken_for_a_smaller_one(
    store: Store, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    manifest = Manifest("demo", (ROW, replace(ROW, id="take/side", camera="side")))
    manifest.write(store)
    path = store.root / "datasets" / "demo.jsonl"
    head, *clips = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([head, *damage(clips)]))
    copy = f"datasets/demo/{manifest.version}.jsonl"
    with pytest.raises(InputError, match=rf"demo\.jsonl: version: found clips of \w+, .* \(copy: {copy}\)"):
        Manifest.read(store, "demo")
    with pytest.raises(InputError, match="found clips of"):
        update(store, "demo", lambda found: found)
    assert Manifest.read(store, f"demo@{manifest.version}").rows == manifest.rows


@pytest.mark.parametrize(
    "text", ["", "{", '{"dataset": "x", "schema_version": 99}\n', '{"schema_version": 2}\n{"clip": {}}\n']
)
def test_broken_manifest_is_named(store: Store, text: str) -> None:
    (store.root / "datasets").mkdir()
    (store.root / "datasets" / "x.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"x\.jsonl"):
        Manifest.read(store, "x")
