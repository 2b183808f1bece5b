"""The noise schedule: one for training and inference.

    z_t = √ᾱ z_0 + √(1−ᾱ) ε        v = √ᾱ ε − √(1−ᾱ) z_0        SNR = ᾱ / (1−ᾱ)

The default predicts v with zero terminal SNR and trailing timesteps (Lin et al. 2023, "Common Diffusion Noise
Schedules and Sample Steps are Flawed"): inference starts from the pure noise that training ends with.
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, SchedulerMixin
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

SAMPLERS = {
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpm_solver++": DPMSolverMultistepScheduler,
}


class ScheduleConfig(BaseModel, frozen=True, extra="forbid"):
    """Noise levels, and what the network predicts; the noise levels are Stable Diffusion 1.5's."""

    prediction: Literal["v_prediction", "epsilon", "sample"] = "v_prediction"
    """`epsilon` is what Stable Diffusion 1.5 was trained for. `sample` predicts z_0, for a network too narrow
    for its latents: v and ε contain the noise of every latent channel, and all of it has to pass through."""
    zero_terminal_snr: bool = True
    """Rescale the noise levels so that the last is pure noise; epsilon says nothing of the picture there."""
    spacing: Literal["trailing", "leading"] = "trailing"
    """Inference timesteps: `trailing` includes the last, `leading` is Stable Diffusion 1.5's."""
    num_train_timesteps: int = Field(default=1000, ge=2)
    """Number of noise levels."""

    @model_validator(mode="after")
    def _predictable(self) -> Self:
        if self.zero_terminal_snr and (self.prediction == "epsilon" or self.spacing == "leading"):
            raise ValueError("zero_terminal_snr needs a prediction other than epsilon, and spacing: trailing")
        return self


def build_scheduler(config: ScheduleConfig) -> DDIMScheduler:
    """The schedule as diffusers' DDIM scheduler: training adds noise with it, inference steps with it."""
    return DDIMScheduler(
        num_train_timesteps=config.num_train_timesteps,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type=config.prediction,
        rescale_betas_zero_snr=config.zero_terminal_snr,
        timestep_spacing=config.spacing,
        steps_offset=1 if config.spacing == "leading" else 0,
    )


def build_sampler(scheduler: DDIMScheduler, name: str) -> SchedulerMixin:
    """A solver of SAMPLERS on the noise levels, prediction and spacing of the schedule."""
    return SAMPLERS[name].from_config(scheduler.config)


def prediction_target(scheduler: DDIMScheduler, z_0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """What the network should predict for clean latents z_0 [b, …], noise [b, …] and timestep [b]."""
    match scheduler.config.prediction_type:
        case "epsilon":
            return noise
        case "sample":
            return z_0
        case _:
            return scheduler.get_velocity(z_0, noise, timestep)


def seeded_generator(entropy: Sequence[int]) -> torch.Generator:
    """A generator of noise on the CPU, the same for any device, for each sequence of numbers."""
    (seed,) = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(seed))


def min_snr_weights(scheduler: DDIMScheduler, timestep: Tensor, gamma: float) -> Tensor:
    """Loss weight of each sample [b] (Hang et al. 2023).

    For ε: min(SNR, γ) / SNR. For v: min(SNR + 1, γ) / (SNR + 1), as their min(SNR, γ) / (SNR + 1) would give
    no weight to the last timestep, whose SNR is 0 and from which inference starts. For z_0 the same loss as
    for v: ‖v − v'‖² = (SNR + 1) ‖z_0 − z_0'‖², so min(SNR + 1, γ).
    """
    alphas = scheduler.alphas_cumprod.to(timestep.device)[timestep]
    snr = alphas / (1 - alphas)
    match scheduler.config.prediction_type:
        case "epsilon":
            return snr.clamp(max=gamma) / snr
        case "sample":
            return (snr + 1).clamp(max=gamma)
        case _:
            return (snr + 1).clamp(max=gamma) / (snr + 1)
