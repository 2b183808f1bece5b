"""The verbs that follow a folder of sessions: refresh, watch."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import check_paths, print_json, print_table, reporting, stderr
from flows.options import (
    CONFIGS,
    DEFAULT_STORE,
    AddressOption,
    DatasetOption,
    DebugOption,
    DryRunOption,
    JsonOption,
    ManoOption,
    RunnerOption,
    SetOption,
    StoreOption,
    dask_address,
    overrides,
)
from flows.summary import print_outcome, require_usable
from storage.config import load_config, with_absolute_paths
from storage.errors import InputError

if TYPE_CHECKING:
    from flows.ingest import IngestConfig

FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Of capture sessions.")]
ConfigOption = Annotated[Path, typer.Option("--config")]
TrainOption = Annotated[
    Path | None,
    typer.Option("--train", metavar="CONFIG", help="Then train this stage, where the dataset changed."),
]
ModelsOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="DIR", help="Folder of models; else outputs/<CONFIG>."),
]


def refresh(
    folder: FolderArgument,
    config: ConfigOption = CONFIGS / "ingest.yaml",
    train: TrainOption = None,
    out: ModelsOption = None,
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
    """New and changed sessions of a folder to records; then a model, where the dataset changed."""
    with reporting(debug=debug):
        check_paths([folder])
        from flows import refresh_dag, runs

        settings = _settings(config, train, overrides(assignments, dataset=dataset, mano=mano))
        started = time.monotonic()
        result = runs.run(
            refresh_dag.refresh,
            folder=folder.absolute(),
            config=settings,
            store=store,
            train=train,
            out_dir=_models(out, train),
            dry_run=dry_run,
            dask=dask_address(runner, address),
        )
        seconds = time.monotonic() - started
        if as_json:
            print_json(result.as_json(seconds))
        else:
            print_outcome(result.outcome, seconds, dry_run=dry_run)
            if result.model is not None:
                done = ("would be trained" if dry_run else "trained") if result.trained else "there already"
                print_table("model", ("folder", ""), [(str(result.model), done)])
        if result.outcome.quarantined:  # an empty folder is no failure: sessions may still come
            require_usable(result.outcome)


def watch(
    folder: FolderArgument,
    config: ConfigOption = CONFIGS / "ingest.yaml",
    train: TrainOption = None,
    out: ModelsOption = None,
    dataset: DatasetOption = None,
    mano: ManoOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    settle_s: Annotated[
        float, typer.Option("--settle", metavar="SECONDS", help="How long a whole session stays as it is.")
    ] = 10.0,
    debug: DebugOption = False,
) -> None:
    """Have a Prefect server refresh whenever a session has been added to a folder, or changed."""
    with reporting(debug=debug):
        check_paths([folder])
        from prefect.settings import get_current_settings

        if get_current_settings().api.url is None:
            message = "watch tells a Prefect server of sessions: set PREFECT_API_URL (make serve starts one)"
            raise InputError(message, code="config")
        from flows.watch import follow
        from storage.store import place

        settings = _settings(config, train, overrides(assignments, dataset=dataset, mano=mano))
        parameters = {
            "folder": str(folder.resolve()),
            "config": settings.model_dump(mode="json"),
            "store": str(place(store, absolute=True)),
            "train": None if train is None else str(train.absolute()),
            "out_dir": str(_models(out, train).absolute()),
        }
        for line in follow(folder.resolve(), parameters, settle_s):
            stderr.print(line, markup=False, highlight=False)


def _settings(config: Path, train: Path | None, assigned: list[str]) -> "IngestConfig":
    """Read the config, with absolute paths, since a deployment works in a folder of its own."""
    from flows.ingest import IngestConfig

    if train is not None and not train.is_file():
        raise InputError(f"{train}: no such file", code="config")
    return with_absolute_paths(load_config(IngestConfig, config, assigned))


def _models(out: Path | None, train: Path | None) -> Path:
    return out or Path("outputs") / ("refresh" if train is None else train.stem)
