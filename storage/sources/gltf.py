"""glTF 2.0 containers: the JSON tree of a .glb or .gltf file and the arrays that its accessors describe.

trimesh's own reader is not used for this: it ignores sparse accessors, leaves normalised integers
unscaled, ignores texture samplers, texture transforms and all but the first texture coordinates, and drops
what it cannot read without a word. Here whatever cannot be read raises InputError.
"""

import base64
import contextlib
import json
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError
from storage.sources.glb_limits import USUAL_LIMITS, GlbLimits

_DTYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_LARGEST = {5120: 127.0, 5121: 255.0, 5122: 32767.0, 5123: 65535.0}  # what stands for one
_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_JSON_CHUNK = 0x4E4F534A
_BINARY_CHUNK = 0x004E4942
_MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")  # no maintained decoder has wheels


@dataclass(frozen=True)
class Gltf:
    """A glTF file: its JSON tree, and the binary data that the tree points into."""

    path: Path
    tree: dict[str, Any]
    binary: bytes  # the .glb's own chunk; empty in a .gltf
    limits: GlbLimits = USUAL_LIMITS
    started: float = field(default_factory=time.monotonic)  # seconds
    _buffers: dict[int, bytes] = field(default_factory=dict)

    def buffer(self, index: int) -> bytes:
        """Return the bytes of a buffer, at least as long as the tree says."""
        if index not in self._buffers:
            buffer = self.tree["buffers"][index]
            own = self.binary if index == 0 else b""  # only the first may be the .glb's chunk
            data = self.read_uri(buffer["uri"]) if "uri" in buffer else own
            if len(data) < buffer["byteLength"]:
                found, wanted = f"{len(data)} bytes", f"{buffer['byteLength']}"
                raise InputError.mismatch(
                    self.path, f"buffers[{index}]", found=found, wanted=wanted, code="truncated"
                )
            self._buffers[index] = data
        return self._buffers[index]

    def view(self, index: int) -> bytes:
        """Return the bytes of a buffer view."""
        self.check_time()
        view = self.tree["bufferViews"][index]
        needed = [name for name in _MESHOPT if name in view.get("extensions", {})]
        if needed and "uri" not in self.tree["buffers"][view["buffer"]]:  # no uncompressed copy
            raise InputError(
                f"{self.path}: bufferViews[{index}] needs {needed[0]}", code="unsupported-extension"
            )
        start = view.get("byteOffset", 0)
        stop = start + view["byteLength"]
        data = self.buffer(view["buffer"])
        if not 0 <= start <= stop <= len(data):
            found, wanted = f"bytes {start} to {stop}", f"within {len(data)}"
            raise InputError.mismatch(
                self.path, f"bufferViews[{index}]", found=found, wanted=wanted, code="accessor-range"
            )
        return data[start:stop]

    def count(self, index: int) -> int:
        """Return how many items an accessor has."""
        count = int(self.tree["accessors"][index]["count"])
        if count < 0:
            raise InputError(f"{self.path}: accessors[{index}] has {count} items", code="accessor-range")
        self.check_limit("triangles", count // 3)
        return count

    def accessor(self, index: int) -> NDArray[Any]:
        """Return an accessor's values [count, columns]; normalised integers come as float64 in [-1, 1]."""
        accessor = self.tree["accessors"][index]
        dtype = np.dtype(_DTYPES[accessor["componentType"]]).newbyteorder("<")
        count, columns = self.count(index), _COLUMNS[accessor["type"]]
        if "bufferView" in accessor:
            values = self._items(accessor, count, columns, dtype)
        else:  # all zeros, for sparse values to fill
            values = np.zeros((count, columns), dtype)
        if sparse := accessor.get("sparse"):
            index_dtype = np.dtype(_DTYPES[sparse["indices"]["componentType"]]).newbyteorder("<")
            rows = self._items(sparse["indices"], sparse["count"], 1, index_dtype)[:, 0]
            values = values.copy()
            values[rows] = self._items(sparse["values"], sparse["count"], columns, dtype)
        return self.unpacked(values, accessor)

    def unpacked(self, values: NDArray[Any], accessor: dict[str, Any]) -> NDArray[Any]:
        """Return stored values as numbers: those of a normalised accessor as float64 in [-1, 1]."""
        if accessor.get("normalized"):
            return np.maximum(values / _LARGEST[accessor["componentType"]], -1.0)
        return values

    def _items(self, block: dict[str, Any], count: int, columns: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the [count, columns] items that start at `block`'s offset in its buffer view."""
        data = self.view(block["bufferView"])
        item = columns * dtype.itemsize
        stride = self.tree["bufferViews"][block["bufferView"]].get("byteStride") or item
        offset = block.get("byteOffset", 0)
        stop = offset + (count - 1) * stride + item
        if count and (offset < 0 or stride < 0 or stop > len(data)):
            raise InputError(
                f"{self.path}: {count} items end at byte {stop} of a buffer view of {len(data)}",
                code="accessor-range",
            )
        return np.ndarray(
            (count, columns), dtype, buffer=data, offset=offset, strides=(stride, dtype.itemsize)
        )

    def read_uri(self, uri: str) -> bytes:
        """Return the bytes behind a data: URI, or of a file in the asset's own folder."""
        if uri.startswith("data:"):
            head, _, payload = uri.partition(",")
            return base64.b64decode(payload) if head.endswith(";base64") else unquote_to_bytes(payload)
        path = self.external_path(uri)
        if not path.is_file():
            raise InputError(f"{self.path}: {uri}: no such file beside it", code="missing-file")
        return path.read_bytes()

    def check_limit(self, name: Literal["triangles", "parts"], found: int) -> None:
        """Raise InputError where there are more triangles or parts than there may be."""
        most = getattr(self.limits, name)
        if found > most:
            raise InputError.mismatch(
                self.path,
                name,
                found=found,
                wanted=f"at most {most} (limits.{name})",
                code=f"too-many-{name}",
            )

    def check_time(self) -> None:
        """Raise InputError once reading has taken longer than it may."""
        if time.monotonic() - self.started > self.limits.seconds:
            raise InputError(
                f"{self.path}: not read after {self.limits.seconds:g} s (limits.seconds)", code="too-slow"
            )

    def external_path(self, uri: str) -> Path:
        """Return the file that a relative URI names; it must not leave the asset's folder."""
        folder = self.path.parent.resolve()
        path = Path(os.path.realpath(folder / unquote(uri)))  # Path.resolve fails on a link to itself
        if "://" in uri or not path.is_relative_to(folder):
            raise InputError(f"{self.path}: {uri}: outside the asset's own folder", code="unsafe-uri")
        return path

    def external_files(self) -> list[Path]:
        """Return the files beside this one that it refers to."""
        items = [*self.tree.get("buffers", []), *self.tree.get("images", [])]
        uris = {item["uri"] for item in items if "uri" in item}
        return sorted(self.external_path(uri) for uri in uris if not uri.startswith("data:"))


@contextlib.contextmanager
def reporting_invalid(path: Path) -> Iterator[None]:
    """Turn what a malformed tree makes the reading code raise into InputError."""
    try:
        yield
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: invalid glTF: {reason}", code="invalid-gltf") from error


def open_gltf(path: Path, limits: GlbLimits = USUAL_LIMITS) -> Gltf:
    """Read a .glb or .gltf file's container; InputError says why where it is none, or too large a one."""
    try:
        _check_size(path, [path], limits)
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", code="missing-file") from error
    if not data:
        raise InputError(f"{path}: empty file", code="empty-file")
    text, binary = _split_glb(path, data) if data[:4] == b"glTF" else (data, b"")
    try:
        tree = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not glTF: {error}", code="not-gltf") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("asset"), dict):
        raise InputError(f"{path}: not glTF: no asset in its JSON", code="not-gltf")
    version = str(tree["asset"].get("version", ""))
    if version.partition(".")[0] != "2":
        raise InputError.mismatch(path, "asset.version", found=version, wanted="2.x", code="gltf-version")
    gltf = Gltf(path, tree, binary, limits)
    with reporting_invalid(path):
        _check_size(path, [path, *filter(Path.is_file, gltf.external_files())], limits)
    return gltf


def _check_size(path: Path, files: list[Path], limits: GlbLimits) -> None:
    mebibytes = sum(file.stat().st_size for file in files) / 2**20
    if mebibytes > limits.mebibytes:
        found, wanted = f"{mebibytes:.6g} MiB", f"at most {limits.mebibytes:g} (limits.mebibytes)"
        raise InputError.mismatch(path, "size", found=found, wanted=wanted, code="too-large")


def _refuse_constant(name: str) -> float:
    """Refuse NaN and Infinity, which Python's reader knows and JSON does not."""
    raise ValueError(f"{name} is no JSON")


def _split_glb(path: Path, data: bytes) -> tuple[bytes, bytes]:
    """Return the JSON chunk and the binary chunk (empty where there is none) of a .glb file."""
    if len(data) < 20:
        raise InputError(f"{path}: {len(data)} bytes, shorter than a header", code="truncated")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise InputError.mismatch(path, "version", found=version, wanted=2, code="gltf-version")
    if length > len(data):
        raise InputError.mismatch(
            path, "length", found=f"{len(data)} bytes", wanted=f"{length}", code="truncated"
        )
    chunks: dict[int, bytes] = {}
    start = 12
    while start + 8 <= length:
        size, kind = struct.unpack_from("<II", data, start)
        start += 8
        if start + size > length:
            raise InputError(
                f"{path}: a chunk of {size} bytes at {start} ends past {length}", code="truncated"
            )
        chunks.setdefault(kind, data[start : start + size])
        start += size
    if _JSON_CHUNK not in chunks:
        raise InputError(f"{path}: no JSON chunk", code="not-gltf")
    return chunks[_JSON_CHUNK], chunks.get(_BINARY_CHUNK, b"")
