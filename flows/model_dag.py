"""The DAG of the model, and the demo over all of it: flows and tasks, thin.

They stand apart from the flows of data because what they import takes seconds to load.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows import ablate as ablating
from flows import ablation_figures, ablation_table, artifacts
from flows import demo as demonstrating
from flows import evaluate as evaluating
from flows import generate as generating
from flows import human as humans
from flows import people as peopling
from flows import train as training
from flows.ablate import AblateConfig, AblationRun
from flows.ablation_turns import alone, at_work, finished, nobody_at, turns
from flows.benchmark import BenchmarkConfig
from flows.data_dag import benchmark, build_dataset, ingest_session, synthesize
from flows.demo import DemoConfig, DemoResult
from flows.evaluate import Evaluation, EvaluationConfig
from flows.generate import GenerateConfig, Motion
from flows.human import HumanConfig, HumanResult
from flows.people import PeopleConfig
from flows.runs import claim
from model.run_log import read_losses
from model.training_config import TrainConfig
from storage.config import load_config
from storage.errors import InputError
from storage.manifest import Manifest
from storage.store import Store


@task(cache_policy=NO_CACHE)
def train_stage(config: TrainConfig, store: Path | str, run_dir: Path, resume: bool) -> Path:
    with artifacts.progress_shown(f"{config.stage} stage"):
        model = training.train_stage(config, Store(store), run_dir, resume=resume)
    artifacts.show_losses(read_losses(run_dir), config.stage)
    return model


@task(cache_policy=NO_CACHE)
def train_where_changed(config: TrainConfig, store: Path | str, run_dir: Path) -> tuple[Path, bool]:
    with artifacts.progress_shown(f"{config.stage} stage"):
        model, trained = training.train_where_changed(config, Store(store), run_dir)
    if trained:
        artifacts.show_losses(read_losses(run_dir), config.stage)
    return model, trained


@task(cache_policy=NO_CACHE)
def generate_clip(model_dir: Path, clip: str, config: GenerateConfig, store: Path | str, out: Path) -> int:
    return generating.generate_clip(model_dir, clip, config, Store(store), out)


@task(cache_policy=NO_CACHE)
def generate_motion(
    model_dir: Path, motion: Motion, config: GenerateConfig, store: Path | str, out: Path
) -> int:
    return generating.generate_motion(model_dir, motion, config, Store(store), out)


@task(cache_policy=NO_CACHE)
def evaluate_model(model_dir: Path, config: EvaluationConfig, store: Path | str, out_dir: Path) -> Evaluation:
    return evaluating.evaluate_model(model_dir, config, Store(store), out_dir)


@task(cache_policy=NO_CACHE)
def evaluate_where_changed(
    model_dir: Path, config: EvaluationConfig, store: Path | str, out_dir: Path
) -> tuple[Evaluation, bool]:
    return evaluating.evaluate_where_changed(model_dir, config, Store(store), out_dir)


@flow(on_running=[claim])
def train(config: TrainConfig, store: Path | str, run_dir: Path, resume: bool = False) -> Path:
    """One stage of training."""
    return train_stage(config, store, run_dir, resume)


@flow(on_running=[claim])
def retrain(config: TrainConfig, store: Path | str, out_dir: Path) -> tuple[Path, bool]:
    """One stage of training, where its data or settings changed; each version of the data has a folder."""
    version = Manifest.read(Store(store), config.dataset).version
    return train_where_changed(config, store, out_dir / version)


@flow(on_running=[claim])
def generate(
    model_dir: Path, config: GenerateConfig, store: Path | str, out: Path, subject: str | Motion
) -> int:
    """A video of a dataset's clip (its id), or of a session's motion."""
    if isinstance(subject, str):
        return generate_clip(model_dir, subject, config, store, out)
    return generate_motion(model_dir, subject, config, store, out)


@flow(on_running=[claim])
def evaluate(model_dir: Path, config: EvaluationConfig, store: Path | str, out_dir: Path) -> Evaluation:
    """Figures, videos, pictures and a report of a model on a dataset's split."""
    return evaluate_model(model_dir, config, store, out_dir)


