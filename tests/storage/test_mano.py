"""MANO's licensed files: both forms of their pickles are read, and no pickle can run code."""

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from render.hands.procedural import build_hand
from storage.errors import InputError
from storage.mano import SHAPES, read_mano, read_mano_folder


class Ch:
    """A pickled chumpy.ch.Ch."""

    def __init__(self, x: NDArray) -> None:
        self.x = x
        self._dirty_vars: set[str] = set()


class Select:
    """A pickled chumpy.reordering.Select."""

    def __init__(self, a: Ch, idxs: NDArray, preferred_shape: tuple[int, ...]) -> None:
        self.a, self.idxs, self.preferred_shape = a, idxs, preferred_shape


PYTHON2_NAMES = {
    Ch: b"cchumpy.ch\nCh\n",
    Select: b"cchumpy.reordering\nSelect\n",
    csc_matrix: b"cscipy.sparse.csc\ncsc_matrix\n",
    set: b"c__builtin__\nset\n",
    np.empty(0).__reduce__()[0]: b"cnumpy.core.multiarray\n_reconstruct\n",
}


class Python2Pickler(pickle._Pickler):
    """Writes as Python 2's protocol 2 does: byte strings everywhere, and the old modules' names."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes | str) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        if value not in PYTHON2_NAMES:
            return super().save_global(value, name)
        self.write(PYTHON2_NAMES[value])
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_bytes
    dispatch[type] = save_global
    dispatch[type(len)] = save_global


def python2_pickle(content: Any) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(content)
    return buffer.getvalue()


def plain_files(folder: Path) -> Path:
    for side in ("left", "right"):
        (folder / f"MANO_{side.upper()}.pkl").write_bytes(pickle.dumps(build_hand(side), protocol=4))
    return folder


def official_content(side: str) -> dict[str, Any]:
    """What the official file of that side holds, around the procedural hand's numbers."""
    hand: dict[str, Any] = dict(build_hand(side))
    wide = np.concatenate(
        [hand["shapedirs"], np.ones((778, 3, 2))], axis=2
    )  # of more components, the first ten
    first = np.arange(wide.size).reshape(wide.shape)[:, :, :10].ravel()
    hand["shapedirs"] = Select(Ch(wide), first, (778, 3, 10))
    hand["J_regressor"] = csc_matrix(hand["J_regressor"])
    hand["kintree_table"] = hand["kintree_table"].astype(np.uint32)
    return hand | {"bs_style": "lbs", "bs_type": "lrotmin", "hands_coeffs": np.zeros((1554, 45))}


def test_plain_pickles_are_read(tmp_path: Path) -> None:
    hands = read_mano_folder(plain_files(tmp_path))
    for side, hand in hands.items():
        for key, value in build_hand(side).items():
            np.testing.assert_allclose(hand[key], value, atol=1e-15)


def test_official_form_is_read(tmp_path: Path) -> None:
    content = python2_pickle(official_content("right"))
    for name in (
        b"chumpy.ch\nCh",
        b"chumpy.reordering\nSelect",
        b"scipy.sparse.csc\ncsc",
        b"__builtin__\nset",
    ):
        assert name in content
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(content)
    hand = read_mano(path)
    for key, value in build_hand("right").items():
        np.testing.assert_allclose(hand[key], value, atol=1e-15)
        assert isinstance(hand[key], np.ndarray)


class Runs:
    """Runs a command when an ordinary unpickler reads it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "call", [(os.system, "touch {}"), (eval, "open({!r}, 'w').close()"), (os.mkdir, "{}")]
)
def test_a_pickle_cannot_run_code(tmp_path: Path, call: tuple[Any, str]) -> None:
    trace = tmp_path / "trace"
    function, argument = call
    content = pickle.dumps(build_hand("right") | {"extra": Runs(function, argument.format(str(trace)))})
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"MANO_RIGHT\.pkl: refers to") as error:
        read_mano(path)
    assert error.value.code == "mano-unsafe"
    assert not trace.exists()
    pickle.loads(content)
    assert trace.exists()  # so the pickle was indeed live


@pytest.mark.parametrize(
    "module", ["builtins\ngetattr", "numpy\nload", "scipy.sparse\nload_npz", "chumpy.ch\nos.system"]
)
def test_names_off_the_list_are_refused(tmp_path: Path, module: str) -> None:
    path = tmp_path / "MANO_LEFT.pkl"
    path.write_bytes(b"c" + module.encode() + b"\n.")
    with pytest.raises(InputError) as error:
        read_mano(path)
    assert error.value.code == "mano-unsafe"


@pytest.mark.parametrize("key", sorted(SHAPES))
def test_a_missing_array_is_named(tmp_path: Path, key: str) -> None:
    hand = build_hand("right")
    del hand[key]
    with pytest.raises(InputError, match=f"no {key}") as error:
        read_mano(written(tmp_path, hand))
    assert error.value.code == "mano-missing"


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    hand = build_hand("right") | {"posedirs": np.zeros((778, 3, 9))}
    with pytest.raises(InputError, match=r"posedirs: found \(778, 3, 9\), wanted \(778, 3, 135\)") as error:
        read_mano(written(tmp_path, hand))
    assert error.value.code == "mano-shape"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("v_template", np.full((778, 3), np.nan)),
        ("weights", np.full((778, 16), None)),
        ("f", np.full((1538, 3), 778)),
        ("kintree_table", np.zeros((2, 16), int)),
    ],
)
def test_unusable_values_are_named(tmp_path: Path, key: str, value: NDArray) -> None:
    with pytest.raises(InputError, match=f"{key}: ") as error:
        read_mano(written(tmp_path, build_hand("right") | {key: value}))
    assert error.value.code == "mano-values"


@pytest.mark.parametrize("kept", [0, 1, 7, 1000, 200_000])
def test_a_truncated_file_is_corrupt(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(python2_pickle(official_content("right"))[:kept])
    with pytest.raises(InputError) as error:
        read_mano(path)
    assert error.value.code == "mano-corrupt"


@pytest.mark.parametrize("broken", [Select(Ch(np.zeros(3)), np.array([9]), (1,)), Ch.__new__(Ch), 3, "text"])
def test_an_array_that_cannot_be_put_together_is_an_input_error(tmp_path: Path, broken: Any) -> None:
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(python2_pickle(official_content("right") | {"shapedirs": broken}))
    with pytest.raises(InputError, match=r"array|shapedirs"):
        read_mano(path)


def test_something_else_than_a_dict_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted dict"):
        read_mano(written(tmp_path, [1, 2]))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"MANO_LEFT\.pkl: no such file"):
        read_mano_folder(tmp_path)


def test_published_left_shape_directions_are_turned_unless_asked_not_to(tmp_path: Path) -> None:
    plain_files(tmp_path)
    left, right = build_hand("left")["shapedirs"], build_hand("right")["shapedirs"]
    published = build_hand("left") | {"shapedirs": right}  # the right hand's sign in x
    (tmp_path / "MANO_LEFT.pkl").write_bytes(pickle.dumps(published))
    np.testing.assert_array_equal(read_mano_folder(tmp_path)["left"]["shapedirs"], left)
    kept = read_mano_folder(tmp_path, fix_left_shapedirs=False)["left"]["shapedirs"]
    np.testing.assert_array_equal(kept, right)


def test_correct_left_shape_directions_stay(tmp_path: Path) -> None:
    hands = read_mano_folder(plain_files(tmp_path))
    np.testing.assert_array_equal(hands["left"]["shapedirs"], build_hand("left")["shapedirs"])


def written(folder: Path, content: Any) -> Path:
    path = folder / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps(content))
    return path
