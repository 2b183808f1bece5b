"""Looking after a store: what there is, whether it is still what was written, what nobody needs."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from storage.durable import num_bytes
from storage.errors import InputError
from storage.groups import defect
from storage.manifest import Manifest, dataset_names, drop_old_versions
from storage.store import SEEN, Store

RecordId = tuple[str, str]  # kind, key
Examine = Callable[[RecordId], str | None]
Mapper = Callable[[Examine, Sequence[RecordId]], Iterable[str | None]]


@dataclass(frozen=True)
class Usage:
    """How much there is of one kind."""

    records: int
    bytes: int


@dataclass(frozen=True)
class Problem:
    """A record or a dataset that is not as it should be."""

    kind: str
    key: str
    reason: str
    is_there: bool = True  # else a dataset needs it and it is not


def status(store: Store) -> dict[str, Usage]:
    """Return counts and bytes by kind."""
    return {kind: _usage(store, kind, store.keys(kind)) for kind in store.kinds()}


def verify(store: Store, mapper: Mapper = map) -> list[Problem]:
    """Read every record again; return those that changed, and those that datasets need and the store lacks.

    mapper: calls a function on every record, as the built-in `map` does (threads, a progress bar).
    """
    records = store.records()
    reasons = mapper(lambda record: defect(store.path(*record)), records)
    problems = [Problem(*record, reason) for record, reason in zip(records, reasons, strict=True) if reason]
    return problems + missing_records(store)


def missing_records(store: Store) -> list[Problem]:
    """Return the records that datasets need and the store lacks, and the datasets that cannot be read."""
    problems: list[Problem] = []
    needed: dict[RecordId, str] = {}  # the first dataset that needs it
    for name in dataset_names(store):
        try:
            needed = dict.fromkeys(Manifest.read(store, name).records(), name) | needed
        except InputError as error:
            problems.append(Problem("dataset", name, str(error)))
    missing = sorted(record for record in needed if not store.has(*record))
    return problems + [
        Problem(*record, f"dataset {needed[record]!r} needs it, and it is not there", is_there=False)
        for record in missing
    ]


def drop_damaged(store: Store, problems: Sequence[Problem]) -> int:
    """Remove the damaged records among `problems`, so that the next build makes them; return their number."""
    damaged = [problem for problem in problems if problem.is_there and store.has(problem.kind, problem.key)]
    with store.alone():
        for problem in damaged:
            store.discard(problem.kind, problem.key)
    return len(damaged)


def referenced_records(store: Store) -> set[RecordId]:
    """Return (kind, key) of every record that any dataset of a store needs."""
    return set().union(*(Manifest.read(store, name).records() for name in dataset_names(store)))


def gc(store: Store, *, dry_run: bool = False) -> dict[str, Usage]:
    """Drop what no dataset needs now: records, datasets' older versions, rubbish; return the records.

    Raises StoreError while a build is at work, InputError where a dataset cannot be read: nothing goes then.
    """
    if dry_run:
        return _unneeded(store)[1]
    with store.alone():
        records, usages = _unneeded(store)
        for kind, key in records:
            store.discard(kind, key)
        drop_old_versions(store)
        shutil.rmtree(store.root / SEEN, ignore_errors=True)
    store.clear_staging()
    return usages


def _unneeded(store: Store) -> tuple[list[RecordId], dict[str, Usage]]:
    keep = referenced_records(store)
    records = [record for record in store.records() if record not in keep]
    kinds = sorted({kind for kind, _ in records})
    usages = {kind: _usage(store, kind, [key for k, key in records if k == kind]) for kind in kinds}
    return records, usages


def _usage(store: Store, kind: str, keys: Sequence[str]) -> Usage:
    return Usage(len(keys), sum(num_bytes(store.path(kind, key)) for key in keys))
