"""Named groups of arrays in .npz files, checked against the shapes that they should have.

Every group has an array `valid` [T]; what the others hold where it is false means nothing.
"""

import difflib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import InputError

Shapes = Mapping[str, tuple[int | str, ...]]  # array name → sizes; T stands for the number of frames


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of an .npz file; one that holds pickled objects is refused, and nothing in it runs."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # zip and each way of packing its members have errors of their own
        raise InputError(f"{path}: not an .npz of plain arrays: {error}", code="npz") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # a member that is no .npy comes as bytes
            raise InputError(f"{path}: '{name}' is no array", code="npz")
    return arrays


def wanted_array(
    path: Path, arrays: Mapping[str, NDArray[Any]], key: str, shape: tuple[int | str, ...]
) -> NDArray[Any]:
    """Return an array of numbers that must be there in a shape, in which letters stand for any size."""
    if key not in arrays:
        raise InputError(f"{path}: missing key '{key}'", code="missing-key")
    array = arrays[key]
    fits = array.ndim == len(shape) and all(
        isinstance(size, str) or size == found for size, found in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiub":
        found, wanted = f"{array.dtype} {array.shape}", f"({', '.join(map(str, shape))})"
        raise InputError.mismatch(path, key, found=found, wanted=wanted, code="shape")
    return array


class ArrayFile:
    """An .npz file whose arrays are named {group}_{name}; a missing file is one without groups."""

    def __init__(self, path: Path, groups: Sequence[str], shapes: Shapes) -> None:
        self.path, self.shapes = path, shapes
        self.known = [f"{group}_{name}" for group in groups for name in shapes]

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return every array of the file; a name that does not belong there is an error."""
        if not self.path.exists():
            return {}
        arrays = read_arrays(self.path)
        for name in arrays:
            if name not in self.known:
                near = difflib.get_close_matches(name, self.known, n=1)
                suggestion = f" (did you mean '{near[0]}'?)" if near else ""
                raise InputError(f"{self.path}: unknown key '{name}'{suggestion}", code="unknown-key")
        return arrays

    def has(self, group: str) -> bool:
        """Tell whether the file has any array of a group."""
        return any(f"{group}_{name}" in self.arrays for name in self.shapes)

    def part(self, group: str) -> dict[str, NDArray[Any]]:
        """Return a group's arrays by name: all there, of the right shapes, float32 where valid."""
        part: dict[str, NDArray[Any]] = {}
        sizes: dict[str, int] = {}
        for name, shape in self.shapes.items():
            key = f"{group}_{name}"
            if key not in self.arrays:
                raise InputError(f"{self.path}: missing key '{key}'", code="missing-key")
            array = self.arrays[key]
            wanted = tuple(
                size if isinstance(size, int) else sizes.setdefault(size, found)
                for size, found in zip(shape, array.shape, strict=False)
            )
            if array.shape != wanted or array.ndim != len(shape) or array.dtype.kind not in "fiub":
                shown = ", ".join(str(sizes.get(str(size), size)) for size in shape)
                found = f"{array.dtype} {array.shape}"
                raise InputError.mismatch(
                    self.path, key, found=found, wanted=f"numbers ({shown})", code="shape"
                )
            part[name] = array
        self._check_finite(group, part)
        return part

    def _check_finite(self, group: str, part: dict[str, NDArray[Any]]) -> None:
        valid = part["valid"].astype(np.bool_)
        for name, array in part.items():
            rows = array[valid] if self.shapes[name][0] == "T" else array
            if not (np.abs(rows.astype(np.float64)) <= np.finfo(np.float32).max).all():
                raise InputError(
                    f"{self.path}: {group}_{name}: not finite where {group}_valid is true", code="non-finite"
                )
