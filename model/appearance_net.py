"""AppearanceNet R (paper, Sec. 3.2.2; Fig. 2): features of the reference pictures at every attention site.

A UNet of the denoising UNet's shape that looks at clean latents (t = 0), once a clip.
Letters: b clips, r references, c latent channels, C channels of a site, h×w its size, k context tokens, d
context width.
"""

import torch
from torch import Tensor, nn

from model.unet_walk import UNetConfig, build_unet, end_at_last_site, walk


class AppearanceNet(nn.Module):
    """R: references → f_1 … f_8 at each attention site."""

    def __init__(self, config: UNetConfig, latent_channels: int) -> None:
        super().__init__()
        self.unet = build_unet(config, latent_channels)
        end_at_last_site(self.unet)

    def forward(self, references: Tensor, context: Tensor) -> tuple[list[Tensor], Tensor]:
        """Latents [b, r, c, h, w], context [b, k, d] → f_1 … f_8 [b, r, C, h, w] by site and presence [b, r].

        An absent reference (all zeros) is not run through R: its features are exactly zero.
        """
        present = references.flatten(2).any(dim=2)  # [b, r]
        looked_at = present.clone()
        looked_at[0, 0] |= ~present.any()  # diffusers' attention does not run on an empty batch
        seen, counted = references[looked_at], present[looked_at]  # [n, c, h, w], [n]
        contexts = context[:, None].expand(-1, references.shape[1], -1, -1)[looked_at]  # [n, k, d]
        collected: list[Tensor] = []

        def visit(_: int, features: Tensor) -> Tensor:
            site_features = features.new_zeros(*present.shape, *features.shape[1:])
            site_features[looked_at] = features * counted[:, None, None, None]
            collected.append(site_features)
            return features

        timestep = torch.zeros((), device=references.device)
        walk(self.unet, seen, timestep, contexts, visit)
        return collected, present
