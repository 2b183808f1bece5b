"""Long videos by overlapping windows (the paper generates 24 frames at a time).

Each frame's prediction is the weighted mean over the windows that see it; weights rise and fall linearly over
the overlap, so neighbouring windows cross-fade. Windows shift between denoising steps, so that no seam stays
put, and never wrap around from the clip's end to its start.
Letters: b clips, t frames.
"""

from collections.abc import Callable
from functools import partial

import torch
from diffusers import SchedulerMixin
from pydantic import BaseModel, Field, model_validator
from torch import Tensor

GOLDEN_RATIO = 0.618  # steps of this share of the stride never come back to where an earlier one was

Predict = Callable[[Tensor, Tensor, int, int], Tensor]  # (all of z, timestep, start, stop) → of these frames


class WindowConfig(BaseModel, frozen=True, extra="forbid"):
    """How a long clip is cut."""

    length: int = Field(default=24, ge=1)
    """Frames of a window; what the temporal layers were trained on."""
    overlap: int = Field(default=8, ge=0)
    """Least number of frames that neighbouring windows share."""

    @model_validator(mode="after")
    def _moves_on(self) -> "WindowConfig":
        if self.overlap >= self.length:
            raise ValueError(f"overlap {self.overlap} leaves nothing of a window of {self.length}")
        return self


def windows(num_frames: int, step: int, config: WindowConfig) -> list[tuple[int, int]]:
    """[start, stop) of every window at a denoising step: `length` frames each, or all of a shorter clip."""
    last = max(num_frames - config.length, 0)
    stride = config.length - config.overlap
    offset = round(step * GOLDEN_RATIO * stride) % stride
    starts = {min(max(start, 0), last) for start in range(-offset, last + stride, stride)}
    return [(start, min(start + config.length, num_frames)) for start in sorted(starts)]


def ramp(length: int, overlap: int) -> Tensor:
    """Blend weights of a window's frames [length]: they rise over `overlap` frames and fall over the last."""
    position = torch.arange(1, length + 1)
    return torch.minimum(position, position.flip(0)).clamp(max=overlap + 1) / (overlap + 1)


def blend(predict: Callable[[int, int], Tensor], num_frames: int, step: int, config: WindowConfig) -> Tensor:
    """Blend predictions [b, stop − start, …] of all windows of a step into one [b, t, …]."""
    total, weight = None, torch.zeros(num_frames)
    for start, stop in windows(num_frames, step, config):
        prediction = predict(start, stop)
        weights = ramp(stop - start, config.overlap)
        if total is None:
            total = prediction.new_zeros(prediction.shape[0], num_frames, *prediction.shape[2:])
        total[:, start:stop] += prediction * _along_time(weights, prediction)
        weight[start:stop] += weights
    assert total is not None  # a clip has at least one frame
    return total / _along_time(weight, total)


def denoise(
    z: Tensor, sampler: SchedulerMixin, predict: Predict, config: WindowConfig, on_step: Callable[[], object]
) -> Tensor:
    """Run the sampler's steps on pure noise [b, t, …], scaled as the sampler wants it, to clean latents."""
    for step, timestep in enumerate(sampler.timesteps):
        scaled = sampler.scale_model_input(z, timestep)
        prediction = blend(partial(predict, scaled, timestep), z.shape[1], step, config)
        z = sampler.step(prediction, timestep, z).prev_sample
        on_step()
    return z


def _along_time(weights: Tensor, like: Tensor) -> Tensor:
    """[t] → [t, 1, …] that multiplies `like` [b, t, …]."""
    return weights.to(like).reshape(-1, *[1] * (like.ndim - 2))
