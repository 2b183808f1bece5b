"""Datasets: manifests that join record keys into clips, one JSON line each.

A file opens with a line that names the dataset and the schema version; then come clips and quarantined
inputs, sorted, so that a build that changes nothing writes the same bytes.
"""

import json
import os
import uuid
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.digests import digest_bytes
from storage.errors import InputError
from storage.store import DATASETS, Problem, Store

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ClipRow:
    """One clip seen by one camera: the records it joins, and what a reader needs to choose it."""

    id: str  # session/camera
    session: str
    camera: str
    split: str  # train, val or test
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

    def records(self) -> set[tuple[str, str]]:
        """Return (kind, key) of every record the clip needs."""
        keys = {("object", key) for key in self.object_keys}
        keys |= {("layers", self.layers_key)} if self.layers_key else set()
        return keys | ({("frames", self.frames_key)} if self.frames_key else set())


@dataclass(frozen=True)
class Quarantined:
    """An input that could not be used, and why."""

    input: str  # session, session/camera or object
    code: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A dataset: its clips and the inputs set aside."""

    name: str
    rows: tuple[ClipRow, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()

    def updated(
        self, rows: Iterable[ClipRow], quarantined: Iterable[Quarantined], *, replacing: Collection[str]
    ) -> "Manifest":
        """Replace everything known of the sessions in `replacing` (their clips and quarantined inputs)."""
        names = set(replacing)
        kept_rows = [row for row in self.rows if row.session not in names]
        kept = [entry for entry in self.quarantined if entry.input.partition("/")[0] not in names]
        return Manifest(self.name, (*kept_rows, *rows), (*kept, *quarantined))

    def records(self) -> set[tuple[str, str]]:
        """Return (kind, key) of every record that the dataset needs."""
        return set().union(*(row.records() for row in self.rows))

    def write(self, store: Store) -> None:
        """Write the manifest into a store's datasets, replacing the old one in one step."""
        path = manifest_path(store, self.name)
        lines: list[dict[str, Any]] = [{"dataset": self.name, "schema_version": SCHEMA_VERSION}]
        lines += [{"clip": asdict(row)} for row in sorted(self.rows, key=lambda row: row.id)]
        entries = sorted(self.quarantined, key=lambda entry: (entry.input, entry.code))
        lines += [{"quarantined": asdict(entry)} for entry in entries]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with staged.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)

    @classmethod
    def read(cls, store: Store, name: str) -> "Manifest":
        """Read a dataset's manifest; InputError where there is none or it cannot be read."""
        path = manifest_path(store, name)
        if not path.is_file():
            known = ", ".join(dataset_names(store)) or "none"
            raise InputError(f"{store.root}: no dataset {name!r} (there are: {known})", code="no-dataset")
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if lines[0]["schema_version"] != SCHEMA_VERSION:
                found = lines[0]["schema_version"]
                raise InputError.mismatch(
                    path, "schema_version", found=found, wanted=SCHEMA_VERSION, code="manifest"
                )
            clips = [line["clip"] for line in lines if "clip" in line]
            rows = tuple(ClipRow(**{**clip, "object_keys": tuple(clip["object_keys"])}) for clip in clips)
            entries = tuple(Quarantined(**line["quarantined"]) for line in lines if "quarantined" in line)
        except (LookupError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{path}: not a manifest: {error}", code="manifest") from error
        return cls(name, rows, entries)


def read_or_new(store: Store, name: str) -> Manifest:
    """Read a dataset's manifest, or begin an empty one."""
    return Manifest.read(store, name) if manifest_path(store, name).is_file() else Manifest(name)


def manifest_path(store: Store, name: str) -> Path:
    """Return the file of a dataset's manifest."""
    if not name or "/" in name or name.startswith("."):
        raise InputError(f"dataset name {name!r}: wanted a plain name", code="unsafe-name")
    return store.root / DATASETS / f"{name}.jsonl"


def dataset_names(store: Store) -> list[str]:
    """Return the names of a store's datasets, sorted."""
    return sorted(path.stem for path in (store.root / DATASETS).glob("*.jsonl") if path.name[0] != ".")


def referenced_records(store: Store) -> set[tuple[str, str]]:
    """Return (kind, key) of every record that any dataset of a store needs."""
    return set().union(*(Manifest.read(store, name).records() for name in dataset_names(store)))


def missing_records(store: Store) -> list[Problem]:
    """Return the records that datasets need and the store lacks."""
    missing = sorted((kind, key) for kind, key in referenced_records(store) if not store.has(kind, key))
    return [Problem(kind, key, "a dataset needs it, and it is not there") for kind, key in missing]


def assign_split(session: str, test_fraction: float) -> str:
    """Put a session, whole, into "test" with the given probability, else into "train"; always the same."""
    draw = int(digest_bytes(session.encode())[:16], 16) / 16**16
    return "test" if draw < test_fraction else "train"
