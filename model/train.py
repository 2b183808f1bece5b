"""Training: one loop for the image, temporal and human stages (paper, Sec. 3.3, 4.1).

A run's folder holds `config.yaml`, `losses.jsonl`, `checkpoints/` and, when done, `model/`, a saved pipeline
with the averaged weights. Every random number depends on (seed, step) alone: a run that was stopped and
resumed ends where an uninterrupted one does.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.data import read_steps
from model.preflight import Ready, prepare
from model.run import held
from model.run_log import read_losses
from model.training_config import TrainConfig
from storage.errors import StoreError
from storage.store import Store

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]  # (steps done, steps of the run, loss of the last)


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    model: Path  # folder of the saved pipeline
    losses: list[float]  # one a step, from the run's beginning; empty in a process that does not write
    seconds: float  # of this call


def train(
    config: TrainConfig,
    store: Store,
    out_dir: Path,
    progress: Progress | None = None,
    *,
    resume: bool = False,
) -> TrainResult:
    """Train one stage, or go on from the newest checkpoint in `out_dir`.

    Ctrl-C writes a checkpoint and raises KeyboardInterrupt. Raises InputError for settings or data that
    cannot be trained with, and FloatingPointError, with the clips, where the loss is not a number.
    """
    started = time.monotonic()
    ready = prepare(config, store, out_dir, resume=resume)
    run, trainer, validation = ready.run, ready.trainer, ready.validation
    for name, fact in ready.facts.items():
        logger.info("%s: %s", name, fact)
    with held(out_dir) if run.writes else nullcontext(), kept(store):
        encode_what_is_missing(ready)
        first = run.restore(trainer)
        steps = read_steps(ready.batches, first, config.iterations, config.read_ahead, config.read_threads)
        with (
            cpu_threads(config),
            flushed_denormals(),
            interruption() as interrupted,
            run.logging(first) as log,
        ):
            for step, batch in enumerate(steps, start=first):
                result = trainer.step(step, batch)
                if log is not None:
                    log.write(step, result)
                    if progress is not None:
                        progress(step + 1, config.iterations, result.loss)
                done, stopped = step + 1 == config.iterations, trainer.anywhere(interrupted.is_set())
                if done or stopped or (step + 1) % config.checkpoint_every == 0:
                    run.save(step + 1, trainer, log)
                # After the checkpoint of that step: a failure here costs no step.
                if log is not None and validation is not None and (step + 1) % validation.every == 0:
                    validation.look(trainer, step, log)
                if stopped and not done:
                    raise KeyboardInterrupt(f"stopped after step {step + 1}; resume from {out_dir}")
        run.finish(trainer)
    trainer.leave()
    return TrainResult(run.model, read_losses(out_dir) if run.writes else [], time.monotonic() - started)


@contextmanager
def kept(store: Store) -> Iterator[None]:
    """Keep the records that are read: nobody clears up the store meanwhile, unless it is read-only."""
    with ExitStack() as stack:
        try:
            stack.enter_context(store.in_use())
        except StoreError as error:
            logger.warning("%s; whoever clears it up meanwhile may take clips from this run", error)
        yield


def encode_what_is_missing(ready: Ready) -> None:
    """Write the latents that a run reads and the store lacks; of several processes each does its share."""
    latents, accelerator = ready.batches.cache.latents, ready.trainer.accelerator
    if latents is None:
        return
    # Shared out before any is looked for: what is missing changes while others write.
    drawn = ready.batches.draws.rows_of(ready.trainer.config.iterations)
    own = drawn[accelerator.process_index :: accelerator.num_processes]
    latents.encode(latents.missing(own), show=accelerator.is_main_process)
    accelerator.wait_for_everyone()


@contextmanager
def cpu_threads(config: TrainConfig) -> Iterator[None]:
    """Give each share of a batch's clips an equal part of the CPU's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, (config.threads or before) // config.clip_threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Take the tiniest numbers for zero: layers that start at zero are full of them, and a CPU slows down.

    Only while training: the processor's mode holds for the whole thread, and scipy's cKDTree crashes in it.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@contextmanager
def interruption() -> Iterator[threading.Event]:
    """Turn Ctrl-C into an event, so that the step in progress ends whole; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread can take signals
        yield event
        return
    previous = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: Any) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, note)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
