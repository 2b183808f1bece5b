"""The DAG: every flow and its tasks, thin. The work is in the plain functions that they call.

A task takes a stage or a shard of inputs, and maps batches of records inside; keys, paths and rows pass
between tasks, never arrays.
"""

from pathlib import Path
from typing import TypeVar

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import build as building
from flows import demo as demonstrating
from flows import evaluate as evaluating
from flows import generate as generating
from flows import ingest as ingesting
from flows import synthesize as synthesizing
from flows import train as training
from flows.build import BuildConfig
from flows.demo import DemoConfig, DemoResult
from flows.evaluate import Evaluation, EvaluationConfig
from flows.generate import GenerateConfig, Motion
from flows.ingest import IngestConfig
from flows.outcome import Outcome, total
from flows.synthesize import SynthesizeConfig, Synthesized
from model.training_config import TrainConfig
from storage.store import Store

Input = TypeVar("Input")

SHARD = 200  # inputs of a task
MOST_TASKS = 500  # of a flow: beyond about a thousand the server's event queue overflows


def shards(inputs: list[Input]) -> list[list[Input]]:
    """Cut inputs into shards of one task each."""
    size = max(SHARD, -(-len(inputs) // MOST_TASKS))
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]


@task(cache_policy=NO_CACHE)
def build_shard(names: list[str], config: BuildConfig, store: Path, dry_run: bool) -> Outcome:
    return building.build_objects(names, config, Store(store), dry_run=dry_run)


@task(cache_policy=NO_CACHE)
def ingest_shard(paths: list[Path], config: IngestConfig, store: Path, dry_run: bool) -> Outcome:
    return ingesting.ingest_sessions(paths, config, Store(store), dry_run=dry_run)


@task(cache_policy=NO_CACHE)
def synthesize_shard(numbers: list[int], config: SynthesizeConfig, out_dir: Path) -> Synthesized:
    return synthesizing.synthesize_sessions(numbers, config, out_dir)


@task(cache_policy=NO_CACHE)
def train_stage(config: TrainConfig, store: Path, run_dir: Path, resume: bool) -> Path:
    return training.train_stage(config, Store(store), run_dir, resume=resume)


@task(cache_policy=NO_CACHE)
def train_where_changed(config: TrainConfig, store: Path, run_dir: Path) -> tuple[Path, bool]:
    return training.train_where_changed(config, Store(store), run_dir)


@task(cache_policy=NO_CACHE)
def generate_clip(model_dir: Path, clip: str, config: GenerateConfig, store: Path, out: Path) -> int:
    return generating.generate_clip(model_dir, clip, config, Store(store), out)


@task(cache_policy=NO_CACHE)
def generate_motion(model_dir: Path, motion: Motion, config: GenerateConfig, store: Path, out: Path) -> int:
    return generating.generate_motion(model_dir, motion, config, Store(store), out)


@task(cache_policy=NO_CACHE)
def evaluate_model(model_dir: Path, config: EvaluationConfig, store: Path, out_dir: Path) -> Evaluation:
    return evaluating.evaluate_model(model_dir, config, Store(store), out_dir)


@task(cache_policy=NO_CACHE)
def evaluate_where_changed(
    model_dir: Path, config: EvaluationConfig, store: Path, out_dir: Path
) -> tuple[Evaluation, bool]:
    return evaluating.evaluate_where_changed(model_dir, config, Store(store), out_dir)


@flow
def build(config: BuildConfig, store: Path, dry_run: bool = False) -> Outcome:
    """Objects to six views, random motion, layers and rendered frames; a dataset of them."""
    names = building.open_source(config, Store(store)).ids()
    outcome = total([build_shard(shard, config, store, dry_run) for shard in shards(names)])
    if not dry_run:
        building.finish(outcome, config, Store(store))
    return outcome


@flow
def ingest(sessions: list[Path], config: IngestConfig, store: Path, dry_run: bool = False) -> Outcome:
    """Capture sessions to records, incrementally; adds them to a dataset."""
    outcome = total([ingest_shard(shard, config, store, dry_run) for shard in shards(sessions)])
    if not dry_run:
        ingesting.finish(outcome, config, Store(store))
    return outcome


@flow
def synthesize(config: SynthesizeConfig, out_dir: Path) -> Synthesized:
    """Synthetic capture sessions."""
    numbers = list(range(config.sessions))
    return synthesizing.join([synthesize_shard(shard, config, out_dir) for shard in shards(numbers)])


@flow
def train(config: TrainConfig, store: Path, run_dir: Path, resume: bool = False) -> Path:
    """One stage of training."""
    return train_stage(config, store, run_dir, resume)


@flow
def generate(model_dir: Path, config: GenerateConfig, store: Path, out: Path, subject: str | Motion) -> int:
    """A video of a dataset's clip (its id), or of a session's motion."""
    if isinstance(subject, str):
        return generate_clip(model_dir, subject, config, store, out)
    return generate_motion(model_dir, subject, config, store, out)


@flow
def evaluate(model_dir: Path, config: EvaluationConfig, store: Path, out_dir: Path) -> Evaluation:
    """Figures, videos, pictures and a report of a model on a dataset's split."""
    return evaluate_model(model_dir, config, store, out_dir)


@flow
def demo(config: DemoConfig, store: Path, out_dir: Path) -> DemoResult:
    """The whole job on one machine: objects, sessions, records, two stages of training, a video, a report."""
    clock, done = demonstrating.Clock(), {}
    config = demonstrating.placed(config, out_dir)
    with clock.stage("object clips"):
        done["object clips"] = build(config.build, store).summary()
    with clock.stage("synthetic sessions"):
        sessions = synthesize(config.synthesize, out_dir / "sessions")
        done["synthetic sessions"] = f"{len(sessions.made)} made of {len(sessions.folders)}"
    with clock.stage("session clips"):
        done["session clips"] = ingest(list(sessions.folders), config.ingest, store).summary()
    with clock.stage("image stage"):
        _, trained = train_where_changed(config.image, store, out_dir / "image")
        done["image stage"] = f"{config.image.iterations} steps" if trained else "there already"
    with clock.stage("temporal stage"):
        model, trained = train_where_changed(config.temporal, store, out_dir / "temporal")
        done["temporal stage"] = f"{config.temporal.iterations} steps" if trained else "there already"
    with clock.stage("evaluation"):
        evaluation, made = evaluate_where_changed(model, config.evaluate, store, out_dir)
        clip, files = demonstrating.collect(config, evaluation, Store(store), out_dir)
        done["evaluation"] = f"{len(evaluation.clips)} clips" if made else "there already"
    return DemoResult(clip, files, evaluation.metrics, done, clock.seconds)
