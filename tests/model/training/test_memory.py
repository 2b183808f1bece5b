"""The memory estimate against what the process really took."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from model.memory import LiveBytes, clips_without_contents, estimate_memory, num_exchanged_bytes
from model.start import starting_pipeline
from model.trainer import Trainer
from model.training_config import TrainConfig
from tests.bench.network.memory import fresh
from tests.bench.network.work import TINY

CASES: dict[str, dict[str, Any]] = {
    "1 clip": {"stage": "image", "batch": {"clips": 1}},
    "4 frames, recomputed": {
        "stage": "temporal",
        "batch": {"clips": 1, "frames": 4, "pick": "window"},
        "size": 128,
        "gradient_checkpointing": True,
    },
}


@pytest.fixture(scope="module")
def peaks() -> dict[str, dict[str, int]]:
    """Estimate and peak of each case, in one process of its own."""
    found = fresh(TINY, "training", cases=list(CASES.values()))
    return dict(zip(CASES, found, strict=True))


@pytest.mark.timeout(900)  # the first of them measures all cases, which a busy machine takes long for
@pytest.mark.parametrize("case", CASES)
def test_estimate_is_within_a_fifth_of_the_measured_peak(case: str, peaks: dict[str, dict[str, int]]) -> None:
    assert peaks[case]["estimated"] == pytest.approx(peaks[case]["measured"], rel=0.2)


@pytest.fixture
def trainer(image_config: TrainConfig) -> Trainer:
    config = TrainConfig(**image_config.model_dump() | {"batch": {"clips": 4, "frames": 4}})
    return Trainer(config, starting_pipeline(config))


def test_estimate_knows_what_saves_memory(trainer: Trainer) -> None:
    def step(**change: object) -> int:
        config = TrainConfig(**trainer.config.model_dump() | change)
        return estimate_memory(Trainer(config, starting_pipeline(config)), 32, 32).step

    plain = step()
    assert step(gradient_checkpointing=True) < 0.8 * plain
    assert step(accumulate=4) < 0.5 * plain
    assert step(precision="bfloat16") < plain


def test_one_of_several_processes_has_its_share_of_the_batch(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "num_processes", 2)
    assert clips_without_contents(trainer, 32, 32).z_t.shape[:2] == (2, 4)


def test_threads_and_processes_hold_gradients_beside_their_own(trainer: Trainer, tmp_path: Path) -> None:
    gradients = sum(parameter.nbytes for parameter in trainer.parameters)
    assert num_exchanged_bytes(trainer) == 0
    trainer.config = trainer.config.model_copy(update={"clip_threads": 3})
    assert num_exchanged_bytes(trainer) == 2 * gradients
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        trainer.objective = DistributedDataParallel(trainer.objective)
        assert num_exchanged_bytes(trainer) == gradients
    finally:
        distributed.destroy_process_group()


def test_live_bytes_are_those_alive_at_once() -> None:
    with LiveBytes() as live:
        first = torch.zeros(1000)  # 4 kB
        second = first + 1  # 8 kB
        view = second[10:]
        del first, second
        third = torch.zeros(500)
    assert (live.peak, live.live) == (8000, 6000)
    assert len(view) + len(third) == 1490


def test_views_of_what_was_there_before_are_no_new_bytes() -> None:
    whole = torch.zeros(40, 3)
    with LiveBytes() as live:
        doubled = whole[2:6] * 2
    assert live.peak == doubled.nbytes
