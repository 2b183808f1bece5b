"""Reading public weights strictly: what is missing, left over, of another shape or setting is an error.

Every error is an InputError with code "weights" that lists all of what does not fit.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import ModelMixin
from safetensors.torch import load_file
from torch import Tensor

from storage.errors import InputError, one_line

Model = TypeVar("Model", bound=ModelMixin)


def read_model(
    kind: type[Model], source: str, subfolder: str | None, like: ModelMixin | None
) -> dict[str, Tensor]:
    """Weights in diffusers' layout, current names; they must be all that `kind` has, configured as `like`."""
    where = f"{source}/{subfolder}" if subfolder else source
    try:
        model, info = kind.from_pretrained(source, subfolder=subfolder, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable(where, error) from error
    check_complete(where, info)
    if like is not None:
        check_configs(where, dict(model.config), dict(like.config))
    return model.state_dict()


def check_complete(where: str, info: Mapping[str, Iterable[str]]) -> None:
    """Raise InputError that lists what `from_pretrained` says is missing or unexpected."""
    # Position numbers are computed; transformers before version 4.31 saved them.
    unexpected = [name for name in info["unexpected_keys"] if not name.endswith(".position_ids")]
    if problems := _listed(missing=info["missing_keys"], unexpected=unexpected):
        raise InputError(f"{where}: {problems}", code="weights")


def read_file(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise unreadable(str(path), error) from error


def read_config(kind: type[ModelMixin], source: str) -> dict[str, Any]:
    try:
        return dict(kind.load_config(source))
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from error


def check_names(source: str, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise InputError that lists what is missing, unexpected or of another shape."""
    other_shape = [
        f"{name} {list(given[name].shape)}, wanted {list(wanted[name].shape)}"
        for name in given.keys() & wanted.keys()
        if given[name].shape != wanted[name].shape
    ]
    problems = _listed(
        missing=wanted.keys() - given.keys(), unexpected=given.keys() - wanted.keys(), found=other_shape
    )
    if problems:
        raise InputError(f"{source}: {problems}", code="weights")


def check_configs(where: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise InputError that lists every setting that differs; picture size and private ones do not count."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    different = [
        f"{key}: found {plain(found[key])}, wanted {plain(wanted[key])}"
        for key in sorted(found.keys() & wanted.keys())
        if not key.startswith("_") and key != "sample_size" and plain(found[key]) != plain(wanted[key])
    ]
    if different:
        raise InputError(f"{where}: {'; '.join(different)}", code="weights")


def unreadable(where: str, error: Exception) -> InputError:
    return InputError(f"{where}: no weights could be read: {one_line(error)}", code="weights")


def _listed(**problems: Iterable[str]) -> str:
    return "; ".join(f"{kind} {', '.join(sorted(names))}" for kind, names in problems.items() if names)
