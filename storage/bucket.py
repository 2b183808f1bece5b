"""A store in a bucket: conditional writes make records and order writers (guarantees: `storage.backend`).

Layout below the prefix: <kind>/<first two digits of key>/<key>.<write>/ are the files that one writer put,
the same as those of a record in a folder; the object <kind>/<first two>/<key> holds the name of that folder.
It is put last, on condition that there is none, and makes it the record. datasets/ and .seen/ are as in a
folder; .leases/ says who is at work.
"""

import contextlib
import re
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from zarr.storage import ObjectStore, StorePath

from storage.backend import DATASETS, SEEN, WHAT_STAYS, is_record_name
from storage.errors import StoreError, one_line
from storage.leases import LEASES, Leases
from storage.s3 import Objects, Overtaken

WRITE_S = 1800.0  # no write of a record goes on for longer
RUBBISH_S = 2 * WRITE_S  # so what is older and no record is a killed writer's
PARALLEL = 8  # requests of one writer


@dataclass(frozen=True)
class Bucket:
    """Records and files under a prefix of a bucket."""

    objects: Objects

    @classmethod
    def open(cls, url: str) -> Self:
        """Reach a bucket; InputError where there is none, or it refuses these credentials."""
        return cls(Objects.open(url))

    def has(self, record: str) -> bool:
        """Tell whether a record has been made of any folder."""
        return self.objects.head(record) is not None

    def find(self, record: str) -> StorePath | None:
        """Return the folder of a record."""
        folder = self._folder(record)
        return StorePath(ObjectStore(self.objects.client, read_only=True), folder) if folder else None

    def contents(self, record: str) -> Iterator[tuple[str, bytes]]:
        """Yield the files of a record."""
        folder = self._folder(record)
        for name in self.files(folder) if folder else []:
            yield name.removeprefix(f"{folder}/"), self.read(name) or b""

    def kinds(self) -> list[str]:
        """Return the kinds that have records."""
        return sorted(set(self.objects.children()[0]) - {LEASES, DATASETS, SEEN})

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all records of a kind."""
        return sorted(Path(record).name for shelf in self._shelves(kind) for record in shelf[1])

    def sizes(self, kind: str) -> dict[str, int]:
        """Return the bytes of each record of a kind."""
        sizes = dict.fromkeys(self.keys(kind), 0)
        for found in self.objects.below(kind):
            record, dot, _ = found.name.partition(".")
            key = record.rpartition("/")[2]
            if dot and key in sizes:
                sizes[key] += found.size
        return sizes

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[Path]:
        """Make a folder among the machine's temporary ones."""
        try:
            with tempfile.TemporaryDirectory(prefix="manivideo-") as folder:
                yield Path(folder)
        except (OSError, RuntimeError) as error:  # zarrs reports a full disk as a RuntimeError
            raise StoreError(f"cannot write {what}: {one_line(error)} ({WHAT_STAYS})") from error

    def publish(self, staged: Path, record: str) -> None:
        """Put a staged folder's files, then the object that makes them the record."""
        began, folder = time.time(), f"{record}.{uuid.uuid4().hex}"
        files = [path for path in staged.rglob("*") if path.is_file()]
        names = [f"{folder}/{path.relative_to(staged).as_posix()}" for path in files]
        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(self.objects.put, names, files))
        if time.time() - began > WRITE_S:  # the machine slept: others may have cleared them
            raise StoreError(f"{self.objects.url}: writing {record} took too long ({WHAT_STAYS})")
        try:
            self.objects.put_if(record, folder.encode(), None)
        except Overtaken:  # by another writer, or by this one where the answer to its first try was lost
            if self._folder(record) != folder:
                self.objects.delete(names)

    def discard(self, record: str) -> None:
        """Remove what makes a folder the record, then the folder."""
        folder = self._folder(record)
        self.objects.delete([record])
        if folder:
            self.remove(folder)

    def stamp(self, name: str) -> str | None:
        """Return an object's ETag."""
        found = self.objects.head(name)
        return found and found[1]

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes."""
        found = self.objects.get(name)
        return found and found[0]

    def put(self, name: str, data: bytes) -> None:
        """Write an object."""
        self.objects.put(name, data)

    def change(self, name: str, make: Callable[[bytes | None], bytes]) -> None:
        """Replace an object on condition that it is what `make` was given; else begin again."""
        while True:
            data, tag = self.objects.get(name) or (None, None)
            made = make(data)
            if made == data:
                return
            with contextlib.suppress(Overtaken):
                self.objects.put_if(name, made, tag)
                return

    def files(self, folder: str) -> list[str]:
        """Return the names of the objects under a folder."""
        return sorted(found.name for found in self.objects.below(folder))

    def remove(self, name: str) -> None:
        """Remove an object, or those under a folder."""
        self.objects.delete([name, *self.files(name)])

    def in_use(self) -> AbstractContextManager[None]:
        """Hold a lease."""
        return Leases(self.objects).shared()

    def alone(self) -> AbstractContextManager[None]:
        """Hold the only lease."""
        return Leases(self.objects).alone()

    def clear_staging(self) -> int:
        """Remove the folders of which no record was made in an hour.

        Nobody counts on them: each write has a folder of its own, and none goes on for so long.
        """
        folders = [folder for kind in self.kinds() for folder in self._unfinished(kind)]
        now, cleared = Leases(self.objects).server_time(), 0
        for folder in folders:
            found = self.objects.below(folder)
            if all((now - each.modified).total_seconds() > RUBBISH_S for each in found):
                self.objects.delete([each.name for each in found])
                cleared += 1
        return cleared

    def _folder(self, record: str) -> str | None:
        """Return the folder that is the record; None where there is no record."""
        found = self.read(record)
        return found.decode() if found else None

    def _shelves(self, kind: str) -> list[tuple[list[str], list[str]]]:
        """Return the writes' folders and the records under each pair of first digits."""
        shelves = [self.objects.children(shelf) for shelf in self.objects.children(kind)[0]]
        return [
            (list(filter(_is_write, folders)), list(filter(is_record_name, objects)))
            for folders, objects in shelves
        ]

    def _unfinished(self, kind: str) -> list[str]:
        """Return the folders that are no record."""
        unfinished = []
        for folders, records in self._shelves(kind):
            writes = Counter(_record_of(folder) for folder in folders)
            sole = {record for record in records if writes[record] == 1}  # whose folder needs no look
            doubtful = [folder for folder in folders if _record_of(folder) not in sole]
            unfinished += [folder for folder in doubtful if self._folder(_record_of(folder)) != folder]
        return unfinished


def _is_write(folder: str) -> bool:
    """Tell whether a folder is one that `publish` puts files in."""
    record, _, write = folder.partition(".")
    return is_record_name(record) and re.fullmatch("[0-9a-f]{32}", write) is not None


def _record_of(folder: str) -> str:
    """Return the record that a folder was to become."""
    return folder.partition(".")[0]
