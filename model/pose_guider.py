"""Pose guider G of the layer normals and G_1 of the skeleton (paper, Eq. 1 and 5; Fig. 2, "Pose Guider").

    z' = z + G([H])        z'' = z + G_1(S)

Letters: n pictures, L layers, H×W picture, h×w latent, c output channels.
"""

import math
from typing import Literal

import torch.nn.functional as F
from pydantic import BaseModel, PositiveInt
from torch import Tensor, nn


class GuiderConfig(BaseModel, frozen=True, extra="forbid"):
    """Size of G and G_1, and where their output is added."""

    inject: Literal["conv_in", "latent"] = "conv_in"
    """`conv_in` adds to the features after the UNet's first convolution, `latent` to z_t as in Eq. 1."""
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (16, 32, 64, 128)
    """Width of the four convolution layers (Sec. 3.2.1)."""


class PoseGuider(nn.Module):
    """G (Eq. 1) or G_1 (Eq. 5): four convolutions down to the latent's size, and a zero-initialised one."""

    def __init__(self, in_channels: int, out_channels: int, channels: tuple[int, ...], factor: int) -> None:
        super().__init__()
        widths = (in_channels, *channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=stride, padding=1)
            for before, after, stride in zip(
                widths[:-1], widths[1:], strides(factor, len(channels)), strict=True
            )
        )
        self.conv_out = nn.Conv2d(channels[-1], out_channels, kernel_size=3, padding=1)
        # Zero-init: training starts from the unguided image model.
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor) -> Tensor:
        """[n, in_channels, H, W] → [n, out_channels, h, w]."""
        features = pictures
        for conv in self.convs:
            features = F.silu(conv(features))
        return self.conv_out(features)


def strides(factor: int, num_layers: int) -> tuple[int, ...]:
    """Ones, then twos whose product is `factor`: 1, 2, 2, 2 for the SD VAE's 8."""
    halvings = int(math.log2(factor))
    if 2**halvings != factor or halvings > num_layers:
        raise ValueError(f"factor: found {factor}, wanted a power of two up to {2**num_layers}")
    return (1,) * (num_layers - halvings) + (2,) * halvings
