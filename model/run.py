"""The folder of a training run: what it holds after each step, and how a run goes on from there.

A kill at any moment leaves whole checkpoints, and a log that has at least the steps of the newest one.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object

from model.checkpoint import checkpoints, load_checkpoint, prune_checkpoints, read_position, save_checkpoint
from model.pipeline import ManiVideoPipeline
from model.run_log import RunLog
from model.trainer import Trainer
from model.training_config import TrainConfig
from storage.config import save_config
from storage.durable import sync, sync_tree
from storage.errors import InputError
from storage.locks import try_to_hold
from storage.manifest import name_and_version

logger = logging.getLogger(__name__)

LOCK = ".run.lock"  # held while a run is at work in the folder

RESUMABLE = {  # what a resumed run may change: its length, and what changes results by rounding alone
    "iterations", "checkpoint_every", "keep", "log_every", "device", "threads", "read_ahead", "read_threads",
    "cache_gib", "memory_estimate", "validation", "accumulate", "clip_threads", "gradient_checkpointing",
    "stored_latents",
}  # fmt: skip


class Run:
    """The folder of a run."""

    def __init__(
        self, config: TrainConfig, folder: Path, model: dict[str, Any], *, resume: bool, writes: bool
    ) -> None:
        """model: what decides a run beside its config, as `model_settings` and the dataset's version do.

        Of several processes that train together, one writes.
        """
        self.config, self.folder, self.writes, self.resume = config, folder, writes, resume
        self.settings = config.model_dump(mode="json") | model
        self.model, self.checkpoints = folder / "model", folder / "checkpoints"
        saved = checkpoints(self.checkpoints)
        if saved and not resume:
            raise InputError(
                f"{folder} holds a run already: resume it or name another folder", code="run-exists"
            )
        if saved:
            self._check_settings(saved[-1])
            if (done := read_position(saved[-1])["step"]) > config.iterations:
                found = f"found {config.iterations}, wanted at least the {done} steps that {folder} has"
                raise InputError(f"iterations: {found}", code="config")
        elif self.model.exists():  # `finish` would replace what no run of ours made
            raise InputError(f"{self.model} is there already: name another folder", code="run-exists")

    def restore(self, trainer: Trainer) -> int:
        """Read the newest checkpoint, if there is one; return the number of steps behind it.

        Raises InputError where processes that train together do not find the same one.
        """
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        saved = checkpoints(self.checkpoints)
        if self.writes:
            save_config(self.config, self.folder / "config.yaml")
        first = load_checkpoint(saved[-1], trainer.state) if saved else 0
        if len(found := set(gather_object([first]))) > 1:
            raise InputError(
                f"{self.checkpoints}: found steps {sorted(found)}, one for each process, wanted a folder "
                "that all of them share",
                code="checkpoint",
            )
        if saved:
            logger.info("resuming after step %d", first)
        elif self.resume:
            logger.warning(
                "%s: found no checkpoint to go on from: it begins with the first step", self.folder
            )
        return first

    @contextmanager
    def logging(self, first: int) -> Iterator[RunLog | None]:
        """Open the log after `first` steps; None in a process that does not write."""
        if not self.writes:
            yield None
            return
        with RunLog(self.folder, first, self.config.log_every) as log:
            yield log

    def save(self, step: int, trainer: Trainer, log: RunLog | None) -> None:
        """Write a checkpoint and delete old ones; the log of its steps is on the disk before it is."""
        if log is not None:
            log.flush()
            save_checkpoint(self.checkpoints, step, trainer.state, self.settings)
            prune_checkpoints(self.checkpoints, self.config.keep)

    def finish(self, trainer: Trainer) -> None:
        """Save the pipeline with the averaged weights."""
        if not self.writes:
            return
        if trainer.state.ema is not None:
            trainer.state.ema.copy_to(trainer.parameters)
        staging = self.folder / ".staging-model"
        shutil.rmtree(staging, ignore_errors=True)
        trainer.network.eval()
        trainer.pipeline.save_pretrained(staging)
        sync_tree(staging)
        shutil.rmtree(self.model, ignore_errors=True)
        staging.rename(self.model)
        sync(self.folder)

    def _check_settings(self, checkpoint: Path) -> None:
        """Raise InputError naming each setting that differs from the checkpoint's and may not."""
        then: dict[str, Any] = read_position(checkpoint)["config"]
        now = dict(self.settings)
        if now.get("dataset.version") == then.get("dataset.version"):  # `name` and `name@version` are one
            for settings in (then, now):
                settings["dataset"], _ = name_and_version(settings["dataset"])
        changed = [
            f"{key} was {then[key]!r}, is {value!r}"
            for key, value in now.items()
            if key in then and key not in RESUMABLE and then[key] != value
        ]
        if any(change.startswith("dataset.version ") for change in changed):
            name, _ = name_and_version(then["dataset"])
            changed.append(f"--dataset {name}@{then['dataset.version']} is what it was trained on")
        if changed:
            raise InputError(f"{checkpoint} is of other settings: {'; '.join(changed)}", code="checkpoint")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run's folder; InputError where another process is at work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = try_to_hold(folder / LOCK)
    except InputError as error:
        logger.warning("%s: nothing keeps another run out", error)
        yield
        return
    if lock is None:
        raise InputError(f"{folder}: found another run at work in it, wanted none", code="run-exists")
    with lock:
        yield


def model_settings(pipeline: ManiVideoPipeline) -> dict[str, Any]:
    """Settings of network, codec and noise schedule by dotted names, as JSON.

    A run's config names the model's file alone, which may be another by the time of a resume.
    """
    parts: dict[str, Any] = {
        "network": pipeline.network, "codec": pipeline.codec, "schedule": pipeline.scheduler,
    }  # fmt: skip
    settings: dict[str, Any] = {}
    for name, part in parts.items():
        public = {key: value for key, value in part.config.items() if not key.startswith("_")}
        settings[name] = {"kind": type(part).__name__, **public}
    return _dotted(json.loads(json.dumps(settings)))


def _dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + key
        flat |= _dotted(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
