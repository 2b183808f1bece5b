"""What a build or an ingest came to: records, rows of the manifest, inputs set aside."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storage.errors import InputError
from storage.manifest import ClipRow, Quarantined
from storage.recipe import Recipe
from storage.store import Store


@dataclass(frozen=True)
class Planned:
    """A record that an input needs."""

    input: str
    recipe: Recipe
    reason: str  # why it has to be built; empty: it is there


@dataclass(frozen=True)
class Outcome:
    """The outcome of one input, or of many added up."""

    rows: tuple[ClipRow, ...] = ()
    planned: tuple[Planned, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()

    @property
    def missing(self) -> list[Planned]:
        """The records that were not there; one that several inputs share counts once."""
        return list({plan.recipe.key: plan for plan in self.planned if plan.reason}.values())

    def counts(self) -> tuple[Counter[str], Counter[str]]:
        """Count the records that were missing and those that were there, by kind."""
        missing = {(plan.recipe.kind, plan.recipe.key) for plan in self.missing}
        there = {(plan.recipe.kind, plan.recipe.key) for plan in self.planned} - missing
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
        return {
            "built": dict(sorted(built.items())),
            "cached": dict(sorted(cached.items())),
            "quarantined": [asdict(entry) for entry in entries],
            "clips": len(self.rows),
            "seconds": round(seconds, 2),
        }


def total(outcomes: Sequence[Outcome]) -> Outcome:
    """Add outcomes up."""
    return Outcome(
        rows=tuple(row for outcome in outcomes for row in outcome.rows),
        planned=tuple(planned for outcome in outcomes for planned in outcome.planned),
        quarantined=tuple(entry for outcome in outcomes for entry in outcome.quarantined),
    )


def plan(store: Store, name: str, recipe: Recipe, previous_key: str | None) -> Planned:
    """Say whether a record must be built, and what changed since the one that the dataset refers to now."""
    if store.has(recipe.kind, recipe.key):
        return Planned(name, recipe, "")
    if previous_key is None or not store.has(recipe.kind, previous_key):
        return Planned(name, recipe, "new")
    changed = recipe.changes_from(store.open(recipe.kind, previous_key).recipe)
    return Planned(name, recipe, f"changed: {', '.join(changed)}")


def set_aside(name: str, error: ValueError) -> Outcome:
    """Quarantine an input for what a reader (InputError) or the renderer (ValueError) says of it."""
    code = error.code if isinstance(error, InputError) else "unrenderable"
    return Outcome(quarantined=(Quarantined(_printable(name), code, _printable(str(error))),))


def _printable(text: str) -> str:
    """Escape what a file name that is not UTF-8 has put in: neither manifest nor terminal can hold it."""
    return text.encode("utf-8", "backslashreplace").decode()
