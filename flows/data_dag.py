"""The DAG of data: flows and tasks, thin. The work is in the plain functions that they call.

A task takes a shard of inputs, and maps batches of records inside; keys, paths and rows pass between tasks,
never arrays.
"""

from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import artifacts, cluster
from flows import benchmark as benchmarking
from flows import build as building
from flows import convert as converting
from flows import ingest as ingesting
from flows import synthesize as synthesizing
from flows.benchmark import BenchmarkConfig
from flows.build import BuildConfig
from flows.convert import ConvertConfig, Format
from flows.ingest import IngestConfig
from flows.outcome import Outcome, total
from flows.runs import claim
from flows.sessions import find_sessions
from flows.sources import ObjectSource
from flows.synthesize import SynthesizeConfig, Synthesized
from storage.config import with_absolute_paths
from storage.store import Store, place

Input = TypeVar("Input")

SHARD = 1000  # inputs of a task
MOST_TASKS = 500  # of a flow: beyond about a thousand the server's event queue overflows


def shards(inputs: list[Input]) -> list[list[Input]]:
    """Cut inputs into shards of one task each."""
    size = max(SHARD, -(-len(inputs) // MOST_TASKS))
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


@task(cache_policy=NO_CACHE)
def build_shard(
    names: list[str], source: ObjectSource, config: BuildConfig, store: Store, dry_run: bool, dask: str | None
) -> Outcome:
    with artifacts.progress_shown("objects"):
        if dask is None or dry_run:
            return building.build_objects(names, source, config, store, dry_run=dry_run)
        return cluster.build_objects_on(dask, names, source, config, store)


@task(cache_policy=NO_CACHE)
def ingest_shard(
    paths: list[Path], config: IngestConfig, store: Store, dry_run: bool, dask: str | None
) -> list[Outcome]:
    with artifacts.progress_shown("sessions"):
        if dask is None or dry_run:
            return ingesting.ingest_sessions(paths, config, store, dry_run=dry_run)
        return cluster.ingest_sessions_on(dask, paths, config, store)


@task(cache_policy=NO_CACHE)
def synthesize_shard(numbers: list[int], config: SynthesizeConfig, out_dir: Path) -> Synthesized:
    return synthesizing.synthesize_sessions(numbers, config, out_dir)


@task(cache_policy=NO_CACHE)
def convert_shard(kind: Format, recordings: list[Path], config: ConvertConfig, out_dir: Path) -> Synthesized:
    return converting.convert_recordings(kind, recordings, config, out_dir)


@flow(name="build_dataset", on_running=[claim])
def build_dataset(
    config: BuildConfig, store: Path | str, dry_run: bool = False, dask: str | None = None
) -> Outcome:
    """Objects to six views, random motion, layers and rendered frames; a dataset of them.

    dask: address of a Dask scheduler, whose workers do it.
    """
    records, config = Store(place(store, absolute=True)), with_absolute_paths(config)
    source = building.open_source(config, records)
    with _held(records, dry_run):
        outcomes = [
            build_shard(shard, source, config, records, dry_run, dask) for shard in shards(source.ids())
        ]
        outcome = total(outcomes)
        if not dry_run:
            building.finish(outcome, config, records)
            artifacts.show_outcome(outcome, config.dataset, records)
    return outcome


@flow(name="ingest_session", on_running=[claim])
def ingest_session(
    sessions: list[Path],
    config: IngestConfig,
    store: Path | str,
    dry_run: bool = False,
    dask: str | None = None,
) -> Outcome:
    """Capture sessions to records, incrementally; adds them to a dataset.

    dask: address of a Dask scheduler, whose workers do it.
    """
    records, config = Store(place(store, absolute=True)), with_absolute_paths(config)
    found = [session.resolve() for path in sessions for session in find_sessions(path)]
    once = list(dict.fromkeys(found))
    with _held(records, dry_run):
        outcomes = [ingest_shard(shard, config, records, dry_run, dask) for shard in shards(once)]
        outcome = ingesting.join(list(chain.from_iterable(outcomes)))
        if not dry_run:
            ingesting.finish(outcome, config, records)
            artifacts.show_outcome(outcome, config.dataset, records)
    return outcome


@flow(on_running=[claim])
def synthesize(config: SynthesizeConfig, out_dir: Path) -> Synthesized:
    """Synthetic capture sessions."""
    numbers = list(range(config.sessions))
    return synthesizing.join([synthesize_shard(shard, config, out_dir) for shard in shards(numbers)])


@task(cache_policy=NO_CACHE)
def describe_benchmark(config: BenchmarkConfig, store: Path | str, out_dir: Path) -> dict[str, Any]:
    return benchmarking.describe(config, Store(store), out_dir)


@flow(on_running=[claim])
def benchmark(config: BenchmarkConfig, store: Path | str, out_dir: Path) -> dict[str, Any]:
    """Occlusion-heavy synthetic clips: training, seen-object test, unseen-object test; what is in them."""
    plan = benchmarking.plan(config, out_dir)
    for objects in plan.build.values():
        build_dataset(objects, store)
    made = {name: synthesize(settings, out_dir / name) for name, settings in plan.synthesize.items()}
    for name, settings in plan.ingest.items():
        sets = ("unseen",) if name.endswith(benchmarking.UNSEEN) else ("train", "seen")
        ingest_session([folder for group in sets for folder in made[group].folders], settings, store)
    return describe_benchmark(config, store, out_dir)


@flow(on_running=[claim])
def convert(kind: Format, recordings: list[Path], config: ConvertConfig, out_dir: Path) -> Synthesized:
    """Motion recorded elsewhere to capture sessions."""
    shards_done = [convert_shard(kind, shard, config, out_dir) for shard in shards(recordings)]
    return synthesizing.join(shards_done)


def _held(store: Store, dry_run: bool) -> AbstractContextManager[None]:
    """Hold the store while records are made; a dry run writes nothing, and reads a read-only store too."""
    return nullcontext() if dry_run else store.in_use()
