"""Occlusion tokens E_F of the multi-layer occlusion structure (paper, Eq. 2).

    E_F = MLP(Conv[H, D])

Letters: n frames, L layers, H×W picture, g×g token grid, k = g² tokens, d context width.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn


class TokensConfig(BaseModel, frozen=True, extra="forbid"):
    """How pictures become tokens."""

    channels: tuple[PositiveInt, ...] = Field(default=(32, 64, 128, 256), min_length=1)
    """Width of the convolutions, each of stride 2; the last is the tokens' width before the MLP, of which
    sines and cosines of two coordinates take a fourth each."""
    grid: PositiveInt = 16
    """Tokens along each side of the picture."""
    points: PositiveInt = 64
    """Tokens that the point cloud is pooled to."""
    ranges: tuple[PositiveFloat, ...] | None = Field(default=None, min_length=1)
    """How far around a place the heads of the added attention look, in tokens (standard deviation); they take
    these in turn. null: everywhere alike, as in Eq. 2 and 4."""

    @field_validator("channels")
    @classmethod
    def _has_a_position_code(cls, channels: tuple[int, ...]) -> tuple[int, ...]:
        if channels[-1] % 4:
            raise ValueError(f"found {channels[-1]} as the last, wanted a multiple of 4")
        return channels


class PictureTokens(nn.Module):
    """Strided convolutions to a g×g grid, with a fixed 2-D sine-cosine position code.

    Contents are normalised before the code is added: fresh convolutions return a sixtieth of its size, and
    tokens would tell places apart and little else. Where a picture is empty, so are contents, without a bias.
    """

    position: Tensor

    def __init__(self, in_channels: int, config: TokensConfig) -> None:
        super().__init__()
        widths = (in_channels, *config.channels)
        self.grid = config.grid
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False)
            for before, after in pairwise(widths)
        )
        self.norm = nn.LayerNorm(config.channels[-1])
        self.register_buffer(
            "position", get_2d_sincos_pos_embed(config.channels[-1], config.grid).float()
        )  # [k, width]

    def forward(self, pictures: Tensor) -> Tensor:
        """[n, in_channels, H, W] → [n, k, width]."""
        features = pictures
        for conv in self.convs:
            features = F.silu(conv(features))
        pooled = F.adaptive_avg_pool2d(features, self.grid)  # [n, width, g, g]
        return self.norm(pooled.flatten(2).mT) + self.position.to(pooled.dtype)


class TokenMlp(nn.Sequential):
    """The MLP of Eq. 2 and 4, applied to each token: [..., width] → [..., d]."""

    def __init__(self, width: int, context_dim: int) -> None:
        super().__init__(
            nn.LayerNorm(width), nn.Linear(width, context_dim), nn.SiLU(), nn.Linear(context_dim, context_dim)
        )


class MloEmbedding(nn.Module):
    """E_F (Eq. 2): one set of tokens a frame."""

    def __init__(self, num_layers: int, context_dim: int, config: TokensConfig) -> None:
        super().__init__()
        self.tokens = PictureTokens(4 * num_layers, config)  # a normal and a confidence for each layer
        self.mlp = TokenMlp(config.channels[-1], context_dim)

    def forward(self, normals: Tensor, confidence: Tensor) -> Tensor:
        """H [n, L, 3, H, W] and D [n, L, H, W] → E_F [n, k, d]."""
        layers = torch.cat([normals.flatten(1, 2), confidence], dim=1)  # [n, 4L, H, W]
        return self.mlp(self.tokens(layers))
