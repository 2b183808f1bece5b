"""Training that Ctrl-C stops, and an ablation that is killed, go on where they were (`pytest -m slow`)."""

import os
import re
import signal
import subprocess
import sys
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
from tests.flows.conftest import PATIENCE_S, wait_for
from tests.flows.small_ablation import ablation
from tests.forks import manivideo, wait_until
from tests.model.training.conftest import OVERRIDES, TINY, write_toy
from tests.model.training.test_crash import results
from tests.model.training.test_processes import assert_alike

CONFIG = "train.yaml"
STEPS = 12

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.timeout(4 * PATIENCE_S),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    write_toy(store)
    return store


def write_config(folder: Path, clips: int = 2) -> TrainConfig:
    """Write what a run of a few steps is told, and its model; return it."""
    save_config(load_config(ModelConfig, TINY, OVERRIDES), folder / "model.yaml")
    config = TrainConfig(
        stage="image",
        dataset="toy",
        model=folder / "model.yaml",
        iterations=STEPS,
        learning_rate=2e-3,
        decay="cosine",
        batch={"clips": clips, "frames": 2},
        keep=1,
        memory_estimate=False,
        device="cpu",
        threads=1,
    )
    save_config(config, folder / CONFIG)
    return config


def own_server(folder: Path) -> dict[str, str]:
    """What makes a command start a server of its own, to which Ctrl-C is sent as well."""
    return {"PREFECT_API_URL": "", "PREFECT_HOME": str(folder / "prefect")}


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
    config = write_config(tmp_path)
    whole, run, told = tmp_path / "whole", tmp_path / "run", tmp_path / "told"
    train(config, store, whole)

    arguments = ("train", tmp_path / CONFIG, "-o", run, "--store", store.root)
    process = manivideo(told, *arguments, **own_server(tmp_path))
    wait_until(process, lambda: steps_logged(run) >= 2)
    os.killpg(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == INTERRUPTED
    step = steps_saved(run)
    assert steps_logged(run) == step < STEPS
    assert told.read_text().splitlines()[-1] == f"manivideo: stopped after step {step}; resume from {run}"

    finish(*arguments, "--resume")
    assert results(run) == results(whole)


@pytest.fixture(scope="module")
def small_ablation(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[str | Path, ...]:
    """Arguments of an ablation of two runs, up to its output folder."""
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
    return ("ablate", ablation(tmp_path_factory.mktemp("config")), "--store", store.root, *changes, "-o")


@pytest.fixture(scope="module")
def left_alone(
    small_ablation: tuple[str | Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What the ablation comes to in one process that nothing stops."""
    out = tmp_path_factory.mktemp("whole")
    finish(*small_ablation, out)
    return tables(out)


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def test_an_ablation_killed_while_it_trains_goes_on_from_the_newest_checkpoint_to_the_same_table(
    small_ablation: tuple[str | Path, ...], left_alone: dict[str, bytes], tmp_path: Path
) -> None:
    killed, api = tmp_path / "killed", str(PREFECT_API_URL.value())
    process = manivideo(tmp_path / "told", *small_ablation, killed, PREFECT_API_URL=api)
    run = killed / "controlnet" / "seed-0" / "image"  # the second of two
    wait_until(process, lambda: len(checkpoints(run / "checkpoints")) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert not (run / "model").exists()
    done = steps_saved(run)

    told = finish(*small_ablation, killed)
    trained = [int(step) for step in re.findall(rf"step (\d+) of {STEPS}", told)]
    assert trained == list(range(done + 2, STEPS + 1, 2))
    assert tables(killed) == left_alone


def test_two_processes_share_the_runs_of_an_ablation_and_both_end_with_the_same_table(
    small_ablation: tuple[str | Path, ...], left_alone: dict[str, bytes], tmp_path: Path
) -> None:
    shared, api = tmp_path / "shared", str(PREFECT_API_URL.value())
    told = tmp_path / "told"
    process = manivideo(told, *small_ablation, shared, PREFECT_API_URL=api)
    wait_until(process, lambda: steps_logged(shared / "full" / "seed-0" / "image") >= 1)
    ours = finish(*small_ablation, shared)
    process.join()
    assert process.exitcode == 0, told.read_text()
    for text, variant in ((told.read_text(), "full"), (ours, "controlnet")):
        assert f"run 1 of 2: {variant}, seed 0" in text
        assert text.count(f"step {STEPS} of {STEPS}") == 1
    assert tables(shared) == left_alone


def test_ctrl_c_to_torchrun_reaches_its_processes_once_and_one_goes_on_from_their_checkpoint(
    store: Store, tmp_path: Path
) -> None:
    config = write_config(tmp_path, clips=4)
    alone, run, told = tmp_path / "alone", tmp_path / "run", tmp_path / "told"
    train(config, store, alone)

    torchrun, program = (Path(sys.executable).with_name(name) for name in ("torchrun", "manivideo"))
    command = [torchrun, "--standalone", "--nproc-per-node", "2", program]
    command += ["train", tmp_path / CONFIG, "-o", run, "--store", store.root]
    environment = os.environ | own_server(tmp_path)
    with told.open("w") as file:
        process = subprocess.Popen(command, env=environment, stderr=file, start_new_session=True)
    wait_for(lambda: steps_logged(run) >= 2 or process.poll() is not None, "the second step")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == 1  # whatever its processes end with
    step = steps_saved(run)
    assert steps_logged(run) == step < STEPS
    stopped = f"manivideo: stopped after step {step}; resume from {run}"
    assert told.read_text().splitlines().count(stopped) == 2

    train(config, store, run, resume=True)
    assert_alike(run, alone)
