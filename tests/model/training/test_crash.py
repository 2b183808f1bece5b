"""A training run that is killed at random moments, again and again, ends as one that was left alone.

MANIVIDEO_KILLS=30 kills more often than `make test` does.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from model.run_log import BOARD
from model.train import train
from model.training_config import TrainConfig
from storage.digests import digest_file
from storage.store import Store
from tests.forks import forks

KILLS = int(os.environ.get("MANIVIDEO_KILLS", "2"))

Start = Callable[[Path], ForkServerProcess]


def train_when_told(config: TrainConfig, root: Path, run: Path, at_work: Event) -> None:
    """Train in a process of its own, or go on where a kill stopped it."""
    torch.set_num_threads(1)
    at_work.set()
    train(config, Store(root), run, resume=True)


def results(run: Path) -> dict[str, str]:
    """Return the digest of every file of a run: log, checkpoints, model. TensorBoard's hold times."""
    files = [path for path in run.rglob("*") if path.is_file() and BOARD not in path.parts]
    return {path.relative_to(run).as_posix(): digest_file(path) for path in files}


@pytest.fixture(params=[1, 2], ids=["one_thread", "clips_on_two_threads"])
def start(store: Store, image_config: TrainConfig, request: pytest.FixtureRequest) -> Start:
    """Start a run in a process that has everything imported already."""
    update = {"iterations": 10, "checkpoint_every": 2, "keep": 1, "optimizer": "muon"}
    config = image_config.model_copy(update=update | {"clip_threads": request.param})
    context = forks()

    def start_run(run: Path) -> ForkServerProcess:
        at_work = context.Event()
        process = context.Process(target=train_when_told, args=(config, store.root, run, at_work))
        process.start()
        at_work.wait()
        return process

    return start_run


def test_a_run_killed_again_and_again_ends_as_one_left_alone(start: Start, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"moments of killing: random.Random({seed})")  # pytest shows it where the test fails
    rng = random.Random(seed)
    process = start(tmp_path / "whole")
    began = time.monotonic()
    process.join()
    seconds = time.monotonic() - began
    whole = results(tmp_path / "whole")
    assert {
        "losses.jsonl",
        "checkpoints/step-00000010/optimizer.pt",
        "model/model_index.json",
    } <= whole.keys()

    kills = ends = in_a_write = 0
    run = tmp_path / "killed"
    while kills < KILLS:
        process = start(run)
        process.join(rng.uniform(0, seconds))
        if rng.random() < 0.5:
            wait_for_a_write(process, run)
            time.sleep(rng.uniform(0, 0.02))
        if process.exitcode is not None:  # it came to its end, in spite of the kills before
            assert process.exitcode == 0
            assert results(run) == whole
            shutil.rmtree(run)
            ends += 1
            continue
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        in_a_write += is_writing(run)
    process = start(run)
    process.join()
    assert process.exitcode == 0
    assert results(run) == whole
    print(f"{kills} kills, {in_a_write} in the middle of a write, {ends + 1} runs came to their end")


def wait_for_a_write(process: ForkServerProcess, run: Path) -> None:
    """Wait until a run writes a checkpoint or its model, or is done."""
    while process.exitcode is None and not is_writing(run):
        time.sleep(0.0005)


def is_writing(run: Path) -> bool:
    return any(run.rglob(".staging-*"))
