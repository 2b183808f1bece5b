"""The denoising UNet with the layers added at each of its attention sites (paper, Fig. 2, green box).

At a site, after the UNet's own transformer block, in this order:
reference fusion (Eq. 3), attention to E_F (Eq. 2), attention to E_N (Eq. 4), motion module (Sec. 3.3).
Letters: b clips, t frames, c latent channels, C channels of a site, h×w its size, k tokens, d context width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.added_attention import AddedAttention
from model.config import NetworkConfig
from model.fusion import ReferenceFusion, SiteReferences
from model.unet_walk import Site, attention_sites, build_unet, walk


@dataclass(frozen=True)
class FrameEncoding:
    """What the UNet is told of each frame; independent of the noise level."""

    guidance: Tensor  # G([H]) + G_1(S): [b, t, C_0 or c, h, w]
    mlo_tokens: Tensor | None  # E_F: [b, t, k, d]; None: not embedded
    object_tokens: Tensor  # E_N: [b, t, k, d]

    def frames(self, start: int, stop: int) -> "FrameEncoding":
        """Frames [start, stop)."""
        return FrameEncoding(
            self.guidance[:, start:stop],
            None if self.mlo_tokens is None else self.mlo_tokens[:, start:stop],
            self.object_tokens[:, start:stop],
        )

    def to(self, device: torch.device | str) -> "FrameEncoding":
        """Move every tensor."""
        mlo = None if self.mlo_tokens is None else self.mlo_tokens.to(device)
        return FrameEncoding(self.guidance.to(device), mlo, self.object_tokens.to(device))


@dataclass(frozen=True)
class ClipEncoding:
    """What the UNet is told of each clip, the same for all its frames and noise levels."""

    context: Tensor  # of the UNet's own cross-attention: [b, k, d]
    references: tuple[SiteReferences, ...]  # R([O_I, O_B]), by site


@dataclass(frozen=True)
class Encoded:
    """Encoded conditions of b clips."""

    per_clip: ClipEncoding
    per_frame: FrameEncoding

    def frames(self, start: int, stop: int) -> "Encoded":
        """Frames [start, stop) of the clips, where the references are."""
        device = self.per_clip.context.device
        return replace(self, per_frame=self.per_frame.frames(start, stop).to(device))


def join_frames(parts: Sequence[FrameEncoding]) -> FrameEncoding:
    """Consecutive stretches of a clip as one."""
    mlo = [part.mlo_tokens for part in parts if part.mlo_tokens is not None]
    return FrameEncoding(
        guidance=torch.cat([part.guidance for part in parts], dim=1),
        mlo_tokens=torch.cat(mlo, dim=1) if mlo else None,
        object_tokens=torch.cat([part.object_tokens for part in parts], dim=1),
    )


class SiteLayers(nn.Module):
    """The layers added at one site; each is identity until trained."""

    def __init__(self, site: Site, config: NetworkConfig) -> None:
        super().__init__()
        self.site = site
        added = (config.unet.cross_attention_dim, config.feed_forward_mult, config.tokens)
        self.fusion = ReferenceFusion(site.channels, site.heads, site.stride, config.fusion)
        self.mlo = AddedAttention(site.channels, site.heads, *added) if config.has_occlusion_tokens else None
        self.object = AddedAttention(site.channels, site.heads, *added)
        self.motion: AnimateDiffTransformer3D | None = None

    def forward(self, features: Tensor, references: SiteReferences, per_frame: FrameEncoding) -> Tensor:
        """[b·t, C, h, w] → [b·t, C, h, w]."""
        features = self.fusion(features, references)
        if self.mlo is not None and per_frame.mlo_tokens is not None:
            features = self.mlo(features, per_frame.mlo_tokens.flatten(0, 1))
        features = self.object(features, per_frame.object_tokens.flatten(0, 1))
        if self.motion is not None:
            features = self.motion(features, num_frames=per_frame.object_tokens.shape[1])
        return features


class DenoisingUNet(nn.Module):
    """Predicts the noise target of every frame of b clips."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.unet = build_unet(config.unet, config.latent_channels)
        self.sites = nn.ModuleList(SiteLayers(site, config) for site in attention_sites(self.unet))
        self.inject = config.guider.inject
        self.gradient_checkpointing = False  # set by diffusers' enable_gradient_checkpointing

    @property
    def layers(self) -> list[SiteLayers]:
        """The added layers, by site."""
        return cast(list[SiteLayers], list(self.sites))

    def forward(self, z: Tensor, timestep: Tensor, encoded: Encoded) -> Tensor:
        """z_t [b, t, c, h, w], timestep [b] or [b, t] → prediction [b, t, c, h, w]."""
        b, t = z.shape[:2]

        def visit(index: int, features: Tensor) -> Tensor:
            arguments = (features, encoded.per_clip.references[index], encoded.per_frame)
            if self.gradient_checkpointing and torch.is_grad_enabled():
                return checkpoint(self.sites[index], *arguments, use_reentrant=False)
            return self.sites[index](*arguments)

        latents, guidance = z.flatten(0, 1), encoded.per_frame.guidance.flatten(0, 1)
        steps = timestep.reshape(b, -1).expand(b, t).flatten()
        contexts = encoded.per_clip.context.repeat_interleave(t, dim=0)  # [b·t, k, d]
        if self.inject == "latent":  # Eq. 1 and 5 to the letter
            features = walk(self.unet, latents + guidance, steps, contexts, visit)
        else:
            features = walk(self.unet, latents, steps, contexts, visit, guidance)
        prediction = self.unet.conv_out(self.unet.conv_act(self.unet.conv_norm_out(features)))
        return prediction.unflatten(0, (b, t))
