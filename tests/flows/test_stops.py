"""`manivideo` as a process: what Ctrl-C stops and what is killed goes on where it was."""

import os
import re
import signal
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from typer.testing import CliRunner

from flows.ablation_table import FILES
from flows.cli import app
from flows.console import INTERRUPTED
from model.checkpoint import checkpoints, read_position
from model.config import ModelConfig
from model.run_log import LOSSES
from model.train import train
from model.training_config import TrainConfig
from storage.config import load_config, save_config
from storage.store import Store
from tests.flows.conftest import PATIENCE_S
from tests.flows.test_ablation import ablation
from tests.forks import manivideo, wait_until
from tests.model.training.conftest import OVERRIDES, TINY, write_toy
from tests.model.training.test_crash import results

STEPS = 12

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.timeout(4 * PATIENCE_S)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    write_toy(store)
    return store


def finish(*arguments: str | Path) -> str:
    """Run `manivideo` in this process, to a good end; return what it told people."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return result.stderr


def steps_logged(run: Path) -> int:
    log = run / LOSSES
    return len(log.read_text().splitlines()) if log.exists() else 0


def steps_saved(run: Path) -> int:
    return read_position(checkpoints(run / "checkpoints")[-1])["step"]


def test_ctrl_c_at_a_terminal_ends_training_with_a_checkpoint_and_resuming_it_ends_as_if_left_alone(
    store: Store, tmp_path: Path
) -> None:
    save_config(load_config(ModelConfig, TINY, OVERRIDES), tmp_path / "model.yaml")
    config = TrainConfig(
        stage="image",
        dataset="toy",
        model=tmp_path / "model.yaml",
        iterations=STEPS,
        learning_rate=2e-3,
        decay="cosine",
        batch={"clips": 2, "frames": 2},
        keep=1,
        memory_estimate=False,
        threads=1,
    )
    save_config(config, tmp_path / "train.yaml")
    whole, run, told = tmp_path / "whole", tmp_path / "run", tmp_path / "told"
    train(config, store, whole)

    arguments = ("train", tmp_path / "train.yaml", "-o", run, "--store", store.root)
    # No server is there that it could report to: it starts its own, which Ctrl-C is sent to as well.
    process = manivideo(told, *arguments, PREFECT_API_URL="", PREFECT_HOME=str(tmp_path / "prefect"))
    wait_until(process, lambda: steps_logged(run) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == INTERRUPTED
    step = steps_saved(run)
    assert steps_logged(run) == step < STEPS
    assert told.read_text().splitlines()[-1] == f"manivideo: stopped after step {step}; resume from {run}"

    finish(*arguments, "--resume")
    assert results(run) == results(whole)


def test_an_ablation_killed_while_it_trains_goes_on_from_the_newest_checkpoint_to_the_same_table(
    store: Store, tmp_path: Path
) -> None:
    values = {
        "variants.controlnet.shares": "null",
        "seeds": "[0]",
        "image.dataset": "toy",
        "image.iterations": STEPS,
        "image.checkpoint_every": 2,
        "tests": "{seen: {dataset: toy}}",
        "metrics.fid_frames": 0,
        "claims": "[]",
    }
    changes = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    arguments = ("ablate", ablation(tmp_path), "--store", store.root, *changes, "-o")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(*arguments, whole)

    process = manivideo(tmp_path / "told", *arguments, killed, PREFECT_API_URL=str(PREFECT_API_URL.value()))
    run = killed / "controlnet" / "seed-0" / "image"  # the second of two
    wait_until(process, lambda: len(checkpoints(run / "checkpoints")) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert not (run / "model").exists()
    done = steps_saved(run)

    told = finish(*arguments, killed)
    trained = [int(step) for step in re.findall(rf"step (\d+) of {STEPS}", told)]
    assert trained == list(range(done + 2, STEPS + 1, 2))
    for name in FILES:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
