"""Muon: what it steps, and how."""

import pytest
import pytorch_optimizer
import torch

from model.muon import Muon
from model.start import starting_pipeline
from model.trainer import build_optimizer, select_trained
from model.training_config import TrainConfig


def test_muon_steps_every_weight_matrix_and_adamw_the_rest(image_config: TrainConfig) -> None:
    config = image_config.model_copy(update={"optimizer": "muon"})
    trained = select_trained(starting_pipeline(config).network, config.stage)
    matrices, rest = (group["params"] for group in build_optimizer(trained, config).param_groups)
    assert {id(p) for p in matrices}.isdisjoint(id(p) for p in rest)
    assert len(matrices) + len(rest) == len(trained)
    assert all(p.ndim > 1 for p in matrices)
    assert sum(p.numel() for p in matrices) > 0.9 * sum(p.numel() for p in trained.values())


@pytest.mark.parametrize("shape", [(8, 24), (24, 8), (8, 4, 3, 3)])
def test_muon_s_steps_are_the_library_s_but_for_its_bfloat16(shape: tuple[int, ...]) -> None:
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    steps = []
    for kind in (Muon, pytorch_optimizer.Muon):
        weight = torch.nn.Parameter(torch.zeros(shape))
        optimizer = kind([{"params": [weight], "use_muon": True, "lr": 1.0, "weight_decay": 0.0}])
        weight.grad = gradient.clone()
        optimizer.step()
        steps.append(weight.detach())
    ours, library = steps
    assert ours.dtype == library.dtype == torch.float32
    assert 0 < (ours - library).norm() / library.norm() < 0.03  # five rounds in eight bits
