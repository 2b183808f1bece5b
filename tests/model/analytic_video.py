"""A made-up kind of video whose best denoiser is known, to see what cutting a clip into windows does.

Letters: t frames, p pixels.
"""

import torch
from torch import Tensor

from model.schedule import ScheduleConfig, build_sampler, build_scheduler
from model.windows import WindowConfig, denoise

CORRELATION = 0.98  # of a pixel with itself in the next frame


def sample_process(noise: Tensor, config: WindowConfig) -> Tensor:
    """Video [t, p] of the process E[x_i x_j] = 0.98^|i−j|, by its best denoiser of each window alone.

    E[z_0 | z_t] = √ᾱ K (ᾱ K + (1−ᾱ) I)⁻¹ z_t for the window's covariance K: what a perfectly trained network
    with temporal layers would predict of a window, not knowing the other frames.
    """
    schedule = build_scheduler(ScheduleConfig(prediction="sample"))
    sampler = build_sampler(schedule, "ddim")
    sampler.set_timesteps(25)

    def predict(z: Tensor, timestep: Tensor, start: int, stop: int) -> Tensor:
        signal = schedule.alphas_cumprod[timestep].double()
        frames = torch.arange(stop - start)
        covariance = CORRELATION ** (frames[:, None] - frames).abs().double()
        noisy = signal * covariance + (1 - signal) * torch.eye(stop - start)
        gain = signal.sqrt() * torch.linalg.solve(noisy, covariance)  # matrices that commute
        return gain @ z[:, start:stop]

    return denoise(noise[None], sampler, predict, config, lambda: None)[0]


def seam_ratio(video: Tensor, starts: set[int]) -> float:
    """Mean squared temporal difference where a window begins, against elsewhere."""
    change = video.diff(dim=0).square().mean(dim=1)  # between frames k and k + 1
    border = torch.zeros(len(change), dtype=torch.bool)
    border[[start - 1 for start in starts if start > 0]] = True
    return float(change[border].mean() / change[~border].mean())
