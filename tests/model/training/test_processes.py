"""Several processes that train together do what one does, but for rounding."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.train import train
from model.training_config import TrainConfig
from storage.store import Store

REPOSITORY = Path(__file__).parents[3]
TRAIN = """
import sys
from pathlib import Path
import torch
from model.train import train
from model.training_config import TrainConfig
from storage.config import load_config
from storage.store import Store

torch.set_num_threads(1)
config, store, out = map(Path, sys.argv[1:])
train(load_config(TrainConfig, config), Store(store), out)
"""


def test_two_processes_train_as_one_does(store: Store, image_config: TrainConfig, tmp_path: Path) -> None:
    batch = image_config.batch.model_copy(update={"clips": 4})
    update = {"batch": batch, "iterations": 4, "accumulate": 2, "device": "cpu"}
    config = image_config.model_copy(update=update)
    alone = train(config, store, tmp_path / "one")
    together = tmp_path / "two"
    launch(config.model_copy(update={"stored_latents": True}), store, together, tmp_path)

    losses = [json.loads(line)["loss"] for line in (together / "losses.jsonl").read_text().splitlines()]
    assert losses == pytest.approx(alone.losses, rel=1e-4)
    one, two = (
        load_file(run / "checkpoints" / "step-00000004" / "network.safetensors")
        for run in (tmp_path / "one", together)
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-4)
    assert (together / "model" / "model_index.json").is_file()


def launch(config: TrainConfig, store: Store, out: Path, folder: Path) -> None:
    """Train in two processes on the CPU, as torchrun and `accelerate launch` start them."""
    (folder / "config.yaml").write_text(config.model_dump_json())  # JSON is YAML
    (folder / "train.py").write_text(TRAIN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}")
    command = [*torchrun, folder / "train.py", folder / "config.yaml", store.root, out]
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, check=True)
