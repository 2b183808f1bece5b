"""Training one stage from the command line: progress on stderr, and nothing done twice."""

import math
import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusers.utils.logging import disable_progress_bar
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

import model
from flows.console import is_first_process, stderr
from flows.progress import listener
from flows.stamps import amend_stamp, changes, write_stamp
from model.run import RESUMABLE, held
from model.train import train
from model.training_config import TrainConfig
from render import mlo, skeleton
from storage import dataset
from storage.config import read_json
from storage.digests import digest_file, digest_json, digest_tree
from storage.errors import InputError
from storage.manifest import Manifest
from storage.store import Store

STAMP = "made-from.json"
LINES = 10  # of progress where no bar can be drawn
NOT_TRAINING = frozenset(  # files of `model` that no weight depends on
    f"{name}.py"
    for name in (
        "evaluate", "figures", "metrics", "metrics_fid", "metrics_inception", "metrics_joints",
        "metrics_lpips", "metrics_weights", "memory", "run_log", "sampling", "validation", "windows",
    )
)  # fmt: skip
READING = (dataset, mlo, skeleton)  # decide what the network is given, and are in no record's key


class RateColumn(ProgressColumn):
    """Steps a second, over the last half minute."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.2f} steps/s")


def train_stage(config: TrainConfig, store: Store, run_dir: Path, *, resume: bool) -> Path:
    """Train one stage in `run_dir`; return the folder of the saved pipeline."""
    disable_progress_bar()  # diffusers', of the files it opens
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn())
    drawn = stderr.is_terminal and is_first_process()
    with Progress(
        *columns, TimeRemainingColumn(), console=stderr, transient=True, disable=not drawn
    ) as progress:
        bar = progress.add_task(f"{config.stage} stage", total=config.iterations)
        tell = listener.get()

        def show(done: int, steps: int, loss: float) -> None:
            description = f"{config.stage} stage, loss {loss:.4f}"
            progress.update(bar, completed=done, description=description)
            if tell is not None:
                tell(description, 100 * done / steps)
            if not stderr.is_terminal and done % math.ceil(steps / LINES) == 0:
                told = f"  step {done} of {steps}, loss {loss:.4f}{_pace(progress.tasks[bar])}"
                stderr.print(told, highlight=False)

        saved = train(config, store, run_dir, show, resume=resume).model
    if is_first_process():  # a resumed run may have another length than the one that was stamped
        amend_stamp(run_dir / STAMP, {"config": stamped_settings(config)})
    return saved


def _pace(task: Task) -> str:
    """Say a task's rate and the time that is left, as far as they are known."""
    if task.speed is None or task.time_remaining is None:
        return ""
    return f", {task.speed:.2f} steps/s, {timedelta(seconds=task.time_remaining)} left"


def train_where_changed(config: TrainConfig, store: Store, run_dir: Path) -> tuple[Path, bool]:
    """Train a stage unless `run_dir` holds its result; go on where it was stopped.

    Returns the saved pipeline's folder and whether anything was trained. A run of other inputs is deleted.
    """
    inputs = training_inputs(config, store)
    outdated = bool(changes(run_dir / STAMP, inputs))
    saved = run_dir / "model"
    if saved.is_dir() and not outdated:
        return saved, False
    if outdated:
        if run_dir.is_dir():
            if any(run_dir.iterdir()):
                _check_is_run(run_dir)
            with held(run_dir):
                aside = run_dir.with_name(f".{run_dir.name}.outdated")
                shutil.rmtree(aside, ignore_errors=True)
                run_dir.rename(aside)  # a kill leaves no half of it under its stamp
                shutil.rmtree(aside)
        run_dir.mkdir(parents=True)
        write_stamp(run_dir / STAMP, inputs)
    return train_stage(config, store, run_dir, resume=not outdated), True


def _check_is_run(run_dir: Path) -> None:
    """Raise InputError where no stamp says what the files in a folder are, which are to be deleted."""
    try:
        read_json(run_dir / STAMP)
    except InputError as error:
        found = f"found files of no run ({error}), wanted a run or an empty folder: move it away"
        raise InputError(f"{run_dir}: {found}", code="run-exists") from error


def is_trained(config: TrainConfig, store: Store, run_dir: Path) -> bool:
    """Tell whether `run_dir` holds the result of these settings, data and code."""
    return (run_dir / "model").is_dir() and not changes(run_dir / STAMP, training_inputs(config, store))


def training_inputs(config: TrainConfig, store: Store) -> dict[str, Any]:
    """Return all that decides a stage's result beyond rounding: settings, data, what it starts from, code."""
    return {
        "config": stamped_settings(config),
        "dataset": Manifest.read(store, config.dataset).version,
        "start": _start_digest(config),
        "code": CODE,
    }


def stamped_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that decide a result beyond rounding, as JSON."""
    paths = {"model", "init_from"}  # what they hold counts, as the start
    return config.model_dump(mode="json", exclude=RESUMABLE - {"iterations"} | paths)


def _start_digest(config: TrainConfig) -> str | None:
    """Return the digest of a model's config, or of what a saved one was made from, else of its files."""
    if config.init_from is None:
        return digest_file(config.model) if config.model is not None and config.model.is_file() else None
    stamp = config.init_from.parent / STAMP
    return digest_file(stamp) if stamp.is_file() else digest_tree(config.init_from)


def code_digest(
    *beside: ModuleType, files: Sequence[Path] = (), without: frozenset[str] = frozenset()
) -> str:
    """Return the digest of the source of `model`, but for some files, of what reads clips, and of others.

    To be taken when the module that stamps is loaded: what is edited later counts from the next start.
    """
    own = {path.name: path for path in Path(model.__path__[0]).glob("*.py") if path.name not in without}
    others = {module.__name__: Path(str(module.__file__)) for module in (*READING, *beside)}
    others |= {path.name: path for path in files}
    return digest_json({name: digest_file(path) for name, path in sorted({**own, **others}.items())})


CODE = code_digest(without=NOT_TRAINING)
