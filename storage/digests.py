"""SHA-256 digests of inputs, and the record keys made from them.

A key covers the record's kind and schema version, the digests of the inputs it depends on and the config
values that change it: canonical JSON of the four, hashed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest_bytes(data: bytes) -> str:
    """Return the sha256 of bytes, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(folder: Path, *, skip: str = "") -> str:
    """Return the sha256 of every file's relative name and bytes under a folder, but for the file `skip`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / skip)
    return digest_json({path.relative_to(folder).as_posix(): digest_file(path) for path in files})


def digest_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the sha256 of named arrays: names, dtypes, shapes and values (independent of memory order)."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        little_endian = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        total.update(f"{name} {little_endian.dtype.str} {array.shape}\n".encode())
        total.update(little_endian.tobytes())
    return total.hexdigest()


def digest_json(value: object) -> str:
    """Return the sha256 of a value's canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return digest_bytes(text.encode())


def record_key(
    kind: str, schema_version: int, inputs: Mapping[str, str], config: Mapping[str, object]
) -> str:
    """Return the key of the record that `inputs` (name → digest) and `config` (JSON values) determine."""
    return digest_json(
        {"kind": kind, "schema_version": schema_version, "inputs": dict(inputs), "config": dict(config)}
    )
