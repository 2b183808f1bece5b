"""The command line: `manivideo VERB`. Each verb reads its config and runs the flow of its name.

Flows are imported inside the verbs: Prefect and torch take seconds, and `--help` should not.
"""

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from flows import cli_benchmark, cli_sessions, cli_tools
from flows.console import FAILED, check_paths, fail, print_json, print_table, reporting
from flows.options import (
    CONFIGS,
    DEFAULT_STORE,
    AddressOption,
    ConfigArgument,
    DatasetOption,
    DebugOption,
    DryRunOption,
    FormatArgument,
    JsonOption,
    LibraryOption,
    LvisOption,
    ManoOption,
    ModelOption,
    NamedOutOption,
    ObjectsOption,
    OnlyOption,
    OutOption,
    RunnerOption,
    SampleOption,
    SetOption,
    StoreOption,
    UidsOption,
    dask_address,
    objaverse,
    overrides,
    record_kinds,
)
from flows.summary import print_figures, print_quarantined, report_outcome
from storage.config import load_config
from storage.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Hand-object manipulation video from motion and pictures of objects.",
)
app.add_typer(cli_tools.store_app, name="store")
app.command()(cli_benchmark.benchmark)
app.command()(cli_benchmark.ablate)
app.command()(cli_sessions.refresh)
app.command()(cli_sessions.watch)
app.command()(cli_tools.inspect)
app.command()(cli_tools.licences)
app.command()(cli_tools.doctor)


