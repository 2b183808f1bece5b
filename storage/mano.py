"""The licensed MANO hand model: reads the official pickles without running any code from them.

The files were written by Python 2 with chumpy objects inside.  An unpickler that knows an exact list of names
takes the arrays out; every other name, and so every way to run code, is refused before it is looked up.
Letters: V = 778 vertices, F = 1538 faces, J = 16 joints.  Metres.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from render.hands.anatomy import PARENTS
from render.scene import SIDES
from storage.errors import InputError
from storage.pickles import ARRAY_NAMES, DAMAGE, ListedUnpickler

SHAPES: dict[str, tuple[int, ...]] = {
    "v_template": (778, 3),
    "shapedirs": (778, 3, 10),
    "posedirs": (778, 3, 135),
    "J_regressor": (16, 778),
    "weights": (778, 16),
    "f": (1538, 3),
    "kintree_table": (2, 16),
    "hands_components": (45, 45),
    "hands_mean": (45,),
}
INTEGERS = {"f": np.uint32, "kintree_table": np.int64}


class _State(ABC):
    """Stands in for a pickled object: it only keeps what was stored."""

    state: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    @abstractmethod
    def array(self) -> NDArray:
        """The array that the object was."""


class _Ch(_State):
    """chumpy.ch.Ch: an array under "x"."""

    def array(self) -> NDArray:
        return np.asarray(self.state["x"])


class _Select(_State):
    """chumpy.reordering.Select: some elements of another array, in a shape."""

    def array(self) -> NDArray:
        return _array(self.state["a"]).ravel()[self.state["idxs"]].reshape(self.state["preferred_shape"])


class _Csc(_State):
    """scipy.sparse.csc_matrix, of any version."""

    def array(self) -> NDArray:
        columns = (self.state["data"], self.state["indices"], self.state["indptr"])
        return csc_array(columns, shape=self.state["_shape"]).toarray()


# All that an official file, or one that a newer numpy or scipy wrote again, refers to.
_ALLOWED: dict[tuple[str, str], Any] = {
    **ARRAY_NAMES,
    ("__builtin__", "set"): set,
    ("builtins", "set"): set,
    ("chumpy.ch", "Ch"): _Ch,
    ("chumpy.reordering", "Select"): _Select,
    ("scipy.sparse.csc", "csc_matrix"): _Csc,
    ("scipy.sparse._csc", "csc_matrix"): _Csc,
}


def read_mano_folder(folder: Path, *, fix_left_shapedirs: bool = True) -> dict[str, dict[str, NDArray]]:
    """Both hands by side from MANO_LEFT.pkl and MANO_RIGHT.pkl: the arrays of SHAPES, and J [16, 3].

    The published left hand's shape directions have the right hand's sign in x.  `fix_left_shapedirs` turns
    it; annotations that were fitted with the published file (DexYCB's) need it left as it is.

    Raises InputError: "mano-missing" (file or key), "mano-unsafe", "mano-corrupt", "mano-shape" or
    "mano-values".
    """
    hands: dict[str, dict[str, NDArray]] = {
        side: read_mano(Path(folder) / f"MANO_{side.upper()}.pkl") for side in SIDES
    }
    left, right = (hands[side]["shapedirs"][:, 0] for side in SIDES)
    if fix_left_shapedirs and np.abs(left - right).sum() < np.abs(left + right).sum():
        left *= -1
    return hands


def read_mano(path: Path) -> dict[str, NDArray]:
    """One hand's arrays as its file has them."""
    content = _unpickle(path)
    missing = sorted(SHAPES.keys() - content.keys())
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)}", code="mano-missing")
    try:
        hand = {key: _array(content[key]) for key in SHAPES}
    except DAMAGE as error:
        raise InputError(
            f"{path}: an array cannot be put together: {error!r}", code="mano-corrupt"
        ) from error
    for key, shape in SHAPES.items():
        if hand[key].shape != shape:
            raise InputError.mismatch(path, key, found=hand[key].shape, wanted=shape, code="mano-shape")
        if hand[key].dtype.kind not in "iuf" or not np.isfinite(hand[key]).all():
            raise InputError(f"{path}: {key}: not all finite numbers", code="mano-values")
        hand[key] = np.array(hand[key], INTEGERS.get(key, np.float64))
    _check_indices(path, hand)
    hand["J"] = hand["J_regressor"] @ hand["v_template"]
    return hand


def _unpickle(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file", code="mano-missing")
    try:
        with path.open("rb") as file:
            content = ListedUnpickler(file, _ALLOWED, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path}: {error}", code="mano-unsafe") from error
    except DAMAGE as error:
        raise InputError(f"{path}: not a readable pickle: {error!r}", code="mano-corrupt") from error
    if not isinstance(content, dict):
        raise InputError.mismatch(
            path, "content", found=type(content).__name__, wanted="dict", code="mano-corrupt"
        )
    return content


def _array(value: Any) -> NDArray:
    return value.array() if isinstance(value, _State) else np.asarray(value)


def _check_indices(path: Path, hand: dict[str, NDArray]) -> None:
    """Faces must name vertices, and the joints must be MANO's: the layers depend on their order."""
    if hand["f"].max() >= len(hand["v_template"]):
        raise InputError.mismatch(
            path, "f", found=hand["f"].max(), wanted="vertices 0 to 777", code="mano-values"
        )
    parents = tuple(hand["kintree_table"][0, 1:].tolist())
    if parents != PARENTS[1:]:
        raise InputError.mismatch(
            path, "kintree_table", found=parents, wanted=PARENTS[1:], code="mano-values"
        )
