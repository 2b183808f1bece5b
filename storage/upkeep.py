"""Looking after a store: what there is, whether it is still what was written, what nobody needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from storage.backend import DIGEST_FILE, SEEN
from storage.digests import digest_bytes, digest_json
from storage.errors import InputError
from storage.manifest import Manifest, dataset_names, drop_old_versions
from storage.store import Store, record_name

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
    return _usages({kind: store.backend.sizes(kind) for kind in store.kinds()})


def verify(store: Store, mapper: Mapper = map) -> list[Problem]:
    """Read every record again; return those that changed, and those that datasets need and the store lacks.

    mapper: calls a function on every record, as the built-in `map` does (threads, a progress bar).
    """
    records = store.records()
    reasons = mapper(lambda record: defect(store, *record), records)
    problems = [Problem(*record, reason) for record, reason in zip(records, reasons, strict=True) if reason]
    return problems + missing_records(store)


def defect(store: Store, kind: str, key: str) -> str | None:
    """Read a record again and say what is not as it was written; None where nothing is."""
    digests, written = {}, None
    try:
        for name, data in store.backend.contents(record_name(kind, key)):
            if name == DIGEST_FILE:
                written = data.decode(errors="replace")
            else:
                digests[name] = digest_bytes(data)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if written is None:
        return f"{DIGEST_FILE} is missing"
    if digest_json(digests) != written:
        return "its bytes are not those that were written"
    if store.open(kind, key).recipe.key != key:
        return "its key is not that of its recipe"
    return None


def missing_records(store: Store) -> list[Problem]:
    """Return the records that datasets need and the store lacks, and the datasets that cannot be read."""
    problems: list[Problem] = []
    needed: dict[RecordId, str] = {}  # the first dataset that needs it
    for name in dataset_names(store):
        try:
            needed = dict.fromkeys(Manifest.read(store, name).records(), name) | needed
        except InputError as error:
            problems.append(Problem("dataset", name, str(error)))
    missing = sorted(store.missing(needed))
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
    """Return (kind, key) of every record that any dataset of a store needs, and of those made from them."""
    needed = set[RecordId]().union(*(Manifest.read(store, name).records() for name in dataset_names(store)))
    latents = {key: store.open("latents", key).recipe.inputs["frames"] for key in store.keys("latents")}
    return needed | {("latents", key) for key, frames in latents.items() if ("frames", frames) in needed}


def gc(store: Store, *, dry_run: bool = False) -> dict[str, Usage]:
    """Drop what no dataset needs now: records, datasets' older versions, rubbish; return the records.

    Raises StoreError while a build is at work, InputError where a dataset cannot be read: nothing goes then.
    """
    if dry_run:
        return _usages(_unneeded(store))
    with store.alone():
        unneeded = _unneeded(store)
        for kind, of_kind in unneeded.items():
            for key in of_kind:
                store.discard(kind, key)
        drop_old_versions(store)
        store.backend.remove(SEEN)
    store.clear_staging()
    return _usages(unneeded)


def _unneeded(store: Store) -> dict[str, dict[str, int]]:
    """Return the bytes of each record that no dataset needs, by kind and key."""
    keep = referenced_records(store)
    sizes = {kind: store.backend.sizes(kind) for kind in store.kinds()}
    unneeded = {
        kind: {key: size for key, size in of_kind.items() if (kind, key) not in keep}
        for kind, of_kind in sizes.items()
    }
    return {kind: of_kind for kind, of_kind in unneeded.items() if of_kind}


def _usages(sizes: Mapping[str, Mapping[str, int]]) -> dict[str, Usage]:
    return {kind: Usage(len(of_kind), sum(of_kind.values())) for kind, of_kind in sizes.items() if of_kind}
