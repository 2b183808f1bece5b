"""What a build or an ingest came to: records, rows of the manifest, inputs set aside."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import InputError, StoreError
from storage.manifest import ClipRow, Quarantined
from storage.recipe import Recipe
from storage.store import Store


@dataclass(frozen=True)
class Planned:
    """A record that an input needs."""

    input: str
    kind: str
    key: str
    reason: str  # why it has to be built; empty: it is there


@dataclass(frozen=True)
class Outcome:
    """The outcome of one input, or of many added up."""

    rows: tuple[ClipRow, ...] = ()
    planned: tuple[Planned, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    paths: tuple[str, ...] = ()  # of the sessions that were looked at

    @property
    def missing(self) -> list[Planned]:
        """The records that were not there; one that several inputs share counts once."""
        return list({plan.key: plan for plan in self.planned if plan.reason}.values())

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """Count the records that were missing and those that were there, by kind."""
        missing = {(plan.kind, plan.key) for plan in self.missing}
        there = {(plan.kind, plan.key) for plan in self.planned} - missing
        return Counter(kind for kind, _ in missing), Counter(kind for kind, _ in there)

    def summary(self) -> str:
        """Say in a few words what was done."""
        missing, there = self.counts()
        words = f"{missing.total()} records built, {there.total()} there already, {len(self.rows)} clips"
        return words + (f", {len(self.quarantined)} inputs quarantined" if self.quarantined else "")

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Return what `--json` prints."""
        built, cached = self.counts()
        entries = sorted(self.quarantined, key=lambda entry: entry.input)
        shown = [{"input": entry.input, "code": entry.code, "reason": entry.reason} for entry in entries]
        return {
            "built": dict(sorted(built.items())),
            "cached": dict(sorted(cached.items())),
            "quarantined": shown,
            "clips": len(self.rows),
            "seconds": round(seconds, 2),
        }


@dataclass(frozen=True)
class Refreshed:
    """What a refresh came to."""

    outcome: Outcome
    model: Path | None = None  # of the dataset as it is now; None: none is asked for, or nothing to train on
    trained: bool = False  # by this refresh; in a dry run: would be

    def as_json(self, seconds: float) -> dict[str, Any]:
        """Return what `--json` prints."""
        model = None if self.model is None else str(self.model)
        return {**self.outcome.as_json(seconds), "model": model, "trained": self.trained}


def total(outcomes: Sequence[Outcome]) -> Outcome:
    """Add outcomes up."""
    return Outcome(
        rows=tuple(row for outcome in outcomes for row in outcome.rows),
        planned=tuple(planned for outcome in outcomes for planned in outcome.planned),
        quarantined=tuple(entry for outcome in outcomes for entry in outcome.quarantined),
        paths=tuple(path for outcome in outcomes for path in outcome.paths),
    )


def plan(store: Store, name: str, recipe: Recipe, previous_key: str | None) -> Planned:
    """Say whether a record must be built, and what changed since the one that the dataset refers to now."""
    reason = "" if store.has(recipe.kind, recipe.key) else _why(store, recipe, previous_key)
    return Planned(name, recipe.kind, recipe.key, reason)


def _why(store: Store, recipe: Recipe, previous_key: str | None) -> str:
    """Say why a record that is not there has to be built."""
    if previous_key is None:
        return "new"
    if previous_key == recipe.key:
        return "lost: the dataset has it, the store does not"
    try:
        previous = store.open(recipe.kind, previous_key).recipe
    except StoreError as error:
        return f"changed, but from what cannot be told: {error}"
    return f"changed: {'; '.join(str(change) for change in recipe.changes_from(previous))}"


def set_aside(name: str, error: ValueError, *, session: str = "", path: str = "") -> Outcome:
    """Quarantine an input for what a reader (InputError) or the renderer (ValueError) says of it.

    name: the input as people know it.  session: the session it belongs to, where that is known.
    path: that session's folder.
    """
    code = error.code if isinstance(error, InputError) else "unrenderable"
    entry = Quarantined(_printable(name), code, _printable(str(error)), _printable(session), _printable(path))
    return Outcome(quarantined=(entry,))


def _printable(text: str) -> str:
    """Escape what a file name that is not UTF-8 has put in: neither manifest nor terminal can hold it."""
    return text.encode("utf-8", "backslashreplace").decode()
