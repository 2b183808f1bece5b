"""Geometry tokens E_N of the object's normals and point cloud (paper, Eq. 4).

    E_N = MLP(Conv[H_o, P])

H_o is a picture of every frame; P is a set without order or time, in the object's canonical frame.
Letters: b clips, t frames, P points, k tokens of a picture, q tokens of the points, d context width.
"""

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from model.mlo_embedding import PictureTokens, TokenMlp, TokensConfig

UNIT = 0.1  # of the canonical radius: the length that the point MLP takes as 1


class PointTokens(nn.Module):
    """A shared MLP on each point, then q learned queries that attend to all points in whatever order."""

    def __init__(self, config: TokensConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self.point_mlp = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, width))
        self.queries = nn.Parameter(torch.randn(config.points, width) / width**0.5)
        self.pool = Attention(query_dim=width, heads=1, dim_head=width)

    def forward(self, points: Tensor) -> Tensor:
        """[b, P, 3], radius 1 → [b, q, width]."""
        queries = self.queries.expand(len(points), -1, -1)
        return self.pool(queries, encoder_hidden_states=self.point_mlp(points / UNIT))


class ObjectEmbedding(nn.Module):
    """E_N (Eq. 4): tokens of H_o and of P with a type embedding each, side by side through one MLP."""

    def __init__(self, context_dim: int, config: TokensConfig) -> None:
        super().__init__()
        width = config.channels[-1]
        self.picture_tokens = PictureTokens(3, config)
        self.point_tokens = PointTokens(config)
        self.types = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.mlp = TokenMlp(width, context_dim)

    def forward(self, object_normals: Tensor, points: Tensor) -> Tensor:
        """H_o [b, t, 3, H, W] and P [b, P, 3] → E_N [b, t, k + q, d]."""
        b, t = object_normals.shape[:2]
        picture = self.picture_tokens(object_normals.flatten(0, 1)).unflatten(0, (b, t))  # [b, t, k, width]
        cloud = self.point_tokens(points)[:, None].expand(-1, t, -1, -1)  # [b, t, q, width]
        return self.mlp(torch.cat([picture + self.types[0], cloud + self.types[1]], dim=2))
