"""Pickles read without running any code from them.

An unpickler that knows an exact list of names; every other name, and so every way to run code, is refused
before it is looked up.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from storage.errors import InputError

_RECONSTRUCT = np.empty(0).__reduce__()[0]
# What a pickle of plain containers and numpy arrays refers to, by any version of numpy.
ARRAY_NAMES: Mapping[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
# What a damaged pickle raises depends on where the damage is.
DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class ListedUnpickler(pickle.Unpickler):
    """An unpickler of the names in `allowed` alone; InputError ("unsafe-pickle") at any other."""

    def __init__(
        self, file: IO[bytes], allowed: Mapping[tuple[str, str], Any], encoding: str = "ASCII"
    ) -> None:
        super().__init__(file, encoding=encoding)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name on the list stands for."""
        if (module, name) not in self._allowed:
            raise InputError(f"refers to {module}.{name}, which no such file needs", code="unsafe-pickle")
        return self._allowed[module, name]


def read_pickled_npy(path: Path) -> Any:
    """Return the one object of containers and arrays that an .npy file holds.

    Raises InputError: "missing-file", "unsafe-pickle" or "npy".
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"version {version}")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if shape != () or not dtype.hasobject:
                raise ValueError(f"{dtype} {shape}, wanted one object")
            return ListedUnpickler(file, ARRAY_NAMES).load().item()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", code="missing-file") from error
    except InputError as error:
        raise InputError(f"{path}: {error}", code=error.code) from error
    except (OSError, *DAMAGE) as error:
        raise InputError(f"{path}: not an .npy of arrays by name: {error!r}", code="npy") from error
