"""The transformer block that is added after the UNet's own (paper, Eq. 2 and 4).

    Q = W^Q z,  K = W^K E,  V = W^V E,  Attention(Q, K, V) = Softmax(Q Kᵀ / √d + B) V

B is 0, the paper's attention to all tokens alike, or with `tokens.ranges` nearness: −δ² / 2r² for a place and
a picture's token δ tokens apart and a head of range r. Fresh weights know of no places, and to learn which
token shows what takes longer than a small network is trained.

Letters: n frames, C channels of a site, h×w its size, k tokens, d context width, a heads.
"""

from itertools import cycle, islice

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from torch import Tensor, nn

from model.mlo_embedding import TokensConfig


class AddedAttention(nn.Module):
    """Cross-attention to tokens (Eq. 2 and 4) and a feed-forward, both residual; identity until trained."""

    def __init__(
        self, channels: int, heads: int, context_dim: int, feed_forward_mult: int, tokens: TokensConfig
    ) -> None:
        super().__init__()
        self.heads, self.grid = heads, tokens.grid
        self.ranges = tokens.ranges and tuple(islice(cycle(tokens.ranges), heads))
        self.norm_attention = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(context_dim, channels, bias=False)
        self.to_v = nn.Linear(context_dim, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        self.norm_feed_forward = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, mult=feed_forward_mult)
        # Zero-init of both residual branches: training starts from the UNet as it is.
        for last in (self.to_out, self.feed_forward.net[2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Features [n, C, h, w] attend to tokens [n, k, d] → [n, C, h, w].

        The first g² tokens are a picture's, row by row; others have no place and are equally near to all.
        """
        size = features.shape[2:]
        z = features.flatten(2).mT  # [n, h·w, C]
        z = z + self._attend(self.norm_attention(z), embedding, size)
        z = z + self.feed_forward(self.norm_feed_forward(z))
        return z.mT.unflatten(2, size)

    def _attend(self, z: Tensor, embedding: Tensor, size: torch.Size) -> Tensor:
        projected = (self.to_q(z), self.to_k(embedding), self.to_v(embedding))
        q, k, v = (split_heads(each, self.heads) for each in projected)
        bias = None
        if self.ranges is not None:
            bias = nearness(size, self.grid, self.ranges, z.device)  # [a, h·w, g²]
            bias = F.pad(bias, (0, embedding.shape[1] - self.grid**2))[None].to(q.dtype)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # [n, a, h·w, C/a]
        return self.to_out(attended.transpose(1, 2).flatten(2))


def split_heads(tokens: Tensor, heads: int) -> Tensor:
    """[n, k, C] → [n, a, k, C/a]."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def nearness(size: torch.Size, grid: int, ranges: tuple[float, ...], device: torch.device) -> Tensor:
    """−δ² / 2r² of each of h×w places to each of g×g tokens that cover the same picture: [a, h·w, g²].

    ranges: r of each head, in tokens, as is δ, between the middles of both.
    """
    places, tokens = _middles(size[0], size[1], device) * grid, _middles(grid, grid, device) * grid
    squared = (places[:, None] - tokens).square().sum(dim=-1)  # [h·w, g²]
    return squared / (-2 * torch.tensor(ranges, device=device).square())[:, None, None]


def _middles(rows: int, columns: int, device: torch.device) -> Tensor:
    """Middles [rows · columns, 2] of the cells of the unit square."""
    y, x = ((torch.arange(number, device=device) + 0.5) / number for number in (rows, columns))
    return torch.cartesian_prod(y, x)
