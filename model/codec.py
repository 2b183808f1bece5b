"""Codecs between pictures and the latents that are denoised, behind one interface.

`PixelUnshuffleCodec` is lossless and has no weights: the honest default where no pretrained VAE is at hand.
`VaeCodec` is an AutoencoderKL, Stable Diffusion 1.5's by default.
Letters: n pictures, H×W picture, h×w latent, c latent channels.
"""

from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.accelerate_utils import apply_forward_hook
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from model.unet_walk import check_divides


class PixelUnshuffleConfig(BaseModel, frozen=True, extra="forbid"):
    """Size of a PixelUnshuffleCodec."""

    kind: Literal["pixel_unshuffle"]
    """Names this codec."""
    factor: PositiveInt = 4
    """Pixels along each side of a latent cell."""
    scale: PositiveFloat = 2.0
    """Latents are pictures in [-1, 1] times this: about unit variance."""

    @property
    def latent_channels(self) -> int:
        return 3 * self.factor**2


class VaeConfig(BaseModel, frozen=True, extra="forbid"):
    """Shape of a VaeCodec; the defaults are Stable Diffusion 1.5's."""

    kind: Literal["vae"]
    """Names this codec."""
    block_out_channels: tuple[PositiveInt, ...] = Field(default=(128, 256, 512, 512), min_length=1)
    """Channels of each resolution, finest first."""
    layers_per_block: PositiveInt = 2
    """ResNets of an encoder block; one more in the decoder."""
    latent_channels: PositiveInt = 4
    """Channels c of the latent."""
    norm_num_groups: PositiveInt = 32
    """Groups of the group normalisations."""
    scaling_factor: PositiveFloat = 0.18215
    """Latents are the VAE's times this: about unit variance."""

    @model_validator(mode="after")
    def _even_groups(self) -> Self:
        check_divides("norm_num_groups", self.norm_num_groups, self.block_out_channels)
        return self

    @property
    def factor(self) -> int:
        return 2 ** (len(self.block_out_channels) - 1)


CodecConfig = PixelUnshuffleConfig | VaeConfig


class PixelUnshuffleCodec(ModelMixin, ConfigMixin):
    """Rearranges blocks of pixels into channels: c = 3 · factor²."""

    @register_to_config
    def __init__(self, factor: int = 4, scale: float = 2.0) -> None:
        super().__init__()
        self.factor = factor
        self.latent_channels = 3 * factor**2
        self.gain = nn.Parameter(torch.tensor(scale), requires_grad=False)  # so that the codec has a device

    @apply_forward_hook  # for enable_model_cpu_offload, which else moves a model in `forward` alone
    def encode(self, pictures: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] → latents [n, c, h, w]."""
        return F.pixel_unshuffle(pictures, self.factor) * self.gain

    @apply_forward_hook
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [n, c, h, w] → [n, 3, H, W]; in [-1, 1] for the latents of pictures."""
        return F.pixel_shuffle(latents / self.gain, self.factor)


class VaeCodec(ModelMixin, ConfigMixin):
    """An AutoencoderKL and its scaling factor."""

    @register_to_config
    def __init__(self, vae: dict[str, Any]) -> None:
        super().__init__()
        self.autoencoder = AutoencoderKL.from_config(vae)
        self.factor = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)
        self.latent_channels = self.autoencoder.config.latent_channels

    @apply_forward_hook  # for enable_model_cpu_offload, which else moves a model in `forward` alone
    def encode(self, pictures: Tensor) -> Tensor:
        """[n, 3, H, W] in [-1, 1] → latents [n, c, h, w]: the mode, so that a picture has one latent."""
        posterior = self.autoencoder.encode(pictures.to(self.dtype)).latent_dist
        return posterior.mode() * self.autoencoder.config.scaling_factor

    @apply_forward_hook
    def decode(self, latents: Tensor) -> Tensor:
        """Latents [n, c, h, w] → [n, 3, H, W], about [-1, 1]."""
        return self.autoencoder.decode(latents / self.autoencoder.config.scaling_factor).sample


Codec = PixelUnshuffleCodec | VaeCodec


def build_codec(config: CodecConfig) -> Codec:
    """A codec with fresh weights, where it has any."""
    if isinstance(config, PixelUnshuffleConfig):
        return PixelUnshuffleCodec(config.factor, config.scale)
    levels = len(config.block_out_channels)
    shape = config.model_dump(exclude={"kind"})
    return VaeCodec(
        {
            **shape,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
        }
    )
