"""A record's folder: one Zarr v3 group with a sha256 of its own files (docs/records.md describes every byte).

The same arrays and attributes always come out as the same bytes.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from storage.digests import digest_tree
from storage.errors import StoreError, one_line
from storage.recipe import Recipe

# zarrs is 2–4 times as fast as zarr-python's own pipeline. One thread, because several append the chunks of a
# shard in the order in which they finish, and a record would not come out as the same bytes twice.
zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1})

DIGEST_FILE = "content.sha256"
_LEAST_CHUNK_BYTES = 1 << 15
_ZSTD = ZstdCodec(level=3)
_ALL = slice(None)


@dataclass(frozen=True)
class Record:
    """One finished record; arrays are opened once and read when asked for."""

    path: Path
    group: zarr.Group
    _arrays: dict[str, zarr.Array[Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> "Record":
        """Open a record's folder; StoreError where it is damaged."""
        with _naming_damage(path):
            return cls(path, zarr.open_group(path, mode="r"))

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """Return an array, unread."""
        if name not in self._arrays:
            with _naming_damage(self.path):
                array = self.group[name]
            assert isinstance(array, zarr.Array)
            self._arrays[name] = array
        return self._arrays[name]

    def read(self, name: str, frames: slice = _ALL) -> NDArray[Any]:
        """Return an array, or some of its frames; StoreError where it is damaged."""
        array = self[name]
        with _naming_damage(self.path):
            return np.asarray(array[frames] if array.ndim else array[...])

    @property
    def attrs(self) -> dict[str, Any]:
        """Return the record's own attributes."""
        with _naming_damage(self.path):
            return dict(self.group.attrs["attrs"])  # type: ignore[arg-type]

    @property
    def recipe(self) -> Recipe:
        """Return what the record was made of."""
        with _naming_damage(self.path):
            return Recipe(**self.group.attrs["recipe"])  # type: ignore[arg-type]


def write_group(
    path: Path, recipe: Recipe, arrays: Mapping[str, NDArray[Any]], attrs: Mapping[str, Any]
) -> None:
    """Write a record's folder."""
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
    (path / DIGEST_FILE).write_text(digest_tree(path))


def defect(path: Path) -> str | None:
    """Read a record again and say what is not as it was written; None where nothing is."""
    try:
        if not (path / DIGEST_FILE).is_file():
            return f"{DIGEST_FILE} is missing"
        if digest_tree(path, skip=DIGEST_FILE) != (path / DIGEST_FILE).read_text():
            return "its bytes are not those that were written"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if Record.open(path).recipe.key != path.name:
        return "its key is not that of its recipe"
    return None


def _layout(values: NDArray[Any]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return chunks of one frame each (several where frames are small), and one shard around them all."""
    if values.ndim < 2 or values.nbytes <= _LEAST_CHUNK_BYTES:
        return values.shape, None
    frames = -(-_LEAST_CHUNK_BYTES // values[0].nbytes)
    num_chunks = -(-len(values) // frames)
    if num_chunks == 1:
        return values.shape, None
    return (frames, *values.shape[1:]), (num_chunks * frames, *values.shape[1:])


@contextlib.contextmanager
def _naming_damage(path: Path) -> Iterator[None]:
    """Turn what zarr says of missing or broken bytes into a StoreError that names the record."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:  # zarrs: RuntimeError
        kind, reason = path.parents[1].name, one_line(error)
        advice = "`manivideo store verify --drop` removes it, and the next build makes it again"
        raise StoreError(f"{path}: this {kind} record is damaged ({reason}): {advice}") from error
