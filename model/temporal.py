"""Temporal layers after every attention site (paper, Sec. 3.3): AnimateDiff's motion modules.

They mix frames at each position apart and are identity until trained, so a clip starts as its frames.
"""

from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from pydantic import BaseModel, PositiveInt
from torch import nn

from storage.errors import InputError


class TemporalConfig(BaseModel, frozen=True, extra="forbid"):
    """Size of the motion modules; the defaults are AnimateDiff's for SD 1.5."""

    heads: PositiveInt = 8
    """Attention heads."""
    max_frames: PositiveInt = 32
    """Longest window that has position codes, in frames."""


def motion_module(channels: int, norm_groups: int, config: TemporalConfig) -> AnimateDiffTransformer3D:
    """Two self-attentions over time and a feed-forward; [b·t, C, h, w] → [b·t, C, h, w]."""
    if channels // config.heads * config.heads % 2 or channels < config.heads:  # its position codes are pairs
        wanted = f"one that divides the channels {channels}"
        raise InputError(f"temporal.heads: found {config.heads}, wanted {wanted}", code="config")
    module = AnimateDiffTransformer3D(
        num_attention_heads=config.heads,
        attention_head_dim=channels // config.heads,
        in_channels=channels,
        norm_num_groups=norm_groups,
        positional_embeddings="sinusoidal",
        num_positional_embeddings=config.max_frames,
    )
    # Zero-init: diffusers starts motion modules from random output, which would undo the image stage.
    nn.init.zeros_(module.proj_out.weight)
    nn.init.zeros_(module.proj_out.bias)
    return module
