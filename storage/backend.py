"""Where a store's bytes are, and how each place keeps what every store promises.

- A record is there whole or not at all. Folder: written aside, flushed, renamed into its place. Bucket: its
  files are put under names of the writer's own; one object, put last, makes them the record.
- Two writers of one record leave one, and it never changes after. Folder: the second rename fails. Bucket:
  the last object is put on condition that there is none (If-None-Match).
- A dataset loses no change. Folder: changes are made one after the other, under a lock. Bucket: the file is
  replaced on condition that it is still what was read (If-Match), else the change is made anew.
- Nothing that a build counts on is dropped. Folder: builds share a lock that dropping needs alone. Bucket:
  they hold leases, which they renew; who drops puts a lease of its own and then looks for theirs.
- What killed writers leave is no record, and goes. Folder: it is in .staging/; the next build clears it.
  Bucket: no last object makes it a record; `store gc` clears it when it is an hour old.

A name is a path below the store's root, with slashes: `datasets/captures.jsonl`. That of a record,
`<kind>/<first two digits of key>/<key>`, stands for all its files. What else lies below the root (a bucket or
a folder may hold other things) is no record: it is neither counted nor cleared.
"""

import re
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from zarr.storage import StorePath

STAGING, DATASETS, SEEN = ".staging", "datasets", ".seen"
DIGEST_FILE = "content.sha256"  # a record's file with the digest of all its others
WHAT_STAYS = "every finished record stays: put that right and run again to go on"
_RECORD = re.compile(r"[^/.]+/([0-9a-f]{2})/\1[0-9a-f]{62}")


def is_record_name(name: str) -> bool:
    """Tell whether a name is one that a record has."""
    return _RECORD.fullmatch(name) is not None


class Backend(Hashable, Protocol):
    """A place that holds a store; StoreError where it cannot be reached, read or written."""

    # Records

    def has(self, record: str) -> bool:
        """Tell whether a finished record exists."""
        ...

    def find(self, record: str) -> Path | StorePath | None:
        """Return where Zarr opens a finished record."""
        ...

    def contents(self, record: str) -> Iterator[tuple[str, bytes]]:
        """Yield the name, within the record, and the bytes of each file of a finished record."""
        ...

    def kinds(self) -> list[str]:
        """Return the kinds that have records, sorted."""
        ...

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all finished records of a kind, sorted."""
        ...

    def sizes(self, kind: str) -> dict[str, int]:
        """Return the bytes of each finished record of a kind, by key."""
        ...

    def writing(self, what: str) -> AbstractContextManager[Path]:
        """Make a local folder for one write and remove it after; StoreError names `what` where it fails."""
        ...

    def publish(self, staged: Path, record: str) -> None:
        """Make a staged folder a record in one step; nothing where another writer was first."""
        ...

    def discard(self, record: str) -> None:
        """Remove a record, out of its place first, as a whole; the caller holds the store `alone`."""
        ...

    # Files

    def stamp(self, name: str) -> Hashable:
        """Return what tells one version of a file from the next; None where there is none."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes; None where there is none."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a file, replacing the one that is there in one step."""
        ...

    def change(self, name: str, make: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by what `make` makes of it; called again where somebody else was faster."""
        ...

    def files(self, folder: str) -> list[str]:
        """Return the names of the files under a folder, at any depth, sorted."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there."""
        ...

    # Who is at work

    def in_use(self) -> AbstractContextManager[None]:
        """Hold the store for the time of a build; several builds may. Waits while somebody is `alone`."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Hold the store with nobody else at work in it; StoreError where somebody is."""
        ...

    def clear_staging(self) -> int:
        """Remove what killed writers left behind and return how many there were; 0 while anybody writes."""
        ...
