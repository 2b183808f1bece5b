"""Training: one loop for the image, temporal and human stages (paper, Sec. 3.3, 4.1).

A run's folder holds `config.yaml`, `losses.jsonl`, `checkpoints/` and, when done, `model/`, a saved pipeline
with the averaged weights. Every random number depends on (seed, step) alone: a run that was stopped and
resumed ends where an uninterrupted one does.
"""

import json
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from model.config import ModelConfig
from model.data import Draws, StepBatches, read_steps
from model.memory import estimate_memory
from model.pipeline import ManiVideoPipeline, build_pipeline, read_pipeline
from model.pretrained import load_pretrained
from model.run import Run
from model.trainer import Trainer
from model.training_config import TrainConfig
from storage.config import load_config
from storage.dataset import Dataset
from storage.errors import InputError
from storage.store import Store

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, float], None]  # (steps done, steps of the run, loss of the last)


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    model: Path  # folder of the saved pipeline
    losses: list[float]  # one a step, from the run's beginning
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
    pipeline = starting_pipeline(config)
    layers = pipeline.network.settings.num_layers
    dataset = Dataset.open(store, config.dataset, layers=layers)
    draws = Draws(dataset.rows(config.split), config.batch, config.seed)
    batches = StepBatches(dataset, draws, int(config.cache_gib * 2**30))
    run = Run(config, out_dir, resume=resume)
    trainer = Trainer(config, pipeline)
    if config.memory_estimate:
        estimate = estimate_memory(trainer, batches.cache.height, batches.cache.width)
        logger.info("training needs about %.2f GiB of memory, clips aside", estimate.total / 2**30)
    first = run.restore(trainer)
    steps = read_steps(batches, first, config.iterations, config.read_ahead)
    recent: deque[float] = deque(maxlen=config.log_every)
    with (
        cpu_threads(config),
        flushed_denormals(),
        interruption() as interrupted,
        run.log.open("a", buffering=1) as log,
    ):
        for step, batch in enumerate(steps, start=first):
            loss, gradient_norm = trainer.step(step, batch)
            record = {"step": step, "loss": loss, "gradient_norm": gradient_norm}
            log.write(json.dumps(record) + "\n")
            recent.append(loss)
            if (step + 1) % config.log_every == 0:
                logger.info("step %d of %d: loss %.4f", step + 1, config.iterations, fmean(recent))
            if progress is not None:
                progress(step + 1, config.iterations, loss)
            done = step + 1 == config.iterations
            if done or interrupted.is_set() or (step + 1) % config.checkpoint_every == 0:
                run.save(step + 1, trainer)
            if interrupted.is_set() and not done:
                raise KeyboardInterrupt(f"stopped after step {step + 1}; resume from {out_dir}")
    return TrainResult(run.finish(trainer), run.losses(), time.monotonic() - started)


def starting_pipeline(config: TrainConfig) -> ManiVideoPipeline:
    """A fresh model, or the saved one that the stage starts from, with the layers that the stage needs."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        if config.init_from is not None:
            pipeline = read_pipeline(config.init_from)
        else:
            assert config.model is not None  # TrainConfig wants exactly one of the two
            pipeline = build_pipeline(load_config(ModelConfig, config.model))
        if config.stage == "temporal":
            pipeline.network.set_temporal(True)
        load_pretrained(pipeline, config.pretrained)
    if pipeline.network.settings.with_temporal and config.batch.pick == "scattered":
        raise InputError("the model has temporal layers: batch.pick must be 'window'", code="config")
    return pipeline


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
