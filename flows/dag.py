"""The DAG: every flow and its tasks, thin. The work is in the plain functions that they call.

A task takes a stage or a shard of inputs, and maps batches of records inside; keys, paths and rows pass
between tasks, never arrays.
"""

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import build as building
from flows import ingest as ingesting
from flows.build import BuildConfig
from flows.ingest import IngestConfig
from flows.outcome import Outcome, total
from storage.store import Store

SHARD = 200  # inputs of a task
MOST_TASKS = 500  # of a flow: beyond about a thousand the server's event queue overflows


def shards(inputs: list[str]) -> list[list[str]]:
    """Cut inputs into shards of one task each."""
    size = max(SHARD, -(-len(inputs) // MOST_TASKS))
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


@task(cache_policy=NO_CACHE)
def build_shard(names: list[str], config: BuildConfig, store: Path, dry_run: bool) -> Outcome:
    return building.build_objects(names, config, Store(store), dry_run=dry_run)


@task(cache_policy=NO_CACHE)
def ingest_shard(paths: list[str], config: IngestConfig, store: Path, dry_run: bool) -> Outcome:
    return ingesting.ingest_sessions([Path(path) for path in paths], config, Store(store), dry_run=dry_run)


@flow
def build(config: BuildConfig, store: Path, dry_run: bool = False) -> Outcome:
    """Objects to six views, random motion, layers and rendered frames; a dataset of them."""
    names = building.open_source(config, Store(store)).ids()
    outcome = total([build_shard(shard, config, store, dry_run) for shard in shards(names)])
    if not dry_run:
        building.finish(outcome, config, Store(store))
    return outcome


@flow
def ingest(sessions: list[str], config: IngestConfig, store: Path, dry_run: bool = False) -> Outcome:
    """Capture sessions to records, incrementally; adds them to a dataset."""
    outcome = total([ingest_shard(shard, config, store, dry_run) for shard in shards(sessions)])
    if not dry_run:
        ingesting.finish(outcome, config, Store(store))
    return outcome
