"""The memory estimate against what the process really took."""

import pytest
import torch

from model.memory import LiveBytes, estimate_memory
from model.start import starting_pipeline
from model.trainer import Trainer
from model.training_config import TrainConfig
from tests.bench.network.memory import fresh
from tests.bench.network.work import TINY


@pytest.mark.parametrize("clips", [1, 2])
def test_estimate_is_within_a_fifth_of_the_measured_peak(clips: int) -> None:
    batch = {"clips": clips, "frames": 1}
    found = fresh(TINY, "training", stage="image", batch=batch, gradient_checkpointing=False)
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.2)


def test_estimate_knows_what_saves_memory(image_config: TrainConfig) -> None:
    def step(**change: object) -> int:
        config = TrainConfig(**image_config.model_dump() | {"batch": {"clips": 4, "frames": 4}} | change)
        return estimate_memory(Trainer(config, starting_pipeline(config)), 32, 32).step

    plain = step()
    assert step(gradient_checkpointing=True) < 0.8 * plain
    assert step(accumulate=4) < 0.5 * plain
    assert step(clip_threads=2) == plain
    assert step(precision="bfloat16") < plain


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
