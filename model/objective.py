"""What training minimises (paper, Sec. 3.3): the error of the prediction, weighed by area and noise level.

    loss = w(SNR) · mean_area |prediction − target|²        target: v (or ε) of z_t = √ᾱ z_0 + √(1−ᾱ) ε

Letters: b clips, t frames, c latent channels, h×w latent, H×W picture.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor, nn

from model.conditions import Conditions
from model.network import ManiVideoNetwork
from model.schedule import min_snr_weights
from model.training_config import TrainConfig


@dataclass(frozen=True)
class NoisedClips:
    """b clips as the loss takes them."""

    z_t: Tensor  # [b, t, c, h, w]
    timestep: Tensor  # [b, t]
    target: Tensor  # v, ε or z_0: [b, t, c, h, w]
    area: Tensor  # bool [b, t, H, W]
    conditions: Conditions

    def split(self, count: int) -> list["NoisedClips"]:
        """At most `count` shares of about equally many clips."""
        count = min(count, len(self.z_t))
        z_t, timestep = self.z_t.tensor_split(count), self.timestep.tensor_split(count)
        target, area = self.target.tensor_split(count), self.area.tensor_split(count)
        shares = zip(z_t, timestep, target, area, self.conditions.split(count), strict=True)
        return [NoisedClips(*share) for share in shares]


class Objective(nn.Module):
    """The network with its loss: one module, so that one forward pass is all of a step's."""

    def __init__(self, network: ManiVideoNetwork, scheduler: DDIMScheduler, config: TrainConfig) -> None:
        super().__init__()
        self.network, self.scheduler, self.config = network, scheduler, config

    def forward(self, clips: NoisedClips) -> Tensor:
        """Losses of the clips' frames [b, t]."""
        encoded = self.network.encode(clips.conditions)
        prediction = self.network(clips.z_t, clips.timestep, encoded)
        losses = weighted_loss(prediction, clips.target, clips.area, self.config.foreground_weight)
        if self.config.min_snr_gamma is not None:
            losses = losses * min_snr_weights(self.scheduler, clips.timestep, self.config.min_snr_gamma)
        return losses


def weighted_loss(prediction: Tensor, target: Tensor, area: Tensor, foreground_weight: float) -> Tensor:
    """Squared error [b, t, c, h, w] as a mean for each frame [b, t], in which the area counts more.

    area: bool [b, t, H, W]; a latent cell counts by the share of its pixels that are inside.
    """
    height, width = prediction.shape[-2:]
    inside = F.adaptive_avg_pool2d(area.float(), (height, width))  # [b, t, h, w]
    weight = 1.0 + (foreground_weight - 1.0) * inside
    error = (prediction.float() - target).square().mean(dim=2)  # [b, t, h, w]
    return (error * weight).flatten(2).sum(2) / weight.flatten(2).sum(2)
