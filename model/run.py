"""The folder of a training run: what it holds after each step, and how a run goes on from there.

A kill at any moment leaves whole checkpoints, and a log that has at least the steps of the newest one.
"""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from model.checkpoint import checkpoints, load_checkpoint, prune_checkpoints, read_position, save_checkpoint
from model.trainer import Trainer
from model.training_config import TrainConfig
from storage.config import save_config
from storage.durable import sync, sync_tree
from storage.errors import InputError

logger = logging.getLogger(__name__)

RESUMABLE = {  # settings that a resumed run may change
    "iterations", "checkpoint_every", "keep", "log_every", "device", "threads", "read_ahead", "cache_gib",
    "memory_estimate",
}  # fmt: skip


class Run:
    """The folder of a run."""

    def __init__(self, config: TrainConfig, folder: Path, *, resume: bool) -> None:
        self.config, self.folder = config, folder
        self.log, self.checkpoints = folder / "losses.jsonl", folder / "checkpoints"
        saved = checkpoints(self.checkpoints)
        if saved and not resume:
            raise InputError(
                f"{folder} holds a run already: resume it or name another folder", code="run-exists"
            )
        if not saved and (folder / "model").exists():  # `finish` would replace what no run of ours made
            raise InputError(f"{folder / 'model'} is there already: name another folder", code="run-exists")
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def restore(self, trainer: Trainer) -> int:
        """Read the newest checkpoint, if there is one; return the number of steps behind it."""
        saved = checkpoints(self.checkpoints)
        if saved:
            self._check_config(saved[-1])
        save_config(self.config, self.folder / "config.yaml")
        first = load_checkpoint(saved[-1], trainer.state) if saved else 0
        self._cut_log(first)
        if not saved:
            return 0
        logger.info("resuming after step %d", first)
        return first

    def save(self, step: int, trainer: Trainer) -> None:
        """Write a checkpoint and delete old ones; what is logged of its steps is on the disk before it is."""
        sync(self.log)
        save_checkpoint(self.checkpoints, step, trainer.state, self.config.model_dump(mode="json"))
        prune_checkpoints(self.checkpoints, self.config.keep)

    def finish(self, trainer: Trainer) -> Path:
        """Save the pipeline with the averaged weights."""
        if trainer.state.ema is not None:
            trainer.state.ema.copy_to(trainer.parameters)
        staging, final = self.folder / ".staging-model", self.folder / "model"
        shutil.rmtree(staging, ignore_errors=True)
        trainer.network.eval()
        trainer.pipeline.save_pretrained(staging)
        sync_tree(staging)
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
        sync(self.folder)
        return final

    def losses(self) -> list[float]:
        """The loss of every step so far."""
        return [json.loads(line)["loss"] for line in self.log.read_text().splitlines()]

    def _cut_log(self, steps: int) -> None:
        """Drop the lines of steps that a kill has undone, in place: at no time is less than `steps` there."""
        with self.log.open("a+b") as log:
            log.seek(0)
            kept = [
                log.readline() for _ in range(steps)
            ]  # one a step; a kill may have cut the last one short
            log.truncate(sum(map(len, kept)))

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
