"""A store in a folder: rename makes records, locks order the writers (guarantees: `storage.backend`).

Layout: <root>/<kind>/<first two digits of key>/<key>/ is one record; <root>/datasets/ holds manifests;
<root>/.staging/ holds writes in progress and locks; <root>/.seen/ what unchanged inputs came to.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from storage.backend import DATASETS, SEEN, STAGING, WHAT_STAYS, is_record_name
from storage.durable import make_folder, num_bytes, sync, sync_tree
from storage.errors import StoreError, one_line


@dataclass(frozen=True)
class Folder:
    """Records and files under one folder."""

    root: Path

    def has(self, record: str) -> bool:
        """Tell whether a finished record exists."""
        return (self.root / record).is_dir()

    def find(self, record: str) -> Path | None:
        """Return the folder of a finished record."""
        return self.root / record if self.has(record) else None

    def contents(self, record: str) -> Iterator[tuple[str, bytes]]:
        """Yield the files of a finished record."""
        folder = self.root / record
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix(), path.read_bytes()

    def kinds(self) -> list[str]:
        """Return the kinds that have records."""
        if not self.root.is_dir():
            return []
        folders = {path.name for path in self.root.iterdir() if path.is_dir()}
        return sorted(folders - {STAGING, DATASETS, SEEN})

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all records of a kind."""
        names = ((path, f"{kind}/{path.parent.name}/{path.name}") for path in (self.root / kind).glob("??/*"))
        return sorted(path.name for path, name in names if is_record_name(name) and path.is_dir())

    def sizes(self, kind: str) -> dict[str, int]:
        """Return the bytes of each record of a kind."""
        return {key: num_bytes(self.root / kind / key[:2] / key) for key in self.keys(kind)}

    @contextlib.contextmanager
    def writing(self, what: str) -> Iterator[Path]:
        """Make a folder in staging; it is on the disk that records are on, so that they can be renamed."""
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

    def publish(self, staged: Path, record: str) -> None:
        """Flush a staged folder and rename it into its place."""
        target = self.root / record
        sync_tree(staged)
        make_folder(target.parent)
        try:
            os.rename(staged, target)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            return  # another writer was first: its record is the same
        sync(target.parent)

    def discard(self, record: str) -> None:
        """Move a record into staging and remove it there."""
        grave = self.root / STAGING / uuid.uuid4().hex
        os.rename(self.root / record, grave)
        shutil.rmtree(grave)

    def stamp(self, name: str) -> tuple[int, int, int] | None:
        """Return a file's inode, size and time."""
        path = self.root / name
        if not path.is_file():
            return None
        stat = path.stat()
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes."""
        path = self.root / name
        return path.read_bytes() if path.is_file() else None

    def put(self, name: str, data: bytes) -> None:
        """Write a file aside, flush it and rename it into its place."""
        path = self.root / name
        with self.writing(name) as folder:
            staged = folder / path.name
            staged.write_bytes(data)
            sync(staged)
            make_folder(path.parent)
            staged.replace(path)
            sync(path.parent)

    def change(self, name: str, make: Callable[[bytes | None], bytes]) -> None:
        """Replace a file while no other process can."""
        try:
            make_folder(self.root / STAGING)
        except OSError as error:
            raise self._cannot_write(name, error) from error
        with FileLock(self.root / STAGING / f"{Path(name).name}.lock"):
            found = self.read(name)
            made = make(found)
            if made != found:
                self.put(name, made)

    def files(self, folder: str) -> list[str]:
        """Return the names of the files under a folder."""
        paths = (self.root / folder).rglob("*")
        return sorted(path.relative_to(self.root).as_posix() for path in paths if path.is_file())

    def remove(self, name: str) -> None:
        """Remove a file or a folder."""
        path = self.root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Share the lock; what killed writers left behind is cleared first."""
        self.clear_staging()
        with self._lock(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock alone."""
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
            if not locked:
                raise StoreError(
                    f"{self.root}: a build is at work in this store: try again when it has ended"
                )
            yield

    def clear_staging(self) -> int:
        """Remove the folders of staging."""
        with self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
            folders = [path for path in (self.root / STAGING).iterdir() if path.is_dir()] if locked else []
            for folder in folders:
                shutil.rmtree(folder)
        return len(folders)

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
        return StoreError(f"{self.root}: cannot write {what}: {reason} ({WHAT_STAYS})")
