"""Configs: YAML and overrides become frozen models; every mistake names its key."""

import pickle
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pydantic import BaseModel, Field

from storage.config import load_config, save_config
from storage.digests import digest_arrays, digest_json, record_key
from storage.errors import InputError


class Inner(BaseModel, frozen=True, extra="forbid"):
    learning_rate: float = 1e-3
    steps: int = 10


class Disk(BaseModel, frozen=True, extra="forbid"):
    kind: Literal["disk"]
    size: int = 1


class Tape(BaseModel, frozen=True, extra="forbid"):
    kind: Literal["tape"]


class Outer(BaseModel, frozen=True, extra="forbid"):
    width: int = 8
    name: str = "a"
    inner: Inner = Inner()
    maybe: Inner | None = None
    names: tuple[str, ...] = ()
    place: Disk | Tape | None = Field(default=None, discriminator="kind")


def _write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def test_values_and_overrides_are_read(tmp_path: Path) -> None:
    path = _write(tmp_path, "width: 16\ninner:\n  steps: 3\n")
    config = load_config(Outer, path, ["inner.learning_rate=1e-4", "names=[a, b]", "maybe.steps=2"])
    assert config == Outer(
        width=16, inner=Inner(learning_rate=1e-4, steps=3), maybe=Inner(steps=2), names=("a", "b")
    )


def test_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_config(Outer, _write(tmp_path, "")) == Outer()


def test_override_fills_a_section_that_the_file_leaves_empty(tmp_path: Path) -> None:
    assert load_config(Outer, _write(tmp_path, "inner:\n"), ["inner.steps=4"]).inner.steps == 4


def test_saved_config_loads_equal(tmp_path: Path) -> None:
    config = Outer(width=3, names=("é", "b"), maybe=Inner(steps=5))
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(Outer, tmp_path / "saved.yaml") == config


@pytest.mark.parametrize(
    ("text", "overrides", "wanted"),
    [
        ("widht: 16", [], "x.yaml: unknown key 'widht' (did you mean 'width'?)"),
        ("inner: {stepz: 1}", [], "x.yaml: unknown key 'inner.stepz' (did you mean 'steps'?)"),
        ("maybe: {stepz: 1}", [], "x.yaml: unknown key 'maybe.stepz' (did you mean 'steps'?)"),
        ("zzz: 1", [], "x.yaml: unknown key 'zzz'"),
        ("width: wide", [], "x.yaml: 'width': found 'wide', wanted a valid integer"),
        ("width: yes", [], "x.yaml: 'width': found True, wanted a number"),
        ("", ["inner.steps=true"], "--set: 'inner.steps': found True, wanted a number"),
        ("place: {kind: disk, size: x}", [], "x.yaml: 'place.size': found 'x', wanted a valid integer"),
        ("place: {kind: disk}", ["place.size=x"], "--set: 'place.size': found 'x', wanted a valid integer"),
        ("place: {kind: disk, sise: 1}", [], "x.yaml: unknown key 'place.sise' (did you mean 'size'?)"),
        ("place: {size: 1}", [], "x.yaml: 'place': found {'size': 1}, wanted"),
        ("names: [a, {b: c}]", [], "x.yaml: 'names.1': found {'b': 'c'}, wanted a valid string"),
        ("inner: 3", [], "x.yaml: 'inner': found 3, wanted a valid dictionary or instance of Inner"),
        ("- 1", [], "x.yaml: found list, wanted keys and values"),
        ("a: [", [], "x.yaml: not YAML"),
        ("inner: {steps: 1, steps: 2}", [], "x.yaml: not YAML: key 'steps' is there twice"),
        ("", ["inner={steps: 1, steps: 2}"], "'{steps: 1, steps: 2}' is not YAML"),
        ("width: 2024-13-45", [], "x.yaml: not YAML: month must be"),
        ("width: " + "[" * 5000, [], "x.yaml: not YAML"),
        ("", ["width=2024-13-45"], "--set width=2024-13-45: '2024-13-45' is not YAML"),
        ("", ["widht=1"], "--set: unknown key 'widht' (did you mean 'width'?)"),
        ("", ["inner.steps=x"], "--set: 'inner.steps': found 'x', wanted a valid integer"),
        ("width: 1", ["width.a=1"], "--set width.a=1: 'width' holds a value, not keys"),
        ("", ["width"], "--set width: wanted key=value"),
        ("", ["=3"], "--set =3: wanted key=value"),
    ],
)
def test_mistakes_name_the_key(tmp_path: Path, text: str, overrides: list[str], wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        load_config(Outer, _write(tmp_path, text), overrides)
    assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code == "config"


@pytest.mark.parametrize("number", ["inf", "nan"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, number: str) -> None:
    wanted = f"inner.learning_rate: found {number}, wanted finite numbers"
    with pytest.raises(InputError, match=f"x.yaml: {wanted}") as caught:
        load_config(Outer, _write(tmp_path, f"inner: {{learning_rate: .{number}}}"))
    assert caught.value.code == "non-finite"
    with pytest.raises(InputError, match=f"^--set: {wanted}"):
        load_config(Outer, _write(tmp_path, ""), [f"inner.learning_rate=.{number}"])


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'inner\.steps'.*'widht'"):
        load_config(Outer, _write(tmp_path, "widht: 1\ninner: {steps: x}"))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: No such file"):
        load_config(Outer, tmp_path / "none.yaml")


def test_input_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(InputError.mismatch("a.yaml", "b", found=1, wanted=2, code="shape")))
    assert (str(error), error.code) == ("a.yaml: b: found 1, wanted 2", "shape")


def test_key_ignores_order_and_sees_every_part() -> None:
    key = record_key("layers", 1, {"a": "1", "b": "2"}, {"size": 8})
    assert key == record_key("layers", 1, {"b": "2", "a": "1"}, {"size": 8})
    changed = [
        record_key("frames", 1, {"a": "1", "b": "2"}, {"size": 8}),
        record_key("layers", 2, {"a": "1", "b": "2"}, {"size": 8}),
        record_key("layers", 1, {"a": "1", "b": "3"}, {"size": 8}),
        record_key("layers", 1, {"a": "1", "b": "2"}, {"size": 9}),
    ]
    assert len({key, *changed}) == 5


def test_json_digest_refuses_what_json_cannot_hold() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_json({"x": float("nan")})


def test_array_digest_sees_values_not_memory_order() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = digest_arrays({"a": array})
    assert same == digest_arrays({"a": np.asfortranarray(array)})
    assert same == digest_arrays({"a": array.astype(">f4")})
    assert same != digest_arrays({"a": array.reshape(3, 2)})
    assert same != digest_arrays({"b": array})
