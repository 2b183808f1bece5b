"""Fusion of appearance features into the denoising UNet (paper, Eq. 3).

    f' = Conv([R([O_I, O_B]), f_0])

The paper lays f_1 … f_8 and f_0 side by side along the width and convolves. Aligned with f_0, that is a
(1, 9) kernel dilated by w, one tap a picture: a 1×1 convolution of each picture, summed. An ordinary strided
convolution would mix neighbouring columns of one picture. A tap cannot move appearance across the picture, so
attention with keys and values from f_0 and every reference (Animate Anyone's mechanism) may come before it.

What depends on the references alone is projected once a clip and shared by all frames and noise levels.
Letters: b clips, t frames, r references, C channels of a site, h×w its size, a heads.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from model.added_attention import split_heads
from model.conditions import NUM_REFERENCES


class FusionConfig(BaseModel, frozen=True, extra="forbid"):
    """How references enter the denoising UNet."""

    mode: Literal["conv", "attention", "both"] = "both"
    """The taps of Eq. 3, reference attention, or attention and then taps."""
    attention_min_stride: PositiveInt = 1
    """Sites with positions fewer latent cells apart have taps alone, since attention there has 9·h·w keys."""
    init_std: NonNegativeFloat = 0.0
    """Spread of the weights that let references in; above 0 a network from scratch heeds them sooner."""


@dataclass(frozen=True)
class SiteReferences:
    """What one site needs of a clip's references."""

    tapped: Tensor | None  # sum of the references' taps: [b, C, h, w]
    keys: Tensor | None  # [b, a, r·h·w, C/a]
    values: Tensor | None  # [b, a, r·h·w, C/a]


class ReferenceTaps(nn.Module):
    """Eq. 3's convolution: identity on f_0 and zero on the references until trained."""

    def __init__(self, channels: int, init_std: float = 0.0) -> None:
        super().__init__()
        self.own = nn.Conv2d(channels, channels, kernel_size=1)
        self.references = nn.Conv2d(NUM_REFERENCES * channels, channels, kernel_size=1, bias=False)
        nn.init.dirac_(self.own.weight)
        nn.init.zeros_(self.own.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.references.weight, std=init_std)

    def project(self, references: Tensor) -> Tensor:
        """f_1 … f_8 [b, r, C, h, w] → their share of f' [b, C, h, w]."""
        return self.references(references.flatten(1, 2))

    def forward(self, features: Tensor, tapped: Tensor) -> Tensor:
        """f_0 [b·t, C, h, w] and the references' share [b, C, h, w] → f' [b·t, C, h, w]."""
        own = self.own(features)
        return (own.unflatten(0, (len(tapped), -1)) + tapped[:, None]).flatten(0, 1)


class ReferenceAttention(nn.Module):
    """Attention of f_0 to itself and to every reference, residual; identity until trained."""

    def __init__(self, channels: int, heads: int, init_std: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.to_out = nn.Linear(channels, channels)
        # With spread 0, training starts from the UNet as it is.
        nn.init.normal_(self.to_out.weight, std=init_std)
        nn.init.zeros_(self.to_out.bias)

    def project(self, references: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """f_1 … f_8 [b, r, C, h, w] → keys and values [b, a, r·h·w, C/a], zero for absent references.

        A zero key still has its share exp(0) of the softmax: a mask would take it away, flash attention too.
        """
        tokens = self.norm(references.flatten(3).mT) * present[:, :, None, None]  # [b, r, h·w, C]
        tokens = tokens.flatten(1, 2)
        return split_heads(self.to_k(tokens), self.heads), split_heads(self.to_v(tokens), self.heads)

    def forward(self, features: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """f_0 [b·t, C, h, w] → [b·t, C, h, w]."""
        z = self.norm(features.flatten(2).mT)  # [b·t, h·w, C]
        projected = (self.to_q(z), self.to_k(z), self.to_v(z))
        q, own_keys, own_values = (split_heads(each, self.heads) for each in projected)
        attended = F.scaled_dot_product_attention(
            q, _beside(own_keys, keys), _beside(own_values, values)
        )  # [b·t, a, h·w, C/a]
        return features + self.to_out(attended.transpose(1, 2).flatten(2)).mT.reshape(features.shape)


class ReferenceFusion(nn.Module):
    """Eq. 3 at one attention site."""

    def __init__(self, channels: int, heads: int, stride: int, config: FusionConfig) -> None:
        super().__init__()
        attends = config.mode != "conv" and stride >= config.attention_min_stride
        std = config.init_std
        self.attention = ReferenceAttention(channels, heads, std) if attends else None
        self.taps = ReferenceTaps(channels, std) if config.mode != "attention" or not attends else None

    def project(self, references: Tensor, present: Tensor) -> SiteReferences:
        """Features of the references [b, r, C, h, w], and which of them are there [b, r]."""
        keys, values = self.attention.project(references, present) if self.attention else (None, None)
        return SiteReferences(self.taps.project(references) if self.taps else None, keys, values)

    def forward(self, features: Tensor, references: SiteReferences) -> Tensor:
        """f_0 [b·t, C, h, w] → f' [b·t, C, h, w]."""
        if self.attention is not None:
            features = self.attention(features, references.keys, references.values)
        if self.taps is not None:
            features = self.taps(features, references.tapped)
        return features


def _beside(own: Tensor, references: Tensor) -> Tensor:
    """A frame's own tokens [b·t, a, k, e] and its clip's [b, a, m, e] → [b·t, a, k + m, e]."""
    own = own.unflatten(0, (len(references), -1))  # [b, t, a, k, e]
    repeated = references[:, None].expand(-1, own.shape[1], -1, -1, -1)  # takes no memory
    return torch.cat([own, repeated], dim=3).flatten(0, 1)
