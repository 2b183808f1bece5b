"""What a saved model went through: the runs of its stages, and the clips that they were trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.train import STAMP
from model.checkpoint import checkpoints, read_position
from model.run_log import LOSSES, read_losses
from storage.config import read_json, read_yaml
from storage.dataset import Dataset
from storage.errors import InputError
from storage.manifest import ClipRow, name_and_version
from storage.splits import Groups, groups_of
from storage.store import Store

SETTINGS = {"stage", "dataset", "split", "batch", "init_from"}  # those that a model's history is told from


@dataclass(frozen=True)
class TrainingRun:
    """What is left of a stage's training."""

    losses: Sequence[float]  # one a step
    text: str  # YAML of its settings, with every default
    settings: Mapping[str, Any]  # the same
    version: str | None  # of its dataset, as far as it is known

    @property
    def dataset(self) -> str:
        """Return its dataset's name without a version."""
        return name_and_version(self.settings["dataset"])[0]

    def rows(self, store: Store) -> list[ClipRow] | None:
        """Return the clips that it drew from; None where its dataset is gone.

        Where that version of it is gone, the newest one tells what may have been trained on.
        """
        versions = [f"{self.dataset}@{self.version}"] if self.version is not None else []
        shares = self.settings["batch"]["shares"] or {}
        for name in [*versions, self.dataset]:
            try:
                found = Dataset.open(store, name)
            except InputError as error:
                if error.code != "no-dataset":
                    raise
                continue
            return [row for row in found.rows(self.settings["split"]) if shares.get(row.source, 1) > 0]
        return None


def read_runs(model_dir: Path) -> dict[str, TrainingRun]:
    """Return the runs that a model went through, by stage, in order, as far as they are there.

    Of two runs of one stage the first is "earlier image".
    """
    runs: dict[str, TrainingRun] = {}
    visited = set[Path]()  # a run that has been moved may be where one of before it was
    run_dir: Path | None = model_dir.parent
    while run_dir is not None and run_dir.resolve() not in visited and (run_dir / LOSSES).is_file():
        visited.add(run_dir.resolve())
        settings, text = read_yaml(run_dir / "config.yaml"), (run_dir / "config.yaml").read_text()
        if lacking := SETTINGS - settings.keys():
            found = f"found no {', '.join(sorted(lacking))}, wanted the settings of a training run"
            raise InputError(f"{run_dir / 'config.yaml'}: {found}", code="damaged")
        name = settings["stage"]
        while name in runs:
            name = f"earlier {name}"
        runs = {name: TrainingRun(read_losses(run_dir), text, settings, _version(run_dir, settings)), **runs}
        run_dir = Path(settings["init_from"]).parent if settings["init_from"] else None
    return runs


def clips_trained_on(
    rows: Sequence[ClipRow], dataset: str, split: str, runs: Mapping[str, TrainingRun], store: Store
) -> dict[str, str]:
    """Return notes on those of a dataset's clips that are not held out from what a model's runs have seen.

    Not held out are clips whose pictures were trained on, those of a sequence of the same dataset that was,
    and what the split, were it one of both datasets together, would have on one side: near-duplicates of a
    sequence, clips that show one object, or one of nearly its shape, or one participant.
    """
    notes = {}
    trained: list[ClipRow] = []
    for name, run in runs.items():
        drawn = run.rows(store)
        if drawn is None:
            notes[f"{name} stage"] = f"its dataset {run.dataset} is gone: what it was trained on is not known"
        else:
            trained += of_dataset(drawn, run.dataset)
    evaluated = of_dataset(rows, name_and_version(dataset)[0])
    seen = not_held_out(evaluated, trained, by=split.rpartition(":")[0])
    first = next(iter(runs.items()), None)
    if first is not None and (start := first[1].settings["init_from"]):
        told = f"no run at {Path(start).parent}, where it began: what that was trained on is not known"
        notes[f"before the {first[0]} stage"] = told
    if seen:
        notes["clips trained on"] = f"{len(seen)} of {len(rows)} are not held out: {sorted(seen)}"
    return notes


def of_dataset(rows: Sequence[ClipRow], dataset: str) -> list[ClipRow]:
    """Return rows whose sessions are no others' that have their names in another dataset."""
    return [replace(row, session=f"{dataset}: {row.session}") for row in rows]


def not_held_out(rows: Sequence[ClipRow], trained: Sequence[ClipRow], by: str = "") -> set[str]:
    """Return the ids of `rows`, both `of_dataset`, that what was trained on has a sequence, object or
    participant of: whatever clips are held out `by`, sequence where it is empty."""
    of = groups_of([row for row in (*trained, *rows) if row.basis is not None])
    known = {fact for row in trained for fact in _facts(row, by, of)}
    return {row.id for row in rows if known & _facts(row, by, of)}


def _facts(row: ClipRow, by: str, of: Groups) -> set[tuple[str, str]]:
    """Return what no two clips have in common of which one is held out."""
    facts = {("sequence", row.session)}
    facts |= {("pictures", row.frames_key)} if row.frames_key else set()
    if by == "object":
        shown = row.basis.objects if row.basis is not None else ()
        facts |= {("object", of.objects[entry.geometry]) for entry in shown}
        return facts | {("object", key) for key in row.object_keys}
    if by == "participant":
        known = of.participants.get(row.participant, row.participant)
        return facts | ({("participant", known)} if known else set())
    return facts | {("take", of.sessions.get(row.session, row.session))}


def _version(run_dir: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the version of the dataset that a run was trained on, if it is said anywhere."""
    named = name_and_version(settings["dataset"])[1]
    if named:
        return named
    if (run_dir / STAMP).is_file():
        return str(read_json(run_dir / STAMP)["dataset"])
    saved = checkpoints(run_dir / "checkpoints")
    return read_position(saved[-1])["config"].get("dataset.version") if saved else None
