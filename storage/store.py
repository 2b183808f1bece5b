"""The record store: content-addressed, immutable, atomic.

Layout: <root>/<kind>/<first two digits of key>/<key>/ is one Zarr v3 group with a sha256 of its own files;
<root>/datasets/<name>.jsonl are manifests; <root>/.staging/ holds writes in progress. A record is written
once by one writer, in staging, and renamed into place: it is there whole or not at all. The same record
always comes out as the same bytes.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from storage.digests import digest_tree
from storage.errors import InputError
from storage.recipe import Recipe

# zarrs is 2–4 times as fast as zarr-python's own pipeline. One thread, because several append the chunks of a
# shard in the order in which they finish, and a record would not come out as the same bytes twice.
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1})

STAGING, DATASETS = ".staging", "datasets"
_DIGEST_FILE = "content.sha256"
_LEAST_CHUNK_BYTES = 1 << 15
_ZSTD = ZstdCodec(level=3)


@dataclass(frozen=True)
class Record:
    """One finished record; arrays are opened once and read when sliced."""

    group: zarr.Group
    _arrays: dict[str, zarr.Array[Any]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            array = self.group[name]
            assert isinstance(array, zarr.Array)
            self._arrays[name] = array
        return self._arrays[name]

    @property
    def attrs(self) -> dict[str, Any]:
        """Return the record's own attributes."""
        return dict(self.group.attrs["attrs"])  # type: ignore[arg-type]

    @property
    def recipe(self) -> Recipe:
        """Return what the record was made of."""
        return Recipe(**self.group.attrs["recipe"])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Usage:
    """How much there is of one kind."""

    records: int
    bytes: int


@dataclass(frozen=True)
class Problem:
    """A record that is not as it should be."""

    kind: str
    key: str
    reason: str


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
        """Open a finished record for reading."""
        if not self.has(kind, key):
            raise InputError(f"{self.root}: no {kind} record {key[:12]}: build it again", code="no-record")
        return Record(zarr.open_group(self.path(kind, key), mode="r"))

    def write(self, recipe: Recipe, arrays: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any]) -> None:
        """Write a record under its recipe's key; does nothing where it exists already."""
        target = self.path(recipe.kind, recipe.key)
        if target.is_dir():
            return
        with self._staging() as folder:
            staged = folder / "record"
            _write_group(staged, recipe, arrays, attrs)
            (staged / _DIGEST_FILE).write_text(digest_tree(staged))
            _sync_tree(staged)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(staged, target)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return  # another writer was first: its record is the same
            _sync(target.parent)

    def keys(self, kind: str) -> list[str]:
        """Return the keys of all records of a kind, sorted."""
        return sorted(path.name for path in (self.root / kind).glob("??/*") if path.is_dir())

    def kinds(self) -> list[str]:
        """Return the kinds that have records."""
        if not self.root.is_dir():
            return []
        folders = [path.name for path in self.root.iterdir() if path.is_dir()]
        return sorted(set(folders) - {STAGING, DATASETS})

    def status(self) -> dict[str, Usage]:
        """Return counts and bytes by kind."""
        usages = {}
        for kind in self.kinds():
            keys = self.keys(kind)
            usages[kind] = Usage(len(keys), sum(_num_bytes(self.path(kind, key)) for key in keys))
        return usages

    def verify(self) -> list[Problem]:
        """Read every record again and return those that changed since they were written."""
        records = [(kind, key) for kind in self.kinds() for key in self.keys(kind)]
        reasons = [(kind, key, self._defect(kind, key)) for kind, key in records]
        return [Problem(kind, key, reason) for kind, key, reason in reasons if reason]

    def _defect(self, kind: str, key: str) -> str | None:
        folder = self.path(kind, key)
        if not (folder / _DIGEST_FILE).is_file():
            return f"{_DIGEST_FILE} is missing"
        if digest_tree(folder, skip=_DIGEST_FILE) != (folder / _DIGEST_FILE).read_text():
            return "its bytes are not those that were written"
        if self.open(kind, key).recipe.key != key:
            return "its key is not that of its recipe"
        return None

    def gc(self, keep: Collection[tuple[str, str]], *, dry_run: bool = False) -> dict[str, Usage]:
        """Drop all records but those of `keep`, (kind, key), and staging rubbish; return what went."""
        dropped: dict[str, Usage] = {}
        for kind in self.kinds():
            paths = [self.path(kind, key) for key in self.keys(kind) if (kind, key) not in keep]
            if paths:
                dropped[kind] = Usage(len(paths), sum(_num_bytes(path) for path in paths))
            if not dry_run:
                for path in paths:
                    self.drop(kind, path.name)
        if not dry_run:
            self.clear_staging()
        return dropped

    def drop(self, kind: str, key: str) -> None:
        """Remove a record: first out of its place, as a whole."""
        with self._staging() as folder:
            os.rename(self.path(kind, key), folder / "record")

    def clear_staging(self) -> int:
        """Remove what killed writers left behind and return how many there were; 0 while any writer lives."""
        with self._staging_lock(fcntl.LOCK_EX | fcntl.LOCK_NB) as locked:
            folders = [path for path in (self.root / STAGING).iterdir() if path.is_dir()] if locked else []
            for folder in folders:
                shutil.rmtree(folder)
        return len(folders)

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        """Make a folder for one write and remove it after."""
        with self._staging_lock(fcntl.LOCK_SH):
            folder = self.root / STAGING / uuid.uuid4().hex
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _staging_lock(self, operation: int) -> Iterator[bool]:
        """Lock the staging folder: writers share it, clearing needs it alone."""
        (self.root / STAGING).mkdir(parents=True, exist_ok=True)
        with (self.root / STAGING / "lock").open("a") as file:
            try:
                fcntl.flock(file, operation)
            except BlockingIOError:
                yield False
            else:
                yield True


def _write_group(
    path: Path, recipe: Recipe, arrays: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any]
) -> None:
    described = {
        "kind": recipe.kind,
        "schema_version": recipe.schema_version,
        "inputs": dict(sorted(recipe.inputs.items())),
        "config": dict(recipe.config),
    }
    group = zarr.create_group(path, attributes={"recipe": described, "attrs": dict(attrs)})
    for name, values in sorted(arrays.items()):
        chunks, shards = _layout(values)
        group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=chunks,
            shards=shards,
            compressors=_ZSTD,
            fill_value=0,
        )[...] = values


def _layout(values: NDArray[Any]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return chunks of one frame each (several where frames are small), and one shard around them all."""
    if values.ndim < 2 or values.nbytes <= _LEAST_CHUNK_BYTES:
        return values.shape, None
    frames = -(-_LEAST_CHUNK_BYTES // values[0].nbytes)
    num_chunks = -(-len(values) // frames)
    if num_chunks == 1:
        return values.shape, None
    return (frames, *values.shape[1:]), (num_chunks * frames, *values.shape[1:])


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    """Flush a file's or a folder's own data to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