@app.command()
def build(
    config: ConfigArgument = CONFIGS / "build.yaml",
    objects: ObjectsOption = None,
    uids: UidsOption = None,
    lvis: LvisOption = None,
    sample: SampleOption = None,
    dataset: DatasetOption = None,
    only: OnlyOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    runner: RunnerOption = "local",
    address: AddressOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Objects to six views, random motion, layers and rendered frames; a dataset of them."""
    with reporting(debug=debug):
        from flows import data_dag, runs
        from flows.build import BuildConfig

        chosen = {"objects": objects, **objaverse(uids, lvis, sample)}
        values = overrides(assignments, dataset=dataset, only=record_kinds(only), **chosen)
        settings = load_config(BuildConfig, config, values)
        started = time.monotonic()
        place = {"store": store, "dask": dask_address(runner, address)}
        outcome = runs.run(data_dag.build_dataset, config=settings, dry_run=dry_run, **place)
        report_outcome(outcome, time.monotonic() - started, dry_run=dry_run, as_json=as_json)


@app.command()
def ingest(
    sessions: Annotated[list[Path], typer.Argument(metavar="SESSION...", show_default=False)],
    config: Annotated[Path, typer.Option("--config")] = CONFIGS / "ingest.yaml",
    dataset: DatasetOption = None,
    mano: ManoOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    runner: RunnerOption = "local",
    address: AddressOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Capture sessions, DexYCB or videos of people to records, incrementally; adds them to a dataset."""
    with reporting(debug=debug):
        check_paths(sessions)
        from flows import data_dag, runs
        from flows.ingest import IngestConfig

        settings = load_config(IngestConfig, config, overrides(assignments, dataset=dataset, mano=mano))
        started = time.monotonic()
        paths = [str(path) for path in sessions]
        place = {"store": store, "dask": dask_address(runner, address)}
        outcome = runs.run(data_dag.ingest_session, sessions=paths, config=settings, dry_run=dry_run, **place)
        report_outcome(outcome, time.monotonic() - started, dry_run=dry_run, as_json=as_json)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the sessions.")],
    config: Annotated[Path, typer.Option("--config")] = CONFIGS / "synthesize.yaml",
    objects: ObjectsOption = None,
    mano: ManoOption = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Synthetic capture sessions: two hands, an object, several cameras, ground truth for all of it."""
    with reporting(debug=debug):
        from flows import data_dag, runs
        from flows.synthesize import SynthesizeConfig

        settings = load_config(SynthesizeConfig, config, overrides(assignments, objects=objects, mano=mano))
        started = time.monotonic()
        result = runs.run(data_dag.synthesize, config=settings, out_dir=out)
        if as_json:
            print_json(result.as_json(time.monotonic() - started))
        else:
            rows = [
                (str(path), "made" if path in result.made else "there already") for path in result.folders
            ]
            print_table("sessions", ("folder", ""), rows)
            print_quarantined(result.quarantined)
        if not result.folders:
            fail("nothing usable: no hand could hold any of the objects", FAILED)


@app.command()
def convert(
    kind: FormatArgument,
    recordings: Annotated[list[Path], typer.Argument(metavar="RECORDING...", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of the sessions.")],
    config: Annotated[Path, typer.Option("--config")] = CONFIGS / "convert.yaml",
    library: LibraryOption = None,
    mano: ManoOption = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Motion recorded elsewhere to capture sessions, seen by cameras of our own."""
    with reporting(debug=debug):
        check_paths(recordings)
        from flows import data_dag, runs
        from flows.convert import ConvertConfig

        settings = load_config(ConvertConfig, config, overrides(assignments, library=library, mano=mano))
        started = time.monotonic()
        result = runs.run(data_dag.convert, kind=kind, recordings=recordings, config=settings, out_dir=out)
        if as_json:
            print_json(result.as_json(time.monotonic() - started))
        else:
            print_table("sessions", ("folder",), [(str(path),) for path in result.folders])
            print_quarantined(result.quarantined)
        if not result.folders:
            fail(f"nothing usable: all {len(result.quarantined)} recordings were quarantined", FAILED)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", show_default=False)],
    out: NamedOutOption = None,
    dataset: DatasetOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Say whether it can train, and what it needs; do nothing.")
    ] = False,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """One stage of training: image, temporal or human."""
    with reporting(debug=debug):
        from flows import model_dag, runs
        from flows import train as training
        from model.preflight import prepare
        from model.training_config import TrainConfig
        from storage.store import Store

        settings = load_config(TrainConfig, config, overrides(assignments, dataset=dataset))
        run_dir = out or Path("outputs") / config.stem
        if check:
            facts = prepare(settings, Store(store), run_dir, resume=resume).facts
            if as_json:
                print_json(facts)
            else:
                print_table("it can train", ("", ""), list(facts.items()))
            return
        if not training.is_first_process():  # the first one runs the flow and reports
            training.train_stage(settings, Store(store), run_dir, resume=resume)
            return
        started = time.monotonic()
        model = runs.run(model_dag.train, config=settings, store=store, run_dir=run_dir, resume=resume)
        if as_json:
            print_json({"model": str(model), "seconds": round(time.monotonic() - started, 2)})
        else:
            print_table("trained", ("file", "path"), [("model", str(model))])


@app.command()
def generate(
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="MP4", help="The video to write.")],
    clip: Annotated[str | None, typer.Option("--clip", metavar="ID", help="A clip of the dataset.")] = None,
    motion: Annotated[
        Path | None,
        typer.Option("--motion", metavar="SESSION", help="A session: its motion."),
    ] = None,
    camera: Annotated[str | None, typer.Option("--camera", help="Of the session; else its first.")] = None,
    glb: Annotated[Path | None, typer.Option("--object", metavar="GLB", help="Replaces its object.")] = None,
    background: Annotated[
        Path | None,
        typer.Option("--background", metavar="PNG", help="Replaces its plate; or a picture of a human."),
    ] = None,
    first_object: Annotated[
        Path | None,
        typer.Option("--first-object", metavar="PNG", help="The object as the first frame shows it."),
    ] = None,
    keypoints: Annotated[
        Path | None,
        typer.Option("--keypoints", metavar="JSON", help="Skeleton of the human in the background."),
    ] = None,
    config: Annotated[Path, typer.Option("--config")] = CONFIGS / "generate.yaml",
    dataset: DatasetOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """A video of a dataset's clip, or of a session's motion with an object and a background of your own."""
    with reporting(debug=debug):
        if (clip is None) == (motion is None):
            raise InputError("wanted one of --clip ID and --motion SESSION", code="config")
        if motion is None and any((camera, glb, background, first_object, keypoints)):
            own = "--camera, --object, --background, --first-object and --keypoints"
            raise InputError(f"{own} go with --motion", code="config")
        if out.is_dir():
            raise InputError(f"{out}: found a folder, wanted the name of a video", code="config")
        from flows import model_dag, runs
        from flows.generate import GenerateConfig, Motion

        settings = load_config(GenerateConfig, config, overrides(assignments, dataset=dataset))
        subject = clip if motion is None else Motion(motion, camera, glb, background, first_object, keypoints)
        started = time.monotonic()
        count = runs.run(
            model_dag.generate, model_dir=model, config=settings, store=store, out=out, subject=subject
        )
        if as_json:
            seconds = round(time.monotonic() - started, 2)
            print_json({"video": str(out), "frames": count, "seconds": seconds})
        else:
            print_table("generated", ("file", "path"), [(f"{count} frames", str(out))])


