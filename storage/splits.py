"""Splits of a dataset by sequence, by unseen object and by unseen participant, near-duplicates on one side.

A split is a function of the dataset's clips alone: in whatever order they came, the same are split alike.
What is drawn is drawn for a group, by the first of its names: a session or object with all that is like it,
a participant with all others of whom there is a take like one of theirs.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from storage.digests import digest_bytes
from storage.likeness import Signature, groups, joined

if TYPE_CHECKING:
    from storage.manifest import ClipRow

TEST_FRACTION = 0.03  # the paper's (Sec. 4.1)


@dataclass(frozen=True)
class ObjectIdentity:
    """An object, whatever its file is called."""

    geometry: str  # digest of its surface
    shape: Signature


@dataclass(frozen=True)
class SplitBasis:
    """What decides a clip's splits."""

    test_fraction: float = TEST_FRACTION
    fixed: str = ""  # split by sequence that the source itself fixes
    takes: tuple[Signature, ...] = ()  # near-duplicates of the sequence have a signature like one of these
    objects: tuple[ObjectIdentity, ...] = ()

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the basis that `asdict` and JSON turned into `values`."""
        takes = tuple(_signature(entry) for entry in values["takes"])
        objects = tuple(
            ObjectIdentity(entry["geometry"], _signature(entry["shape"])) for entry in values["objects"]
        )
        return cls(**{**values, "takes": takes, "objects": objects})


def with_splits(rows: Sequence["ClipRow"]) -> tuple["ClipRow", ...]:
    """Return the rows with their splits, and why; those without a basis stay as they are."""
    based = [row for row in rows if row.basis is not None]
    of = groups_of(based)
    fixed = _fixed_splits(based, of.sessions)
    drawn = _draws(based, of)
    done = {row.id: _split(row, of, fixed, drawn) for row in based}
    return tuple(done.get(row.id, row) for row in rows)


@dataclass(frozen=True)
class Groups:
    """What has to be on one side of a split: the group of each, by the first of its names."""

    sessions: Mapping[str, str]
    objects: Mapping[str, str]  # by geometry
    participants: Mapping[str, str]


def groups_of(rows: Sequence["ClipRow"]) -> Groups:
    """Group the sessions, objects and participants of rows that have a basis.

    Sessions of an object alone are alike where their shapes are; people who show one object share no take.
    """
    takes = groups(_takes(rows))
    shapes = groups(_shapes(rows))
    people: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.participant:
            people[row.participant].add(takes[row.session])
    return Groups(
        sessions=joined({name: [("take", takes[name]), ("shape", shapes[name])] for name in takes}),
        objects=groups({entry.geometry: [entry.shape] for row in rows for entry in _objects(row)}),
        participants=joined(people),
    )


def _draws(rows: Iterable["ClipRow"], of: Groups) -> dict[str, str]:
    """Draw what has to be on one side: groups of sessions, of objects, of participants.

    Their rows may have come with different fractions; the largest is everyone's.
    """
    fractions: defaultdict[str, float] = defaultdict(float)
    for row in rows:
        assert row.basis is not None
        names = {of.sessions[row.session], *(of.objects[entry.geometry] for entry in _objects(row))}
        names |= {_person(of.participants[row.participant])} if row.participant else set()
        for name in names:
            fractions[name] = max(fractions[name], row.basis.test_fraction)
    return {name: draw(name, fraction) for name, fraction in fractions.items()}


def draw(name: str, test_fraction: float) -> str:
    """Draw "test" with the given probability, else "train"; the same name always falls alike."""
    drawn = int(digest_bytes(name.encode())[:16], 16) / 16**16
    return "test" if drawn < test_fraction else "train"


def _split(
    row: "ClipRow", of: Groups, fixed: Mapping[str, Mapping[str, str]], drawn: Mapping[str, str]
) -> "ClipRow":
    """Return a row with its three splits; `fixed` has each group's sessions whose source fixes a split."""
    basis, group = row.basis, of.sessions[row.session]
    assert basis is not None
    by_sequence, why = _by_sequence(row, group, fixed.get(group, {}), drawn)
    reasons = {"sequence": why}
    its = [of.objects[entry.geometry] for entry in basis.objects]
    held_out = [name for name in its if drawn[name] == "test"]
    if its:
        by_object = "test" if held_out else "train"
        reasons["object"] = f"drawn for the shape {(held_out or its)[0][:12]}"
    else:
        by_object, reasons["object"] = drawn[group], f"no object: drawn for {group}"
    by_participant, reasons["participant"] = _by_participant(row.participant, of.participants, drawn)
    return replace(
        row, split=by_sequence, object_split=by_object, participant_split=by_participant, why=reasons
    )


def _by_sequence(
    row: "ClipRow", group: str, fixed: Mapping[str, str], drawn: Mapping[str, str]
) -> tuple[str, str]:
    """Return a row's split by sequence, and why."""
    assert row.basis is not None
    others = {session: split for session, split in fixed.items() if session != row.session}
    if row.basis.fixed:
        clash = [session for session, split in others.items() if split != row.basis.fixed]
        told = f"; near-duplicate of {clash[0]}, which is in {others[clash[0]]}" if clash else ""
        return row.basis.fixed, f"fixed by its source{told}"
    if fixed:  # its like are held out if any is
        chosen = min(fixed, key=lambda session: (fixed[session] != "test", fixed[session] == "train"))
        return fixed[chosen], f"near-duplicate of {chosen}, whose source fixes it"
    why = "drawn by its name" if group == row.session else f"drawn with its near-duplicate {group}"
    return drawn[group], why


def _by_participant(participant: str, people: Mapping[str, str], drawn: Mapping[str, str]) -> tuple[str, str]:
    """Return a row's split by participant, and why."""
    if not participant:
        return "", "not known"
    group = people[participant]
    why = f"drawn for {group}" if group == participant else f"drawn with {group}, by near-duplicate takes"
    return drawn[_person(group)], why


def _takes(rows: Iterable["ClipRow"]) -> dict[str, set[Signature]]:
    """Return the signatures of each session's takes."""
    takes: defaultdict[str, set[Signature]] = defaultdict(set)
    for row in rows:
        assert row.basis is not None
        takes[row.session].update(row.basis.takes)
    return takes


def _shapes(rows: Iterable["ClipRow"]) -> dict[str, set[Signature]]:
    """Return each session's shapes where it shows objects alone, nothing of the others."""
    shapes: defaultdict[str, set[Signature]] = defaultdict(set)
    for row in rows:
        shapes[row.session].update(entry.shape for entry in _objects(row) if row.source == "object")
    return shapes


def _fixed_splits(rows: Iterable["ClipRow"], sessions: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the splits that sources fix: group → session → split; test where its cameras differ."""
    fixed: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: row.id):
        assert row.basis is not None
        group = fixed[sessions[row.session]]
        if row.basis.fixed and group.get(row.session) != "test":
            group[row.session] = row.basis.fixed
    return fixed


def _person(participant: str) -> str:
    return f"participant {participant}"


def _objects(row: "ClipRow") -> tuple[ObjectIdentity, ...]:
    return row.basis.objects if row.basis is not None else ()


def _signature(values: dict[str, Any]) -> Signature:
    return Signature(values["kind"], tuple(values["values"]))
