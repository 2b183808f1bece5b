"""Several processes that train together do what one does, but for rounding."""

import gc
import json
import os
import signal
import socket
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from model.train import train
from model.trainer import start_accelerator
from model.training_config import TrainConfig
from storage.errors import InputError
from storage.store import Store
from tests.forks import forks

STOPPED = 130  # exit status


@dataclass(frozen=True)
class Hold:
    """The first process holds when it has logged the second step, until both have been interrupted."""

    holds: Event
    interrupted: Event

    def __call__(self, done: int, steps: int, loss: float) -> None:
        if done == 2:
            self.holds.set()
            self.interrupted.wait()


def train_as(rank: int, port: int, config: TrainConfig, root: Path, run: Path, hold: Hold | None) -> None:
    """Train as one of two processes, told what torchrun and `accelerate launch` tell theirs."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    told = {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)
    leave = torch.distributed.destroy_process_group

    def leave_as_the_last(*group: Any) -> None:
        assert not any(type(held) is DistributedDataParallel for held in gc.get_objects())
        leave(*group)

    torch.distributed.destroy_process_group = leave_as_the_last
    try:
        train(config, Store(root), run, hold)
    except KeyboardInterrupt:
        raise SystemExit(STOPPED) from None


def launch(config: TrainConfig, store: Store, run: Path, *, stop: bool = False) -> list[int | None]:
    """Train in two processes; return their exit statuses.

    Where one fails, the other is ended, as torchrun does.
    stop: interrupt each once after the second step, as torchrun does when it gets Ctrl-C.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = forks()
    hold = Hold(context.Event(), context.Event()) if stop else None
    told = (port, config, store.root, run, hold)
    processes = [context.Process(target=train_as, args=(rank, *told)) for rank in range(2)]
    for process in processes:
        process.start()
    if hold is not None:
        hold.holds.wait()
        for process in processes:
            os.kill(process.pid, signal.SIGINT)
        hold.interrupted.set()
    running = list(processes)
    while running:
        wait([process.sentinel for process in running])
        running = [process for process in running if process.is_alive()]
        if any(process.exitcode not in (None, 0, STOPPED) for process in processes):
            for process in running:
                process.kill()
    return [process.exitcode for process in processes]


def steps(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def config(image_config: TrainConfig) -> TrainConfig:
    batch = image_config.batch.model_copy(update={"clips": 4})
    device = "cpu" if torch.cuda.is_available() else "auto"  # one GPU is not enough for two
    update = {"batch": batch, "iterations": 4, "accumulate": 2, "device": device}
    return image_config.model_copy(update=update)


@pytest.fixture(scope="module")
def alone(store: Store, config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    run = tmp_path_factory.mktemp("alone")
    train(config, store, run)
    return run


def assert_alike(together: Path, alone: Path) -> None:
    """Log and weights of two runs are equal but for rounding."""
    one, two = (steps(run / "losses.jsonl") for run in (alone, together))
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for mine, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert theirs["by_source"] == pytest.approx(mine["by_source"], rel=1e-4)
    weights, others = (
        load_file(max((run / "checkpoints").iterdir()) / "network.safetensors") for run in (alone, together)
    )
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-4)
    assert (together / "model" / "model_index.json").is_file()


def test_two_processes_train_as_one_does(
    store: Store, config: TrainConfig, alone: Path, tmp_path: Path
) -> None:
    assert launch(config.model_copy(update={"stored_latents": True}), store, tmp_path) == [0, 0]
    assert_alike(tmp_path, alone)


def test_two_processes_stopped_by_ctrl_c_write_one_checkpoint_from_which_one_goes_on(
    store: Store, config: TrainConfig, alone: Path, tmp_path: Path
) -> None:
    assert launch(config, store, tmp_path, stop=True) == [STOPPED, STOPPED]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    assert len(steps(tmp_path / "losses.jsonl")) == 2
    train(config, store, tmp_path, resume=True)
    assert_alike(tmp_path, alone)


def test_processes_that_would_train_each_alone_are_refused(
    image_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = SimpleNamespace(num_processes=1, device=torch.device("cpu"))
    monkeypatch.setattr("model.trainer.Accelerator", lambda **_: alone)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="device: found 2 processes that do not find each other on cpu"):
        start_accelerator(image_config)


def test_a_batch_that_processes_cannot_share_is_refused(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 4)
    with pytest.raises(InputError, match=r"batch\.clips: found 2, wanted a multiple of the 4 processes"):
        train(image_config, store, tmp_path)
