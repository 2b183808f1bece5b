"""Training on a folder of sessions that grows and changes, where the dataset came to another version."""

import json
from pathlib import Path

from flows.ingest import IngestConfig, merged
from flows.outcome import Outcome, Refreshed
from flows.stamps import changes
from flows.train import STAMP, training_inputs
from model.training_config import TrainConfig
from storage.config import load_config, with_absolute_paths
from storage.manifest import read_or_new
from storage.store import Store


def read_stage(train: Path, config: IngestConfig) -> TrainConfig:
    """Read a stage of training, which is to take place on the dataset of the sessions."""
    stage = load_config(TrainConfig, train, [f"dataset={json.dumps(config.dataset)}"])
    return with_absolute_paths(stage)  # it stays the same stage, wherever a refresh is started


def planned(
    outcome: Outcome, config: IngestConfig, stage: TrainConfig, store: Store, out_dir: Path
) -> Refreshed:
    """Say whether a refresh whose dry run came to `outcome` would train a stage, and the model's folder.

    Clips in which nothing moves are told apart by their frames: where these are still to be made, the
    version, and with it the folder, will be another.
    """
    manifest = merged(read_or_new(store, config.dataset), outcome, config)
    if not manifest.rows:
        return Refreshed(outcome)
    run_dir = out_dir / manifest.version
    model = run_dir / "model"
    if not model.is_dir():
        return Refreshed(outcome, model, trained=True)
    inputs = {**training_inputs(stage, store), "dataset": manifest.version}
    return Refreshed(outcome, model, trained=bool(changes(run_dir / STAMP, inputs)))