@app.command()
def evaluate(
    model: ModelOption,
    out: OutOption = Path("outputs/evaluation"),
    split: Annotated[str | None, typer.Option("--split", help="Clips of this split.")] = None,
    config: Annotated[Path, typer.Option("--config")] = CONFIGS / "evaluate.yaml",
    dataset: DatasetOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Figures, videos, pictures and a report of a model on a dataset's split."""
    with reporting(debug=debug):
        from flows import model_dag, runs
        from flows.evaluate import EvaluationConfig

        values = overrides(assignments, dataset=dataset, split=split)
        settings = load_config(EvaluationConfig, config, values)
        result = runs.run(model_dag.evaluate, model_dir=model, config=settings, store=store, out_dir=out)
        if as_json:
            print_json(result.metrics)
        else:
            print_figures(result.metrics)
            print_table("written", ("file", "path"), [("report", str(result.report))])


@app.command()
def human(
    config: ConfigArgument = CONFIGS / "human.yaml",
    out: OutOption = Path("outputs/human"),
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """The human stage on videos of a synthetic person, and a video of a person who handles an object."""
    with reporting(debug=debug):
        from flows import model_dag, runs
        from flows.human import HumanConfig

        settings = load_config(HumanConfig, config, overrides(assignments))
        result = runs.run(model_dag.human, config=settings, store=store, out_dir=out)
        if as_json:
            print_json(result.as_json())
        else:
            print_quarantined(result.quarantined)
            areas = next(iter(result.figures.values()))
            rows = [(name, *(f"{of[area]:.2f}" for area in areas)) for name, of in result.figures.items()]
            print_table("PSNR in dB against the true video", ("", *areas), rows)
            print_table("what was made", ("file", "path"), list(result.files.items()))


@app.command()
def demo(
    config: ConfigArgument = CONFIGS / "demo.yaml",
    objects: ObjectsOption = None,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of what is made.")] = Path(
        "outputs/demo"
    ),
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """The whole job on this machine: objects, sessions, records, training, a video, a report."""
    with reporting(debug=debug):
        from flows import model_dag, runs
        from flows.demo import DemoConfig

        settings = load_config(DemoConfig, config, overrides(assignments, objects=objects))
        result = runs.run(model_dag.demo, config=settings, store=store, out_dir=out)
        if as_json:
            print_json(result.as_json())
        else:
            stages = [(name, done, f"{result.seconds[name]:.1f}") for name, done in result.done.items()]
            print_table("what was done", ("stage", "", "seconds"), stages)
            print_quarantined(result.quarantined)
            print_figures(result.metrics)
            files = [(name, str(path)) for name, path in result.files.items()]
            print_table(f"what was made; the held-out clip is {result.clip}", ("file", "path"), files)


def main() -> None:
    """Run the command line; SIGTERM ends it as an exit does, so that the embedded server ends with it."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    app()
