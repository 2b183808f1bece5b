"""What a saved model went through: the runs of its stages, and the clips that they were trained on."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows.train import STAMP
from model.checkpoint import checkpoints, read_position
from model.run_log import LOSSES, read_losses
from storage.dataset import Dataset
from storage.errors import InputError
from storage.manifest import ClipRow, name_and_version
from storage.store import Store


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
    run_dir: Path | None = model_dir.parent
    while run_dir is not None and (run_dir / LOSSES).is_file():
        text = (run_dir / "config.yaml").read_text()
        settings = yaml.safe_load(text)
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
    and with a split by object or participant those that show one that was.
    """
    seen: set[str] = set()
    notes = {}
    by, own = split.rpartition(":")[0], name_and_version(dataset)[0]
    for name, run in runs.items():
        trained = run.rows(store)
        if trained is None:
            notes[f"{name} stage"] = f"its dataset {run.dataset} is gone: what it was trained on is not known"
            continue
        known = {fact for row in trained for fact in _facts(row, run.dataset, by)}
        seen |= {row.id for row in rows if known & _facts(row, own, by)}
    if seen:
        notes["clips trained on"] = f"{len(seen)} of {len(rows)} are not held out: {sorted(seen)}"
    return notes


def _facts(row: ClipRow, dataset: str, by: str) -> set[tuple[str, ...]]:
    """Return what no two clips have in common of which one is held out."""
    facts: set[tuple[str, ...]] = {("sequence", dataset, row.session)}
    facts |= {("pictures", row.frames_key)} if row.frames_key else set()
    facts |= {("object", key) for key in row.object_keys} if by == "object" else set()
    return facts | ({("participant", row.participant)} if by == "participant" and row.participant else set())


def _version(run_dir: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the version of the dataset that a run was trained on, if it is said anywhere."""
    named = name_and_version(settings["dataset"])[1]
    if named:
        return named
    if (run_dir / STAMP).is_file():
        return str(json.loads((run_dir / STAMP).read_text())["dataset"])
    saved = checkpoints(run_dir / "checkpoints")
    return read_position(saved[-1])["config"].get("dataset.version") if saved else None