@flow(on_running=[claim])
def demo(config: DemoConfig, store: Path | str, out_dir: Path) -> DemoResult:
    """The whole job on one machine: objects, sessions, records, two stages of training, a video, a report."""
    clock, done = demonstrating.Clock(), {}
    config = demonstrating.placed(config, out_dir)
    with clock.stage("object clips"):
        built = build_dataset(config.build, store)
        done["object clips"] = built.summary()
    with clock.stage("synthetic sessions"):
        sessions = synthesize(config.synthesize, out_dir / "sessions")
        done["synthetic sessions"] = f"{len(sessions.made)} made of {len(sessions.folders)}"
    with clock.stage("session clips"):
        ingested = ingest_session(list(sessions.folders), config.ingest, store)
        done["session clips"] = ingested.summary()
    quarantined = demonstrating.each_once(built.quarantined, sessions.quarantined, ingested.quarantined)
    if not ingested.rows:
        raise InputError(f"nothing usable: {'; '.join(e.reason for e in quarantined)}", code="no-clips")
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
    return DemoResult(clip, files, evaluation.metrics, done, clock.seconds, quarantined)


@task(cache_policy=NO_CACHE)
def write_people(config: PeopleConfig, folder: Path) -> list[Path]:
    return peopling.write_people(config, folder)


@flow(on_running=[claim])
def human(config: HumanConfig, store: Path | str, out_dir: Path) -> HumanResult:
    """Videos of a person, the human stage on them and on sessions, and a video of a person with an object."""
    sessions = humans.sessions_beside(config)
    videos = write_people(config.people, out_dir / "people")
    ingested = ingest_session([*videos, *sessions], config.ingest, store)
    humans.check_held_out(config, Store(store))
    scene, keypoints = peopling.write_scene(config.session, config.people, out_dir)
    model, _ = train_where_changed(config.human, store, out_dir / "human")
    motion = Motion(scene, keypoints=keypoints)
    models = {"generated": (model, out_dir / "person.mp4")}
    if config.human.init_from is not None:
        models["image stage alone"] = (config.human.init_from, out_dir / "person_image_stage.mp4")
    for generator, video in models.values():
        generate_motion(generator, motion, config.generate, store, video)
    generated = {name: video for name, (_, video) in models.items()}
    made = humans.compare(motion, generated, config.generate, Store(store), out_dir / "person_sheet.png")
    return replace(made, quarantined=ingested.quarantined)


@task(cache_policy=NO_CACHE)
def measure_where_changed(model_dir: Path, run: AblationRun, config: AblateConfig, store: Path | str) -> Path:
    return ablation_figures.measure_where_changed(model_dir, run, config, Store(store))


@task(cache_policy=NO_CACHE)
def measure_truth(config: AblateConfig, store: Path | str, out_dir: Path) -> Path:
    return ablation_figures.measure_truth(config, Store(store), out_dir)


@flow(on_running=[claim])
def ablate(config: AblateConfig, store: Path | str, out_dir: Path) -> dict[str, Any]:
    """The same training and tests with one thing changed at a time; results.json, anew after each run.

    Several processes may do this in one folder at once: each takes runs that no other has.
    """
    runs = ablating.ablation_runs(config, out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    with at_work(config, out_dir):
        with alone(out_dir, "preparing"):
            if config.benchmark is not None:
                folder = out_dir.absolute().with_name(config.benchmark.stem)
                benchmark(load_config(BenchmarkConfig, config.benchmark), store, folder)
            # What is wrong with the last of them is told before the first.
            ablating.check_stages(runs, config, Store(store))
            ablation_figures.check_tests(config, Store(store))
            if not ablation_figures.is_truth_measured(config, Store(store), out_dir):
                with nobody_at(runs):
                    measure_truth(config, store, out_dir)
        countdown, done, results = ablating.Countdown(runs), set[AblationRun](), {}
        for run, held in turns(runs, countdown):
            with held, countdown.run(run):
                for stage, run_dir in ablating.stages(run, config):
                    model, _ = train_where_changed(stage, store, run_dir)
                measure_where_changed(model, run, config, store)
                ablating.drop_checkpoints(run)
            done.add(run)
            with alone(out_dir, "table"):
                shown = done.union(finished(runs, config, Store(store)))
                results = ablation_table.collect([run for run in runs if run in shown], config, out_dir)
    return results
