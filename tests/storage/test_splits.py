"""Splits: nothing leaks, whatever copies are called; the same clips are split alike, and each says why."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from storage.likeness import TOLERANCES, Signature
from storage.manifest import ClipRow, Manifest
from storage.splits import TEST_FRACTION, ObjectIdentity, SplitBasis, draw, with_splits

HALF = 0.5


def identity(number: int, copy: int = 0) -> ObjectIdentity:
    """An object; copies have other bytes and nearly the same shape."""
    values = np.random.default_rng(number).random(6) + copy * 0.4 * TOLERANCES["shape"]
    return ObjectIdentity(f"{number:04d}-{copy}", Signature("shape", tuple(values.tolist())))


def row(
    name: str, number: int, thing: ObjectIdentity | None, copy: int = 0, camera: str = "front"
) -> ClipRow:
    """A camera of the session `name`, which is a take of its number, or nearly that."""
    values = np.random.default_rng(1000 + number).random(46) + copy * 0.4 * TOLERANCES["hands"]
    takes = (Signature("hands", tuple(values.tolist())),)
    basis = SplitBasis(HALF, takes=takes, objects=(thing,) if thing else ())
    return ClipRow(
        f"{name}/{camera}", name, camera, "train", "hoi", (), None, None, True, True, 9, 24.0, basis=basis
    )


@pytest.fixture
def rows() -> list[ClipRow]:
    """60 takes of 25 objects, a third of them with a near copy under another name and of another file."""
    made = []
    for number in range(60):
        made += [row(f"session {number}", number, identity(number % 25), camera=c) for c in ("front", "side")]
        if number % 3 == 0:
            made.append(row(f"copy of {number}", number, identity(number % 25, copy=1), copy=1))
    return made


def near(first: Signature, second: Signature) -> bool:
    return bool(np.abs(np.subtract(first.values, second.values)).max() <= TOLERANCES[first.kind])


def test_no_sequence_object_or_near_duplicate_leaks(rows: list[ClipRow]) -> None:
    done = with_splits(rows)
    assert Counter(row.split for row in done).keys() == {"train", "test"}
    assert Counter(row.object_split for row in done).keys() == {"train", "test"}
    for one, other in combinations(done, 2):
        assert one.basis is not None
        assert other.basis is not None
        if one.session == other.session or near(one.basis.takes[0], other.basis.takes[0]):
            assert one.split == other.split, (one.id, other.id)
        if near(one.basis.objects[0].shape, other.basis.objects[0].shape):
            assert one.object_split == other.object_split, (one.id, other.id)


def test_order_and_history_do_not_matter(rows: list[ClipRow]) -> None:
    rows = [replace(row, participant=f"person of {row.session}") for row in rows]
    together = Manifest("x").updated(rows, [], sessions=[])
    backwards = Manifest("x").updated(rows[::-1], [], sessions=[])
    assert backwards.version == together.version
    one_by_one = Manifest("x")
    for row in rows:
        one_by_one = one_by_one.updated([row], [], sessions=[])
    assert one_by_one.version == together.version
    copies = {row.session for row in rows if row.session.startswith("copy")}
    without = Manifest("x").updated([row for row in rows if row.session not in copies], [], sessions=[])
    assert together.updated([], [], sessions=copies).version == without.version


def test_a_near_duplicate_of_a_take_that_its_source_holds_out_is_held_out(rows: list[ClipRow]) -> None:
    fixed = [
        replace(r, basis=replace(r.basis, fixed="test")) if r.session == "copy of 3" else r for r in rows
    ]
    done = {row.id: row for row in with_splits(fixed)}
    assert done["copy of 3/front"].why["sequence"] == "fixed by its source"
    for camera in ("front", "side"):
        assert done[f"session 3/{camera}"].split == "test"
        told = done[f"session 3/{camera}"].why["sequence"]
        assert told == "near-duplicate of copy of 3, whose source fixes it"


def test_a_near_duplicate_of_takes_on_several_sides_is_on_the_one_that_is_held_out_most() -> None:
    takes = {name: row(name, 3, None, copy=copy) for copy, name in enumerate("abc")}
    for sides, expected in (
        ({"a": "train", "b": "val"}, "val"),
        ({"a": "val", "b": "test"}, "test"),
        ({"a": "train"}, "train"),
    ):
        rows = [
            replace(take, basis=replace(take.basis, fixed=sides.get(name, "")))
            for name, take in takes.items()
        ]
        assert {r.session: r.split for r in with_splits(rows)}["c"] == expected


def test_sources_that_put_near_duplicates_on_two_sides_are_obeyed_and_told_of(rows: list[ClipRow]) -> None:
    splits = {"copy of 3": "test", "session 3": "train"}
    fixed = [
        replace(row, basis=replace(row.basis, fixed=splits[row.session]))
        for row in rows
        if row.session in splits
    ]
    done = {row.id: row for row in with_splits(fixed)}
    assert done["session 3/side"].split == "train"
    told = "fixed by its source; near-duplicate of copy of 3, which is in test"
    assert done["session 3/side"].why["sequence"] == told


def test_each_split_says_why(rows: list[ClipRow]) -> None:
    done = {row.id: row for row in with_splits(rows)}
    assert done["session 1/front"].why == {
        "sequence": "drawn by its name",
        "object": "drawn for the shape 0001-0",
        "participant": "not known",
    }
    assert done["session 3/front"].why["sequence"] == "drawn with its near-duplicate copy of 3"


def test_a_clip_with_a_test_object_is_a_test_clip_whatever_its_session() -> None:
    drawn = {number: draw(identity(number).geometry, HALF) for number in range(20)}
    train, test = (next(n for n, split in drawn.items() if split == wanted) for wanted in ("train", "test"))
    alone, both = (
        [
            replace(r, basis=replace(r.basis, objects=tuple(map(identity, numbers))))
            for r in (row(f"s{k}", k, None) for k in range(8))
        ]
        for numbers in ([train], [train, test])
    )
    assert {row.object_split for row in with_splits(alone)} == {"train"}
    assert {row.object_split for row in with_splits(both)} == {"test"}


def test_participants_are_split_where_they_are_known() -> None:
    people = [replace(row(f"s{k}", k, None), participant=f"person {k % 6}") for k in range(24)]
    done = with_splits([*people, row("nobody", 99, None)])
    sides = {
        person: {r.participant_split for r in done if r.participant == person}
        for person in {r.participant for r in people}
    }
    assert all(len(side) == 1 for side in sides.values())
    assert set().union(*sides.values()) == {"train", "test"}
    assert done[-1].participant_split == ""


# Of each take its number, which copy of it this is (first and last are alike through others), and whose.
TAKES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from(["", *"abcdef"])), max_size=16
)


def sessions_of(takes: list[tuple[int, int, str]]) -> list[ClipRow]:
    """A session of each take."""
    return [
        replace(row(f"s{k}", number, None, copy), participant=participant)
        for k, (number, copy, participant) in enumerate(takes)
    ]


@given(TAKES)
def test_no_near_duplicate_leaks_between_participants(takes: list[tuple[int, int, str]]) -> None:
    done = with_splits(sessions_of(takes))
    for one, other in combinations([row for row in done if row.participant], 2):
        if one.participant == other.participant or near(one.basis.takes[0], other.basis.takes[0]):
            assert one.participant_split == other.participant_split, (one.participant, other.participant)


@given(TAKES)
def test_participants_with_near_duplicate_takes_are_drawn_by_the_first_of_their_names(
    takes: list[tuple[int, int, str]],
) -> None:
    done = with_splits(sessions_of(takes))
    linked = [
        [near(a.basis.takes[0], b.basis.takes[0]) or "" != a.participant == b.participant for b in done]
        for a in done
    ]
    labels = connected_components(np.array(linked))[1] if done else []
    for label, clip in zip(labels, done, strict=True):
        names = {other.participant for other, its in zip(done, labels, strict=True) if its == label} - {""}
        first = min(names, default="")
        told = {first: f"drawn for {first}", "": "not known"}
        why = told.get(clip.participant, f"drawn with {first}, by near-duplicate takes")
        split = draw(f"participant {first}", HALF) if clip.participant else ""
        assert (clip.participant_split, clip.why["participant"]) == (split, why)


@given(st.lists(st.sampled_from("abcdef"), max_size=12), st.sampled_from(["hoi", "object"]))
def test_participants_without_near_duplicate_takes_are_drawn_by_name_whatever_object_they_show(
    participants: list[str], source: str
) -> None:
    clips = [
        replace(row(f"s{k}", k, identity(7, copy=k % 2)), participant=participant, source=source)
        for k, participant in enumerate(participants)
    ]
    for clip in with_splits(clips):
        assert clip.participant_split == draw(f"participant {clip.participant}", HALF)
        assert clip.why["participant"] == f"drawn for {clip.participant}"


def test_a_clip_of_an_object_alone_is_split_with_what_has_its_shape() -> None:
    clips = [
        replace(r, source="object", basis=replace(r.basis, takes=()))
        for r in (row(f"object:{k}", k, identity(7, copy=k % 2)) for k in range(12))
    ]
    assert len({r.split for r in with_splits(clips)}) == 1


def test_what_came_with_different_fractions_is_still_on_one_side() -> None:
    clips = [
        replace(each, source=source, basis=replace(each.basis, test_fraction=fraction))
        for k in range(40)
        for source, fraction in (("object", 0.0), ("hoi", HALF))
        for each in [row(f"{source} {k}", 100 * k + len(source), identity(k))]
    ]
    done = with_splits(clips)
    sides = {k: {r.object_split for r in done if r.session.endswith(f" {k}")} for k in range(40)}
    assert all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {"train", "test"}


def test_participants_with_near_duplicate_takes_have_the_largest_fraction_of_all() -> None:
    clips = [
        replace(each, participant=name, basis=replace(each.basis, test_fraction=fraction))
        for k in range(20)
        for copy, (name, fraction) in enumerate([(f"{k} first", 0.0), (f"{k} second", HALF)])
        for each in [row(f"session of {name}", k, None, copy)]
    ]
    done = with_splits(clips)
    sides = [{r.participant_split for r in done if r.participant.startswith(f"{k} ")} for k in range(20)]
    assert sides == [{draw(f"participant {k} first", HALF)} for k in range(20)]
    assert set.union(*sides) == {"train", "test"}


def test_three_in_a_hundred_are_held_out_by_default() -> None:
    assert TEST_FRACTION == SplitBasis().test_fraction == 0.03
    splits = [draw(f"session {k}", TEST_FRACTION) for k in range(4000)]
    assert splits == [draw(f"session {k}", TEST_FRACTION) for k in range(4000)]
    assert abs(splits.count("test") / 4000 - 0.03) < 0.01


def test_rows_without_a_basis_stay_as_they_are(rows: list[ClipRow]) -> None:
    plain = replace(rows[0], basis=None, split="val", object_split="test")
    assert with_splits([plain, rows[2]])[0] == plain
