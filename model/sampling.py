"""How a video is sampled: steps, solver, guidance, windows.

    ε' = (1 − s_r) ε(∅, ∅) + (s_r − s_m) ε(r, ∅) + s_m ε(r, m)

is classifier-free guidance with a scale s_r for the references r and a scale s_m for the motion m (as Brooks
et al. 2023 do for a picture and a text). Equal scales leave the middle term out; scales of 1 leave the
conditional prediction alone.
Letters: b clips, t frames.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from model.conditions import Conditions
from model.windows import WindowConfig
from storage.errors import InputError


class SamplingConfig(BaseModel, frozen=True, extra="forbid"):
    """How the pipeline generates."""

    num_inference_steps: int = Field(default=25, ge=1)
    """Denoising steps; `ddim` takes each equally long, so it wants a divisor of the noise levels."""
    sampler: Literal["ddim", "euler", "dpm_solver++"] = "ddim"
    """Solver of the steps, on the noise levels that were trained with."""
    guidance_scale: float = Field(default=1.0, ge=0)
    """Classifier-free guidance s_r by the references: pictures and points; 1: none."""
    motion_guidance_scale: float | None = Field(default=None, ge=0)
    """Guidance s_m by the motion: layers and skeleton; null: as much as by the references."""
    window: WindowConfig = WindowConfig()
    """How clips longer than a window are generated."""
    decoded_at_once: int = Field(default=8, ge=1)
    """Latents that the codec decodes at once; fewer need less memory."""


def check_sampling(config: SamplingConfig, *, longest_window: float, noise_levels: int) -> None:
    """Raise InputError where a model cannot be sampled so.

    longest_window: frames that its position codes reach; noise_levels: those it was trained with.
    """
    steps, length = config.num_inference_steps, config.window.length
    if steps > noise_levels:
        wanted = f"at most {noise_levels}, the noise levels of the model"
        raise InputError(f"sampling.num_inference_steps: found {steps}, wanted {wanted}", code="config")
    if length > longest_window:
        wanted = f"at most {longest_window}, for which there are position codes"
        raise InputError(f"sampling.window.length: found {length}, wanted {wanted}", code="config")


def guidance_branches(conditions: Conditions, config: SamplingConfig) -> list[tuple[float, Conditions]]:
    """The predictions that guidance sums, each with its weight; one of weight 0 is left out."""
    references = config.guidance_scale
    motion = references if config.motion_guidance_scale is None else config.motion_guidance_scale
    branches = [
        (1.0 - references, conditions.absent()),
        (references - motion, conditions.without_motion()),
        (motion, conditions),
    ]
    return [(weight, branch) for weight, branch in branches if weight != 0.0]


def draw_noise(shape: Sequence[int], generator: torch.Generator | Sequence[torch.Generator] | None) -> Tensor:
    """Noise [b, t, …] drawn frame by frame, with a generator for each clip or one for all in their order.

    So a clip's noise is the same in any batch, if it has its own generator, and a longer clip begins like a
    shorter one.
    """
    b, t, *rest = shape
    generators = list(generator) if isinstance(generator, Sequence) else [generator] * b
    if len(generators) != b:
        raise ValueError(f"{len(generators)} generators for {b} clips")
    return torch.stack([torch.stack([_randn(rest, each) for _ in range(t)]) for each in generators])


def _randn(shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """On the generator's device, so that one seed is the same noise for any device of the network."""
    device = "cpu" if generator is None else generator.device
    return torch.randn(*shape, generator=generator, device=device)
