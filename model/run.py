"""The folder of a training run: what it holds after each step, and how a run goes on from there.

A kill at any moment leaves whole checkpoints, and a log that has at least the steps of the newest one.
"""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.checkpoint import checkpoints, load_checkpoint, prune_checkpoints, read_position, save_checkpoint
from model.run_log import RunLog
from model.trainer import Trainer
from model.training_config import TrainConfig
from storage.config import save_config
from storage.durable import sync, sync_tree
from storage.errors import InputError

logger = logging.getLogger(__name__)

RESUMABLE = {  # settings that a resumed run may change: the results change by rounding at most
    "iterations", "checkpoint_every", "keep", "log_every", "device", "threads", "read_ahead", "cache_gib",
    "memory_estimate", "validation", "accumulate", "clip_threads", "gradient_checkpointing", "stored_latents",
}  # fmt: skip


class Run:
    """The folder of a run."""

    def __init__(self, config: TrainConfig, folder: Path, *, resume: bool, writes: bool) -> None:
        """Of several processes that train together, one writes."""
        self.config, self.folder, self.writes = config, folder, writes
        self.model, self.checkpoints = folder / "model", folder / "checkpoints"
        saved = checkpoints(self.checkpoints)
        if saved and not resume:
            raise InputError(
                f"{folder} holds a run already: resume it or name another folder", code="run-exists"
            )
        if saved:
            self._check_config(saved[-1])
        elif self.model.exists():  # `finish` would replace what no run of ours made
            raise InputError(f"{self.model} is there already: name another folder", code="run-exists")

    def restore(self, trainer: Trainer) -> int:
        """Read the newest checkpoint, if there is one; return the number of steps behind it."""
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        saved = checkpoints(self.checkpoints)
        if self.writes:
            save_config(self.config, self.folder / "config.yaml")
        if not saved:
            return 0
        first = load_checkpoint(saved[-1], trainer.state)
        logger.info("resuming after step %d", first)
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
            save_checkpoint(self.checkpoints, step, trainer.state, self.config.model_dump(mode="json"))
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

    def _check_config(self, checkpoint: Path) -> None:
        """Raise InputError naming each setting that differs from the checkpoint's and may not."""
        then: dict[str, Any] = read_position(checkpoint)["config"]
        now = self.config.model_dump(mode="json")
        changed = [
            f"{key} was {then.get(key)!r}, is {now[key]!r}"
            for key in now
            if key not in RESUMABLE and then.get(key) != now[key]
        ]
        if changed:
            raise InputError(f"{checkpoint} is of other settings: {'; '.join(changed)}", code="checkpoint")
