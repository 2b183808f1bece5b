"""The record store: content-addressed, immutable, atomic.

Layout: <root>/<kind>/<first two digits of key>/<key>/ is one record; <root>/datasets/ holds manifests;
<root>/.staging/ holds writes in progress and locks; <root>/.seen/ what unchanged inputs came to. A record is
written once by one writer, in staging, and renamed into place: it is there whole or not at all.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from storage.durable import make_folder, sync, sync_tree
from storage.errors import StoreError, one_line
from storage.groups import Record, write_group
from storage.recipe import Recipe

STAGING, DATASETS, SEEN = ".staging", "datasets", ".seen"


class Store:
    """Records and manifests under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, key: str) -> Path:
        """Return the folder of a record, whether or not there is one."""
        return self.root / kind / key[:2] / key

    def has(self, kind: str, key: str) -> bool:
        """Tell whether a finished record exists."""
        return self.path(kind, key).is_dir()

    def open(self, kind: str, key: str) -> Record:
        """Open a finished record for reading; StoreError where there is none, or it is damaged."""
        if not self.has(kind, key):
            raise StoreError(f"{self.root}: no {kind} record {key[:12]}: build it again")
        return Record.open(self.path(kind, key))

    def write(self, recipe: Recipe, arrays: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any]) -> None:
        """Write a record under its recipe's key; does nothing where it exists already.

        Raises StoreError where it cannot be written; nothing of it is left then.
        """
        target = self.path(recipe.kind, recipe.key)
        if target.is_dir():
            return
        with self.writing(f"{recipe.kind} record {recipe.key[:12]}") as folder:
            staged = folder / "record"
            write_group(staged, recipe, arrays, attrs)
            sync_tree(staged)
            make_folder(target.parent)
            try:
                os.rename(staged, target)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return  # another writer was first: its record is the same
            sync(target.parent)

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all records of a kind, sorted."""
        return sorted(path.name for path in (self.root / kind).glob("??/*") if path.is_dir())

    def kinds(self) -> list[str]:
        """Return the kinds that have records."""
        if not self.root.is_dir():
            return []
        folders = [path.name for path in self.root.iterdir() if path.is_dir()]
        return sorted(set(folders) - {STAGING, DATASETS, SEEN})

    def records(self) -> list[tuple[str, str]]:
        """Return (kind, key) of every record, sorted."""
        return [(kind, key) for kind in self.kinds() for key in self.keys(kind)]

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Hold the store for the time of a build: nobody drops what it counts on.

        Several builds may hold it at once. What killed writers left behind is cleared first.
        """
        self.clear_staging()
        with self._lock(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the store with nobody else at work in it; StoreError where somebody is."""
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
            if not locked:
                raise StoreError(
                    f"{self.root}: a build is at work in this store: try again when it has ended"
                )
            yield

    def discard(self, kind: str, key: str) -> None:
        """Remove a record, out of its place first, as a whole; the caller holds the store `alone`."""
        grave = self.root / STAGING / uuid.uuid4().hex
        os.rename(self.path(kind, key), grave)
        shutil.rmtree(grave)

    def clear_staging(self) -> int:
        """Remove what killed writers left behind and return how many there were; 0 while anybody writes."""
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
            folders = [path for path in (self.root / STAGING).iterdir() if path.is_dir()] if locked else []
            for folder in folders:
                shutil.rmtree(folder)
        return len(folders)

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[Path]:
        """Make a folder for one write and remove it after; StoreError, naming `what`, where that fails."""
        try:
            with self._lock(fcntl.LOCK_SH):
                folder = self.root / STAGING / uuid.uuid4().hex
                folder.mkdir()
                try:
                    yield folder
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        except (OSError, RuntimeError) as error:  # zarrs reports a full disk as a RuntimeError
            raise self._cannot_write(what, error) from error

    @contextlib.contextmanager
    def _lock(self, operation: int) -> Iterator[bool]:
        """Lock the store: builds and writers share it, clearing up needs it alone."""
        try:
            make_folder(self.root / STAGING)
            file = (self.root / STAGING / "lock").open("a")
        except OSError as error:
            raise self._cannot_write("anything", error) from error
        with file:
            locked = True
            try:
                fcntl.flock(file, operation)
            except BlockingIOError:
                locked = False
            yield locked

    def _cannot_write(self, what: str, error: OSError | RuntimeError) -> StoreError:
        reason = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        advice = "every finished record stays: put that right and run again to go on"
        return StoreError(f"{self.root}: cannot write {what}: {reason} ({advice})")
