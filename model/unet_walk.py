"""A walk over the blocks of diffusers' UNet2DConditionModel that stops at every attention site.

A site is the place right after one of the UNet's own Transformer2DModels. The denoising UNet adds its layers
there and AppearanceNet reads its features there, so both take this walk; nothing is hooked or kept.
Letters: n pictures, c latent channels, C channels of a site, h×w its size, k context tokens, d context width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, Self

import torch
from diffusers import UNet2DConditionModel
from pydantic import BaseModel, Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

DownBlock = Literal["DownBlock2D", "CrossAttnDownBlock2D"]
UpBlock = Literal["UpBlock2D", "CrossAttnUpBlock2D"]
Visit = Callable[[int, Tensor], Tensor]  # (index of the site, features [n, C, h, w]) → features that go on


class UNetConfig(BaseModel, frozen=True, extra="forbid"):
    """Shape of the denoising UNet and of AppearanceNet; the defaults are Stable Diffusion 1.5's."""

    block_out_channels: tuple[PositiveInt, ...] = Field(default=(320, 640, 1280, 1280), min_length=1)
    """Channels of each resolution, finest first."""
    down_block_types: tuple[DownBlock, ...] = (
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "CrossAttnDownBlock2D",
        "DownBlock2D",
    )
    """diffusers' block at each resolution on the way down."""
    up_block_types: tuple[UpBlock, ...] = (
        "UpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
        "CrossAttnUpBlock2D",
    )
    """diffusers' block at each resolution on the way up, coarsest first."""
    layers_per_block: PositiveInt = 2
    """ResNets of a block; one more on the way up."""
    attention_head_dim: PositiveInt = 8
    """Attention heads (diffusers' name for them in SD 1.5)."""
    cross_attention_dim: PositiveInt = 768
    """Context width d."""
    only_cross_attention: tuple[bool, ...] | bool = False
    """Whether the UNet's own attention looks at its context alone, at each resolution or at all: that of h·w
    places to one another is dear where they are many."""
    norm_num_groups: PositiveInt = 32
    """Groups of the group normalisations."""

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        levels = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types", "only_cross_attention"):
            given = getattr(self, name)
            if isinstance(given, tuple) and len(given) != levels:
                raise ValueError(
                    f"{name}: found {len(given)}, wanted {levels}, as many as block_out_channels"
                )
        if "CrossAttnUpBlock2D" not in self.up_block_types:
            raise ValueError(f"up_block_types: found {self.up_block_types}, wanted a CrossAttnUpBlock2D")
        check_divides("norm_num_groups", self.norm_num_groups, self.block_out_channels)
        blocks = zip(
            self.down_block_types, reversed(self.up_block_types), self.block_out_channels, strict=True
        )
        attending = [channels for down, up, channels in blocks if "CrossAttn" in down + up]
        attending.append(self.block_out_channels[-1])  # the middle block's
        check_divides("attention_head_dim", self.attention_head_dim, attending)
        return self


def check_divides(name: str, parts: int, channels: Sequence[int]) -> None:
    """Raise ValueError where channels cannot be split into so many equal parts."""
    if left := sorted({each for each in channels if each % parts}):
        raise ValueError(f"{name}: found {parts}, wanted one that divides the channels {left}")


@dataclass(frozen=True)
class Site:
    """Where one attention site is in its UNet."""

    path: (
        str  # diffusers' name of the attention before it; AnimateDiff's modules are named after the same path
    )
    channels: int
    heads: int
    stride: int  # latent cells between neighbouring positions


def build_unet(config: UNetConfig, latent_channels: int) -> UNet2DConditionModel:
    """A UNet with fresh weights; with the default config it takes SD 1.5's by name."""
    return UNet2DConditionModel(
        in_channels=latent_channels, out_channels=latent_channels, **config.model_dump(mode="python")
    )


def attention_sites(unet: UNet2DConditionModel) -> list[Site]:
    """The sites in the order of the walk."""
    sites, stride = [], 1
    for name, blocks in (
        ("down_blocks.{}", unet.down_blocks),
        ("mid_block", [unet.mid_block]),
        ("up_blocks.{}", unet.up_blocks),
    ):
        for i, block in enumerate(blocks):
            for j, attention in enumerate(getattr(block, "attentions", ())):
                path = f"{name.format(i)}.attentions.{j}"
                sites.append(Site(path, attention.in_channels, attention.config.num_attention_heads, stride))
            if getattr(block, "downsamplers", None):
                stride *= 2
            if getattr(block, "upsamplers", None):
                stride //= 2
    return sites


def end_at_last_site(unet: UNet2DConditionModel) -> None:
    """Take away the layers behind the last site, which have nothing to do where only sites are looked at."""
    last = max(i for i, block in enumerate(unet.up_blocks) if getattr(block, "attentions", ()))
    unet.up_blocks = unet.up_blocks[: last + 1]
    unet.up_blocks[last].upsamplers = None
    unet.conv_norm_out = None
    unet.conv_out = None


def walk(
    unet: UNet2DConditionModel,
    latents: Tensor,
    timestep: Tensor,
    context: Tensor,
    visit: Visit,
    guidance: Tensor | None = None,
) -> Tensor:
    """Run the UNet on latents [n, c, h, w] up to its output layers → features [n, C_0, h, w].

    `timestep` is [n] or a scalar, `context` [n, k, d]; `guidance` [n, C_0, h, w] is added after conv_in.
    """
    embedding = unet.time_embedding(unet.get_time_embed(latents, timestep))
    layer = _Layer(embedding, context, visit)
    features = unet.conv_in(latents)
    if guidance is not None:
        features = features + guidance
    skips = [features]
    for block in unet.down_blocks:
        for resnet, attention in zip_longest(block.resnets, getattr(block, "attentions", ())):
            features = layer.attend(attention, layer.resnet(block, resnet, features))
            skips.append(features)
        for downsample in block.downsamplers or ():
            features = downsample(features)
            skips.append(features)
    features = layer.resnet(unet.mid_block, unet.mid_block.resnets[0], features)
    for resnet, attention in zip(unet.mid_block.resnets[1:], unet.mid_block.attentions, strict=True):
        features = layer.resnet(unet.mid_block, resnet, layer.attend(attention, features))
    for block in unet.up_blocks:
        for resnet, attention in zip_longest(block.resnets, getattr(block, "attentions", ())):
            features = torch.cat([features, skips.pop()], dim=1)
            features = layer.attend(attention, layer.resnet(block, resnet, features))
        for upsample in block.upsamplers or ():
            features = upsample(
                features, skips[-1].shape[-2:]
            )  # the skip's size: pictures need not divide by 2^n
    return features


class _Layer:
    """One step of the walk: a ResNet, then the UNet's own attention and the site after it."""

    def __init__(self, embedding: Tensor, context: Tensor, visit: Visit) -> None:
        self.embedding, self.context, self.visit = embedding, context, visit
        self.sites_visited = 0

    def resnet(self, block: nn.Module, resnet: nn.Module, features: Tensor) -> Tensor:
        if block.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(resnet, features, self.embedding, use_reentrant=False)
        return resnet(features, self.embedding)

    def attend(self, attention: nn.Module | None, features: Tensor) -> Tensor:
        if attention is None:
            return features
        features = attention(features, encoder_hidden_states=self.context, return_dict=False)[0]
        self.sites_visited += 1
        return self.visit(self.sites_visited - 1, features)
