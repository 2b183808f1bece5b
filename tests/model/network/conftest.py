"""A network of the smallest size that still has every box, and random conditions for it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn

from model.clip_context import context_shape
from model.conditions import NUM_REFERENCES, Conditions
from model.config import ModelConfig, NetworkConfig
from model.network import ManiVideoNetwork
from storage.config import load_config

CONFIGS = Path(__file__).parents[3] / "configs" / "model"


@pytest.fixture(autouse=True)
def _quiet_single_thread_with_seed() -> Iterator[None]:
    diffusers_logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> ModelConfig:
    return load_config(ModelConfig, CONFIGS / "tiny.yaml")


@pytest.fixture
def sd15() -> ModelConfig:
    return load_config(ModelConfig, CONFIGS / "sd15.yaml")


@pytest.fixture
def small(tiny: ModelConfig) -> NetworkConfig:
    return tiny.network


@pytest.fixture
def network(small: NetworkConfig) -> ManiVideoNetwork:
    return ManiVideoNetwork(small)


@pytest.fixture
def make_conditions() -> Callable[..., Conditions]:
    return random_conditions


@pytest.fixture
def trained() -> Callable[[nn.Module], nn.Module]:
    return stir


def random_conditions(config: NetworkConfig, b: int = 1, t: int = 2, size: int = 32) -> Conditions:
    """Every condition present; pictures of size × size."""
    layers, latent = config.num_layers, size // config.factor
    return Conditions(
        normals=torch.rand(b, t, layers, 3, size, size) * 2 - 1,
        confidence=torch.rand(b, t, layers, size, size),
        references=torch.randn(b, NUM_REFERENCES, config.latent_channels, latent, latent),
        context=torch.randn(b, *context_shape(config)),
        points=torch.rand(b, 50, 3) - 0.5,
        skeleton=torch.rand(b, t, 3, size, size),
    )


def stir(module: nn.Module) -> nn.Module:
    """Take every parameter off its initial value, zeros included, as training would."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return module


def noisy(conditions: Conditions) -> Tensor:
    """Random z_t [b, t, c, h, w] for these conditions."""
    b, t = conditions.normals.shape[:2]
    return torch.randn(b, t, *conditions.references.shape[2:])


@pytest.fixture
def make_noisy() -> Callable[..., Tensor]:
    return noisy
