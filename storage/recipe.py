"""What a record is made of: the inputs and settings that its key is computed from."""

import re
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

    def changes_from(self, other: "Recipe") -> list["Change"]:
        """Return what differs from another recipe, e.g. inputs.hands or config.layers.size, by name."""
        mine, others = _flatten(self), _flatten(other)
        names = sorted(mine.keys() | others.keys())
        return [
            Change(name, others.get(name), mine.get(name))
            for name in names
            if mine.get(name) != others.get(name)
        ]


@dataclass(frozen=True)
class Change:
    """One value in which a recipe differs from another; None: it has none."""

    name: str
    before: object
    after: object

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.before)} → {_shown(self.after)}"


def _shown(value: object) -> str:
    """Return a value for people: the first digits of a digest, "absent" for none."""
    if value is None:
        return "absent"
    return value[:8] if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else str(value)


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
