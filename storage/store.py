"""The record store: content-addressed, immutable, atomic.

A record is written once by one writer, beside its place, and put there in one step: it is there whole or not
at all. `storage.backend` says how each place that can hold a store keeps that promise.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from storage.backend import Backend
from storage.bucket import Bucket
from storage.errors import InputError, StoreError
from storage.folder import Folder
from storage.groups import Record, write_group
from storage.recipe import Recipe

ASKED_EACH = 1000  # records: of more the store is asked for a list, as a bucket takes milliseconds to answer


class Store:
    """Records and manifests in one place."""

    def __init__(self, root: Path | str) -> None:
        """Open a store; InputError where a bucket is not there, or refuses the credentials at hand.

        root: a folder, which need not exist, or s3://BUCKET/PREFIX, see `place`.
        """
        self.root = place(root)
        self.backend: Backend = Folder(self.root) if isinstance(self.root, Path) else _bucket(self.root)

    def __reduce__(self) -> tuple[object, ...]:
        # Another process opens the store anew, with its own connections and credentials.
        return Store, (self.root,)

    def has(self, kind: str, key: str) -> bool:
        """Tell whether a finished record exists."""
        return self.backend.has(record_name(kind, key))

    def missing(self, records: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those of some records (kind, key) that are not there."""
        lacking, by_kind = set(), defaultdict[str, set[str]](set)
        for kind, key in records:
            by_kind[kind].add(key)
        for kind, keys in by_kind.items():
            if len(keys) > ASKED_EACH:
                keys -= set(self.keys(kind))
            else:
                keys = {key for key in keys if not self.has(kind, key)}
            lacking |= {(kind, key) for key in keys}
        return lacking

    def open(self, kind: str, key: str) -> Record:
        """Open a finished record for reading; StoreError where there is none, or it is damaged."""
        name = record_name(kind, key)
        found = self.backend.find(name)
        if found is None:
            raise StoreError(f"{self.root}: no {kind} record {key[:12]}: build it again")
        return Record.open(f"{self.root}/{name}", kind, found)

    def write(self, recipe: Recipe, arrays: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any]) -> None:
        """Write a record under its recipe's key; does nothing where it exists already.

        Raises StoreError where it cannot be written; nothing of it is left then.
        """
        if self.has(recipe.kind, recipe.key):
            return
        with self.backend.writing(f"{recipe.kind} record {recipe.key[:12]}") as folder:
            write_group(folder / "record", recipe, arrays, attrs)
            self.backend.publish(folder / "record", record_name(recipe.kind, recipe.key))

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all records of a kind, sorted."""
        return self.backend.keys(kind)

    def kinds(self) -> list[str]:
        """Return the kinds that have records."""
        return self.backend.kinds()

    def records(self) -> list[tuple[str, str]]:
        """Return (kind, key) of every record, sorted."""
        return [(kind, key) for kind in self.kinds() for key in self.keys(kind)]

    def in_use(self) -> AbstractContextManager[None]:
        """Hold the store for the time of a build: nobody drops what it counts on.

        Several builds may hold it at once.
        """
        return self.backend.in_use()

    def alone(self) -> AbstractContextManager[None]:
        """Hold the store with nobody else at work in it; StoreError where somebody is."""
        return self.backend.alone()

    def discard(self, kind: str, key: str) -> None:
        """Remove a record; the caller holds the store `alone`."""
        self.backend.discard(record_name(kind, key))

    def clear_staging(self) -> int:
        """Remove what killed writers left behind and return how many there were; 0 while anybody writes."""
        return self.backend.clear_staging()


def place(root: Path | str, *, absolute: bool = False) -> Path | str:
    """Return the folder, or the address as it is.

    absolute: also for a process that works in another folder.
    """
    if isinstance(root, str) and "://" in root:
        return root
    return Path(root).absolute() if absolute else Path(root)


def record_name(kind: str, key: str) -> str:
    """Return the name of a record below its store's root, whether or not there is one."""
    return f"{kind}/{key[:2]}/{key}"


def _bucket(url: str) -> Bucket:
    if not re.match(r"s3://\w", url):
        raise InputError(f"{url}: wanted a folder or s3://BUCKET/PREFIX", code="config")
    return Bucket.open(url.rstrip("/"))
