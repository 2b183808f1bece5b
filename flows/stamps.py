"""Stamps: a small JSON file beside a result that says what it was made from, so that it is made once.

A stamp is removed before its result is overwritten, and written last, so a result without one was
interrupted and is made again.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.durable import write_text


def changes(stamp: Path, inputs: Mapping[str, Any]) -> list[str]:
    """Return the names of the inputs that differ from the stamp's; empty: the result is current."""
    try:
        made_from = json.loads(stamp.read_text())
    except (FileNotFoundError, ValueError):  # none, or cut short
        return sorted(inputs)
    return sorted(
        name for name in made_from.keys() | inputs.keys() if made_from.get(name) != _plain(inputs.get(name))
    )


def remove_stamp(stamp: Path) -> None:
    """Take back what the stamp says of the result beside it, which is about to be overwritten."""
    stamp.unlink(missing_ok=True)


def write_stamp(stamp: Path, inputs: Mapping[str, Any]) -> None:
    """Say what the result beside `stamp` was made from (JSON values)."""
    write_text(stamp, json.dumps(inputs, indent=2, sort_keys=True) + "\n")


def amend_stamp(stamp: Path, inputs: Mapping[str, Any]) -> None:
    """Say that of what the result beside `stamp` was made from some has changed; nothing where none is."""
    try:
        made_from = json.loads(stamp.read_text())
    except (FileNotFoundError, ValueError):
        return
    if made_from != (amended := made_from | _plain(inputs)):
        write_stamp(stamp, amended)


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples are lists."""
    return json.loads(json.dumps(value))
