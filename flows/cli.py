"""The command line: `manivideo VERB`. Each verb reads its config and runs the flow of its name.

Flows are imported inside the verbs: Prefect and torch take seconds, and `--help` should not.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import cli_tools
from flows.console import FAILED, fail, print_json, print_table, reporting
from flows.options import (
    CONFIGS,
    DEFAULT_STORE,
    DatasetOption,
    DebugOption,
    DryRunOption,
    JsonOption,
    ManoOption,
    ObjectsOption,
    OnlyOption,
    SetOption,
    StoreOption,
    overrides,
    record_kinds,
)
from storage.config import load_config
from storage.errors import InputError

if TYPE_CHECKING:
    from flows.outcome import Outcome

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Hand-object manipulation video from motion and pictures of objects.",
)
app.add_typer(cli_tools.store_app, name="store")
app.command()(cli_tools.licences)
app.command()(cli_tools.doctor)


@app.command()
def build(
    config: Annotated[Path, typer.Argument(metavar="[CONFIG]")] = CONFIGS / "build.yaml",
    objects: ObjectsOption = None,
    dataset: DatasetOption = None,
    only: OnlyOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Objects to six views, random motion, layers and rendered frames; a dataset of them."""
    with reporting(debug=debug):
        from flows import dag, runs
        from flows.build import BuildConfig

        values = overrides(assignments, objects=objects, dataset=dataset, only=record_kinds(only))
        settings = load_config(BuildConfig, config, values)
        started = time.monotonic()
        outcome = runs.run(dag.build, config=settings, store=store, dry_run=dry_run)
        _report(outcome, time.monotonic() - started, dry_run=dry_run, as_json=as_json)


@app.command()
def ingest(
    sessions: Annotated[list[Path], typer.Argument(metavar="SESSION...", show_default=False)],
    config: Annotated[Path, typer.Option("--config")] = CONFIGS / "ingest.yaml",
    dataset: DatasetOption = None,
    mano: ManoOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Capture sessions to records, incrementally; adds them to a dataset."""
    with reporting(debug=debug):
        _check_folders(sessions)
        from flows import dag, runs
        from flows.ingest import IngestConfig

        settings = load_config(IngestConfig, config, overrides(assignments, dataset=dataset, mano=mano))
        started = time.monotonic()
        paths = [str(path) for path in sessions]
        outcome = runs.run(dag.ingest, sessions=paths, config=settings, store=store, dry_run=dry_run)
        _report(outcome, time.monotonic() - started, dry_run=dry_run, as_json=as_json)


def main() -> None:
    """Run the command line."""
    app()


def _check_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder", code="missing-folder")


def _report(outcome: "Outcome", seconds: float, *, dry_run: bool, as_json: bool) -> None:
    """Say what a build or an ingest came to; exit 1 where no input was of use."""
    if as_json:
        print_json(outcome.as_json(seconds))
    else:
        _print_outcome(outcome, seconds, dry_run=dry_run)
    if not outcome.planned:
        fail(f"nothing usable: all {len(outcome.quarantined)} inputs were quarantined", FAILED)


def _print_outcome(outcome: "Outcome", seconds: float, *, dry_run: bool) -> None:
    if dry_run:
        plans = [(plan.recipe.kind, plan.input, plan.reason) for plan in outcome.missing]
        print_table("would be built", ("record", "of", "why"), plans)
    if outcome.quarantined:
        entries = [(entry.input, entry.code, entry.reason) for entry in outcome.quarantined]
        print_table("quarantined", ("input", "code", "reason"), entries)
    missing, there = outcome.counts()
    rows = [(kind, str(missing[kind]), str(there[kind])) for kind in sorted(missing | there)]
    title = f"{len(outcome.rows)} clips, {len(outcome.quarantined)} inputs quarantined, {seconds:.1f} s"
    print_table(title, ("record", "missing" if dry_run else "built", "there already"), rows)
