"""The flow that joins both graphs: sessions to records, and on to a model where the dataset changed."""

from pathlib import Path

from prefect import flow

from flows.data_dag import ingest_session
from flows.ingest import IngestConfig
from flows.outcome import Refreshed
from flows.runs import claim
from flows.sessions import sessions_in
from storage.manifest import Manifest
from storage.store import Store


@flow(on_running=[claim])
def refresh(
    folder: Path,
    config: IngestConfig,
    store: Path | str,
    train: Path | None = None,
    out_dir: Path = Path("outputs/refresh"),
    dry_run: bool = False,
    dask: str | None = None,
) -> Refreshed:
    """New and changed sessions of a folder to records; then, where the dataset changed, a stage of training.

    train: YAML of the stage, which is trained on the sessions' dataset.  out_dir: see `retrain`.
    dask: address of a Dask scheduler, whose workers make the records.
    """
    outcome = ingest_session(sessions_in(folder), config, store, dry_run, dask)
    if train is None:
        return Refreshed(outcome)
    from flows import model_dag  # takes seconds to load, as does what needs torch
    from flows import refresh as refreshing

    stage = refreshing.read_stage(train, config)
    if dry_run:
        return refreshing.planned(outcome, config, stage, Store(store), out_dir)
    if not Manifest.read(Store(store), config.dataset).rows:
        return Refreshed(outcome)
    model, trained = model_dag.retrain(stage, store, out_dir)
    return Refreshed(outcome, model, trained)
