"""AppearanceNet R (paper, Sec. 3.2.2; Fig. 2, "AppearanceNet"): features of the reference pictures at every site.

A UNet of the denoising UNet's shape that looks at clean latents (t = 0), once a clip.
Letters: b clips, r references, c latent channels, C channels of a site, h×w its size.
"""

import torch
from torch import Tensor, nn

from model.unet_walk import UNetConfig, build_unet, walk


class AppearanceNet(nn.Module):
    """R: references → f_1 … f_8 at each attention site."""

    def __init__(self, config: UNetConfig, latent_channels: int) -> None:
        super().__init__()
        self.unet = build_unet(config, latent_channels)
        # The last features are read at the last site: the output layers have nothing to do.
        self.unet.conv_norm_out = None
        self.unet.conv_out = None

    def forward(self, references: Tensor, context: Tensor) -> tuple[list[Tensor], Tensor]:
        """Latents [b, r, c, h, w], context [1, k, d] → features [b, r, C, h, w] at each site, presence [b, r].

        Presence is 1 or 0; an absent reference (all zeros) has features that are exactly zero.
        """
        b, r = references.shape[:2]
        present = references.flatten(2).any(dim=2).to(references.dtype)  # [b, r]
        collected: list[Tensor] = []

        def visit(_: int, features: Tensor) -> Tensor:
            collected.append(features.unflatten(0, (b, r)) * present[:, :, None, None, None])
            return features

        timestep = torch.zeros(b * r, device=references.device)
        walk(self.unet, references.flatten(0, 1), timestep, context.expand(b * r, -1, -1), visit)
        return collected, present
