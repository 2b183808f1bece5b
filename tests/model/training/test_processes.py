"""Several processes that train together do what one does, but for rounding."""

import json
import multiprocessing
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.train import train
from model.trainer import start_accelerator
from model.training_config import TrainConfig
from storage.errors import InputError
from storage.store import Store


def train_as(rank: int, port: int, config: TrainConfig, root: Path, run: Path) -> None:
    """Train as one of two processes, told what torchrun and `accelerate launch` tell theirs."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    told = {**ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in told.items()})
    torch.set_num_threads(1)
    train(config, Store(root), run)


def launch(config: TrainConfig, store: Store, run: Path) -> list[int | None]:
    """Train in two processes; return their exit statuses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    processes = [
        context.Process(target=train_as, args=(rank, port, config, store.root, run)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def steps(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_two_processes_train_as_one_does(store: Store, image_config: TrainConfig, tmp_path: Path) -> None:
    batch = image_config.batch.model_copy(update={"clips": 4})
    device = "cpu" if torch.cuda.is_available() else "auto"  # one GPU is not enough for two
    update = {"batch": batch, "iterations": 4, "accumulate": 2, "device": device}
    config = image_config.model_copy(update=update)
    alone, together = tmp_path / "alone", tmp_path / "together"
    train(config, store, alone)
    assert launch(config.model_copy(update={"stored_latents": True}), store, together) == [0, 0]

    one, two = (steps(run / "losses.jsonl") for run in (alone, together))
    assert len(two) == 4
    for mine, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)
        assert theirs["by_source"] == pytest.approx(mine["by_source"], rel=1e-4)
    weights, others = (
        load_file(run / "checkpoints/step-00000004/network.safetensors") for run in (alone, together)
    )
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, rtol=1e-3, atol=1e-4)
    assert (together / "model" / "model_index.json").is_file()


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
