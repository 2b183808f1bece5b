"""Reading configs: YAML values, with overrides from the command line, into frozen pydantic models."""

import difflib
import json
import math
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, RootModel, ValidationError
from pydantic_core import ErrorDetails

from storage.durable import write_text
from storage.errors import InputError, one_line

Config = TypeVar("Config", bound=BaseModel)


def load_config(cls: type[Config], path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file into `cls`, after setting each `a.b=value` of `overrides`.

    Raises InputError (code "config") that names every offending key, with the nearest known key; "non-finite"
    for a number that is infinite or none.
    """
    values = read_yaml(path)
    for override in overrides:
        _apply(values, override)
    set_keys = [override.partition("=")[0].strip() for override in overrides]
    try:
        config = cls.model_validate(values)
    except ValidationError as error:
        problems = [_explain(cls, values, path, set_keys, details) for details in error.errors()]
        raise InputError("; ".join(problems), code="config") from None
    taken = config.model_dump()
    if switches := list(_switches(values, taken)):
        told = [
            f"{_where(path, set_keys, k)}: '{k}': found {found}, wanted a number" for k, found in switches
        ]
        raise InputError("; ".join(told), code="config")
    for key, found in _not_finite(taken):
        where = _where(path, set_keys, key)
        raise InputError.mismatch(where, key, found=found, wanted="finite numbers", code="non-finite")
    return config


def save_config(config: BaseModel, path: Path) -> None:
    """Write every value of a config, defaults included, as YAML that `load_config` reads back.

    A file that says so already is left alone.
    """
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    if path.is_file() and path.read_bytes() == text.encode():
        return
    write_text(path, text)


def with_absolute_paths(config: Config) -> Config:
    """Return a config that means the same files to a process that works in another folder."""

    def absolute(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return with_absolute_paths(value)
        return value.absolute() if isinstance(value, Path) else value

    return config.model_copy(
        update={name: absolute(getattr(config, name)) for name in type(config).model_fields}
    )


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which refuses a key that is there twice: the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found = set[tuple[str, str]]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in found:
                    twice = f"key {key.value!r} is there twice"
                    raise yaml.constructor.ConstructorError(problem=twice, problem_mark=key.start_mark)
                found.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a YAML file; InputError (code "config") where it is anything else."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="config") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of UTF-8, or a date's
        raise InputError(f"{path}: not YAML: {one_line(error)}", code="config") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: found {type(values).__name__}, wanted keys and values", code="config")
    return values


def read_json(path: Path) -> Any:
    """Read what was written as JSON; InputError (code "damaged") where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="damaged") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {one_line(error)}", code="damaged") from error


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one `a.b=value` in nested `values`; the value is parsed as YAML."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: wanted key=value", code="config")
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"--set {override}: {text!r} is not YAML", code="config") from error
    *parents, name = key.split(".")
    for parent in parents:
        if values.get(parent) is None:  # absent, or a section that the file leaves empty
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict):
            raise InputError(f"--set {override}: '{parent}' holds a value, not keys", code="config")
    values[name] = value


def _switches(given: Any, taken: Any, key: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each key that was given as yes or no and taken for a number, 1 or 0."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for name in given:
            yield from _switches(given[name], taken.get(name, given[name]), f"{key}.{name}".lstrip("."))
    elif isinstance(given, list) and isinstance(taken, list | tuple):
        for index, (one, other) in enumerate(zip(given, taken, strict=False)):
            yield from _switches(one, other, f"{key}.{index}")
    elif isinstance(given, bool) and not isinstance(taken, bool):
        yield key, given


def _not_finite(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each key whose number, or one of whose numbers, is infinite or none: bounds let them pass."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _not_finite(inner, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list | tuple):
        if any(True for inner in value for _ in _not_finite(inner, key)):
            yield key, value
    elif isinstance(value, float) and not math.isfinite(value):
        yield key, value


def _where(path: Path, set_keys: Sequence[str], key: str) -> str:
    """Say whether a key, a part of it, or what it is a part of came from `--set`, or all from the file."""
    of_set = any(f"{key}.".startswith(f"{k}.") or f"{k}.".startswith(f"{key}.") for k in set_keys)
    return "--set" if of_set else str(path)


def _explain(
    cls: type[BaseModel], values: Any, path: Path, set_keys: Sequence[str], details: ErrorDetails
) -> str:
    """Turn one pydantic error into: where, which key, what was found, what was wanted."""
    key = ".".join(_keys(details["loc"], values))
    where = _where(path, set_keys, key)
    if details["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(details["loc"][-1]), _field_names(cls, details["loc"]), n=1)
        suggestion = f" (did you mean '{near[0]}'?)" if near else ""
        return f"{where}: unknown key '{key}'{suggestion}"
    if details["type"] == "missing":
        return f"{where}: missing key '{key}'"
    wanted = details["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if not key:  # a check over several keys at once
        return f"{where}: {wanted}"
    if "wanted" in wanted:  # a check of our own, which says what it found
        return f"{where}: '{key}': {wanted}"
    return f"{where}: '{key}': found {details['input']!r}, wanted {wanted}"


def _keys(loc: tuple[int | str, ...], values: Any) -> Iterator[str]:
    """Yield the parts of an error's place that are keys of `values`: without the kinds of tagged sections."""
    for part in loc:
        section = values if isinstance(values, dict) else {}
        if part not in section and isinstance(part, str) and part in section.values():
            continue  # the section {kind: part, …}
        yield str(part)
        inside_list = isinstance(values, list) and isinstance(part, int) and part < len(values)
        values = values[part] if inside_list else section.get(part)


def _field_names(cls: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the model that the last part of `loc` was looked up in."""
    models = _models_in(cls)
    for part in loc[:-1]:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [model for field in fields for model in _models_in(field.annotation)] or models
    return [name for model in models for name in model.model_fields]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the pydantic models named anywhere in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, RootModel):
        return _models_in(annotation.model_fields["root"].annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
