"""A record's files: one Zarr v3 group with a sha256 of its own files (docs/records.md describes every byte).

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
from obstore.exceptions import BaseError
from zarr.abc.codec import CodecPipeline
from zarr.abc.store import Store
from zarr.codecs import ZstdCodec
from zarr.core.metadata import ArrayMetadata
from zarr.registry import fully_qualified_name, register_pipeline
from zarr.storage import LocalStore, StorePath
from zarrs import ZarrsCodecPipeline

from storage.backend import DIGEST_FILE
from storage.digests import digest_tree
from storage.errors import StoreError, one_line
from storage.recipe import Recipe
from storage.s3 import in_short

_LEAST_CHUNK_BYTES = 1 << 15
_FRAMES = 4  # of a chunk: video takes half the bytes of single ones, and a frame is still read in 1 ms
_ZSTD = ZstdCodec(level=3)
_WINDOW_BYTES = 1 << 21  # of zstd at that level
_ALL = slice(None)


class RecordPipeline(ZarrsCodecPipeline):
    """zarrs for files, 2–4 times as fast as zarr-python's own pipeline, and that for objects in a bucket."""

    @classmethod
    def from_array_metadata_and_store(cls, array_metadata: ArrayMetadata, store: Store) -> CodecPipeline:
        """Return the pipeline of an array; Zarr takes its own where this is not implemented."""
        if not isinstance(store, LocalStore):
            raise NotImplementedError
        return super().from_array_metadata_and_store(array_metadata, store)


register_pipeline(RecordPipeline)
# One thread, because several append the chunks of a shard in the order in which they finish, and a record
# would not come out as the same bytes twice.
zarr.config.set({"codec_pipeline.path": fully_qualified_name(RecordPipeline), "threading.max_workers": 1})


@dataclass(frozen=True)
class Record:
    """One finished record; arrays are opened once and read when asked for."""

    place: str  # what messages call it
    kind: str
    group: zarr.Group
    _arrays: dict[str, zarr.Array[Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, place: str, kind: str, found: Path | StorePath) -> "Record":
        """Open a record's group where it was found; StoreError where it is damaged."""
        with _naming_damage(place, kind):
            return cls(place, kind, zarr.open_group(found, mode="r", zarr_format=3, use_consolidated=False))

    def __getitem__(self, name: str) -> zarr.Array[Any]:
        """Return an array, unread."""
        if name not in self._arrays:
            with _naming_damage(self.place, self.kind):
                array = self.group[name]
            assert isinstance(array, zarr.Array)
            self._arrays[name] = array
        return self._arrays[name]

    def read(self, name: str, frames: slice = _ALL) -> NDArray[Any]:
        """Return an array, or some of its frames; StoreError where it is damaged."""
        array = self[name]
        with _naming_damage(self.place, self.kind):
            return np.asarray(array[frames] if array.ndim else array[...])

    @property
    def attrs(self) -> dict[str, Any]:
        """Return the record's own attributes."""
        with _naming_damage(self.place, self.kind):
            return dict(self.group.attrs["attrs"])  # type: ignore[arg-type]

    @property
    def recipe(self) -> Recipe:
        """Return what the record was made of."""
        with _naming_damage(self.place, self.kind):
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


def _layout(values: NDArray[Any]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Return chunks of a few frames each, and one shard around them all.

    zstd finds what a frame has in common with the one before within a chunk, where both fit its window.
    """
    if values.ndim < 2 or values.nbytes <= _LEAST_CHUNK_BYTES:
        return values.shape, None
    frame_bytes = values[0].nbytes
    frames = max(-(-_LEAST_CHUNK_BYTES // frame_bytes), _FRAMES if frame_bytes <= _WINDOW_BYTES // 2 else 1)
    num_chunks = -(-len(values) // frames)
    if num_chunks == 1:
        return values.shape, None
    return (frames, *values.shape[1:]), (num_chunks * frames, *values.shape[1:])


@contextlib.contextmanager
def _naming_damage(place: str, kind: str) -> Iterator[None]:
    """Turn what zarr says of missing or broken bytes into a StoreError that names the record."""
    try:
        yield
    except BaseError as error:
        raise StoreError(f"{place}: this {kind} record cannot be reached ({in_short(error)})") from error
    except (OSError, RuntimeError, ValueError, LookupError, TypeError) as error:  # zarrs: RuntimeError
        advice = "`manivideo store verify --drop` removes it, and the next build makes it again"
        raise StoreError(f"{place}: this {kind} record is damaged ({one_line(error)}): {advice}") from error
