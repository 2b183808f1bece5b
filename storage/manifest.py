"""Datasets: manifests that join record keys into clips, one JSON line each.

A file opens with a line that names the dataset, its version and the schema version; then come clips and
quarantined inputs, sorted, so that a build that changes nothing writes the same bytes. The version is a
digest of the clips. <store>/datasets/<name>.jsonl is the newest one; it and all before it are kept as
<store>/datasets/<name>/<version>.jsonl.
"""

import json
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

from storage.backend import DATASETS, Backend
from storage.digests import digest_bytes
from storage.errors import InputError
from storage.splits import SplitBasis, with_splits
from storage.store import Store

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class ClipRow:
    """One clip seen by one camera: the records it joins, and what a reader needs to choose it."""

    id: str  # session/camera
    session: str
    camera: str
    split: (
        str  # train, val or test by sequence: sessions with all their cameras, and near-duplicates of theirs
    )
    source: str  # object, hoi or human: the shares that training draws in
    object_keys: tuple[str, ...]  # the first gives the references
    layers_key: str | None  # None: no motion (human video)
    frames_key: str | None  # None: motion alone
    has_hands: bool
    has_object: bool
    num_frames: int
    fps: float
    participant: str = ""
    licence: str = ""
    skeleton_key: str | None = None  # of a person, where one is known
    object_split: str = "train"  # or test: objects are split; a clip that shows a test object is a test clip
    participant_split: str = ""  # train or test by participant, where one is known
    why: dict[str, str] = field(
        default_factory=dict, hash=False
    )  # each split is what it is: sequence, object, …
    basis: SplitBasis | None = None  # what `storage.splits` decides them by; None: they stay as they are
    provenance: tuple[dict[str, str], ...] = field(default=(), hash=False)  # of each object, as object_keys

    def records(self) -> set[tuple[str, str]]:
        """Return (kind, key) of every record the clip needs."""
        keys = {("object", key) for key in self.object_keys}
        keys |= {("layers", self.layers_key)} if self.layers_key else set()
        keys |= {("skeleton", self.skeleton_key)} if self.skeleton_key else set()
        return keys | ({("frames", self.frames_key)} if self.frames_key else set())

    def spaced(self, most: int) -> tuple[int, int]:
        """Return (count, stride) of at most `most` frames from the first on, evenly spaced."""
        count = min(most, self.num_frames)
        return count, max((self.num_frames - 1) // max(count - 1, 1), 1)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ClipRow":
        """Return the row that `asdict` and JSON turned into `values`."""
        lists = {name: tuple(values[name]) for name in ("object_keys", "provenance")}
        basis = SplitBasis.from_json(values["basis"]) if values["basis"] else None
        return cls(**{**values, **lists, "basis": basis})


@dataclass(frozen=True)
class Quarantined:
    """An input that could not be used, and why."""

    input: str  # session, session/camera or object
    code: str
    reason: str
    session: str = ""  # where it is known
    path: str = ""  # of the session's folder


@dataclass(frozen=True)
class Manifest:
    """A dataset: its clips and the inputs set aside."""

    name: str
    rows: tuple[ClipRow, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()

    def updated(
        self,
        rows: Iterable[ClipRow],
        quarantined: Iterable[Quarantined],
        *,
        sessions: Collection[str],
        paths: Collection[str] = (),
    ) -> "Manifest":
        """Replace all known of `sessions`, and what was set aside of the folders `paths`; then split anew."""
        kept_rows = [row for row in self.rows if row.session not in sessions]
        kept = [e for e in self.quarantined if e.session not in sessions and e.path not in paths]
        return replace(self, rows=with_splits((*kept_rows, *rows)), quarantined=(*kept, *quarantined))

    @property
    def version(self) -> str:
        """Return the digest of the clips."""
        return _version(self._clip_lines())

    def sessions(self) -> set[str]:
        """Return the sessions that it has clips of, or has set something aside of."""
        return {row.session for row in self.rows} | {entry.session for entry in self.quarantined}

    def records(self) -> set[tuple[str, str]]:
        """Return (kind, key) of every record that the dataset needs."""
        return set().union(*(row.records() for row in self.rows))

    def write(self, store: Store) -> None:
        """Write the manifest into a store's datasets, replacing the old one, whatever it is, in one step.

        Whoever changes what is there does it in `update`, which loses nobody else's changes.
        """
        _replace(store, self.name, lambda _: self)

    @classmethod
    def read(cls, store: Store, name: str) -> "Manifest":
        """Read a dataset, or its version `name@version`; InputError where there is none or it is broken."""
        stamp = store.backend.stamp(manifest_name(name))
        if stamp is None:
            known = ", ".join(dataset_names(store)) or "none"
            raise InputError(f"{store.root}: no dataset {name!r} (there are: {known})", code="no-dataset")
        return _read(store.backend, f"{store.root}", name, stamp)

    def text(self) -> tuple[str, str]:
        """Return the version and the whole file: what is the same always comes out as the same bytes."""
        clips = self._clip_lines()
        version = _version(clips)
        header = _line({"dataset": self.name, "version": version, "schema_version": SCHEMA_VERSION})
        entries = sorted(self.quarantined, key=lambda entry: (entry.input, entry.code))
        quarantined = [_line({"quarantined": asdict(entry)}) for entry in entries]
        return version, "".join([header, *clips, *quarantined])

    def _clip_lines(self) -> list[str]:
        return [_line({"clip": asdict(row)}) for row in sorted(self.rows, key=lambda row: row.id)]


def update(store: Store, name: str, change: Callable[[Manifest], Manifest]) -> None:
    """Replace a dataset by what `change` makes of it; what others change meanwhile stays.

    `change` may be called several times, each time with what is there by then.
    """

    def changed(found: bytes | None) -> Manifest:
        return change(Manifest(name) if found is None else _parse(found, f"{store.root}", name))

    _replace(store, name, changed)


def read_or_new(store: Store, name: str) -> Manifest:
    """Read a dataset's manifest, or begin an empty one."""
    is_there = store.backend.stamp(manifest_name(name)) is not None
    return Manifest.read(store, name) if is_there else Manifest(name)


def name_and_version(name: str) -> tuple[str, str | None]:
    """Take `name@version` apart; None where no version is named."""
    dataset, at, version = name.partition("@")
    return dataset, version if at else None


def manifest_name(name: str) -> str:
    """Return the file of a dataset's manifest, or of its version `name@version`, below its store's root."""
    dataset, version = name_and_version(name)
    if not dataset or version == "" or "/" in name or name.startswith("."):
        raise InputError(f"dataset name {name!r}: wanted a plain name", code="unsafe-name")
    return f"{DATASETS}/{dataset}/{version}.jsonl" if version else f"{DATASETS}/{dataset}.jsonl"


def dataset_names(store: Store) -> list[str]:
    """Return the names of a store's datasets, sorted."""
    files = [PurePosixPath(file) for file in store.backend.files(DATASETS)]
    return sorted(file.stem for file in files if len(file.parts) == 2 and file.suffix == ".jsonl")


def drop_old_versions(store: Store) -> None:
    """Forget all versions of the datasets but the newest."""
    newest = {f"{name}@{Manifest.read(store, name).version}" for name in dataset_names(store)}
    keep = {manifest_name(name) for name in newest}
    for file in store.backend.files(DATASETS):
        if file.count("/") == 2 and file not in keep:
            store.backend.remove(file)


def _replace(store: Store, name: str, make: Callable[[bytes | None], Manifest]) -> None:
    """Replace a dataset's file; its version is kept beside it before it is the newest."""

    def made(found: bytes | None) -> bytes:
        version, text = make(found).text()
        data = text.encode()
        if data != found:
            store.backend.put(manifest_name(f"{name}@{version}"), data)
        return data

    store.backend.change(manifest_name(name), made)


@lru_cache(maxsize=8)  # every shard of a build asks for it; a stamp tells one version from the next
def _read(backend: Backend, root: str, name: str, _stamp: Hashable) -> Manifest:
    return _parse(backend.read(manifest_name(name)) or b"", root, name)


def _parse(data: bytes, root: str, name: str) -> Manifest:
    file = f"{root}/{manifest_name(name)}"
    try:
        # Not splitlines: names may hold characters that Unicode counts as line ends.
        texts = [line for line in data.decode().split("\n") if line]
        lines = [json.loads(text) for text in texts]
        found = lines[0]["schema_version"]
        if found != SCHEMA_VERSION:
            advice = "delete it and build or ingest again: its records stay, so that takes little time"
            message = f"{file}: schema_version: found {found}, wanted {SCHEMA_VERSION} ({advice})"
            raise InputError(message, code="manifest")
        version = _version(f"{text}\n" for text, line in zip(texts, lines, strict=True) if "clip" in line)
        if version != lines[0]["version"]:
            wanted = lines[0]["version"]
            copy = manifest_name(f"{name_and_version(name)[0]}@{wanted}")
            message = f"{file}: version: found clips of {version}, wanted those of {wanted} (copy: {copy})"
            raise InputError(message, code="manifest")
        rows = tuple(ClipRow.from_json(line["clip"]) for line in lines if "clip" in line)
        entries = tuple(Quarantined(**line["quarantined"]) for line in lines if "quarantined" in line)
    except (LookupError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a manifest: {error}", code="manifest") from error
    return Manifest(name, rows, entries)


def _version(clip_lines: Iterable[str]) -> str:
    return digest_bytes("".join(clip_lines).encode())[:12]


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
