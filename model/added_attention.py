"""The transformer block that is added after the UNet's own (paper, Eq. 2 and 4).

    Q = W^Q z,  K = W^K E,  V = W^V E,  Attention(Q, K, V) = Softmax(Q Kᵀ / √d) V

Letters: n frames, C channels of a site, h×w its size, k tokens, d context width.
"""

from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn


class AddedAttention(nn.Module):
    """Cross-attention to tokens (Eq. 2 and 4) and a feed-forward, both residual; identity until trained."""

    def __init__(self, channels: int, heads: int, context_dim: int, feed_forward_mult: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(channels)
        self.attention = Attention(
            query_dim=channels, cross_attention_dim=context_dim, heads=heads, dim_head=channels // heads
        )
        self.norm_feed_forward = nn.LayerNorm(channels)
        self.feed_forward = FeedForward(channels, mult=feed_forward_mult)
        # Zero-init of both residual branches: training starts from the UNet as it is.
        for last in (self.attention.to_out[0], self.feed_forward.net[2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Features [n, C, h, w] attend to tokens [n, k, d] → [n, C, h, w]."""
        height = features.shape[2]
        z = features.flatten(2).mT  # [n, h·w, C]
        z = z + self.attention(self.norm_attention(z), encoder_hidden_states=embedding)
        z = z + self.feed_forward(self.norm_feed_forward(z))
        return z.mT.unflatten(2, (height, -1))
