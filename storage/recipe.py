"""What a record is made of: the inputs and settings that its key is computed from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from storage.digests import record_key


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a record's content."""

    kind: str
    schema_version: int
    inputs: Mapping[str, str]  # name → sha256
    config: Mapping[str, Any]  # JSON values

    @cached_property
    def key(self) -> str:
        """Return the record's key."""
        return record_key(self.kind, self.schema_version, self.inputs, self.config)

    def changes_from(self, other: "Recipe") -> list[str]:
        """Name what differs from another recipe, e.g. ["inputs.hands", "config.layers.size"]."""
        mine, others = _flatten(self), _flatten(other)
        names = sorted(mine.keys() | others.keys())
        return [name for name in names if mine.get(name) != others.get(name)]


def _flatten(recipe: Recipe) -> dict[str, object]:
    """Return a recipe's values by dotted name."""
    leaves: dict[str, object] = {}
    pending: list[tuple[str, object]] = [
        ("schema_version", recipe.schema_version),
        ("inputs", recipe.inputs),
        ("config", recipe.config),
    ]
    while pending:
        name, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [(f"{name}.{key}", inner) for key, inner in value.items()]
        else:
            leaves[name] = value
    return leaves
