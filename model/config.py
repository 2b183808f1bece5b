"""The model's config: one YAML file fills one ModelConfig (`configs/model/`)."""

import math
from typing import Literal, Self

from pydantic import BaseModel, Field, PositiveInt, model_validator

from model.codec import CodecConfig
from model.fusion import FusionConfig
from model.mlo_embedding import TokensConfig
from model.pose_guider import GuiderConfig, strides
from model.schedule import ScheduleConfig
from model.temporal import TemporalConfig
from model.unet_walk import UNetConfig


class NetworkConfig(BaseModel, frozen=True, extra="forbid"):
    """Sizes and choices of every box of the paper's Figure 2; the defaults are the paper's, on SD 1.5."""

    method: Literal["manivideo", "controlnet"] = "manivideo"
    """The paper's network, or the CDiff baseline: ControlNet on depth and one picture of the object, of which
    only the sizes below hold."""
    num_layers: Literal[7, 13] = 7
    """Layers of the multi-layer occlusion structure: 7 as in the paper, or 13 with the hands apart."""
    mlo: Literal["full", "noise_only", "depth_only"] = "full"
    """Ablation (Sec. 4.3): `noise_only` (w/o MLO*) has no E_F, `depth_only` (w/o MLO) one depth map for G."""
    guiding_depth: bool = False
    """Whether G is given D beside H (Eq. 1 has H alone)."""
    hidden: Literal["both", "tokens", "none"] = "both"
    """Who is given what another layer hides: both embeddings, as in the paper, E_F alone, or neither. E_N is
    given all of H_o."""
    confidence: Literal["depth", "signed"] = "depth"
    """What G and E_F are given of D: nearness (Sec. 3.1.1), or, not in the paper, nearness with a minus where
    another layer is in front, so that a network need not compare layers to know which is seen."""
    latent_channels: PositiveInt = 4
    """Channels c of the codec's latents."""
    factor: PositiveInt = 8
    """Pixels of a picture along each side of a latent cell."""
    unet: UNetConfig = UNetConfig()
    """The denoising UNet and AppearanceNet."""
    context: Literal["empty", "learned", "clip_image"] = "empty"
    """What the UNets' own cross-attention sees: the empty prompt's embedding (zeros until set), tokens that
    are learned, or CLIP's embedding of the front view (`pretrained.image_encoder` names CLIP)."""
    context_tokens: PositiveInt = 77
    """Tokens of the empty prompt, or learned."""
    guider: GuiderConfig = GuiderConfig()
    """G and G_1."""
    tokens: TokensConfig = TokensConfig()
    """E_F and E_N."""
    feed_forward_mult: PositiveInt = 4
    """Hidden width of the added blocks' feed-forward, in multiples of the site's channels."""
    fusion: FusionConfig = FusionConfig()
    """Eq. 3."""
    temporal: TemporalConfig = TemporalConfig()
    """Motion modules."""
    with_temporal: bool = False
    """Whether there are motion modules: not in the image stage."""

    @model_validator(mode="after")
    def _something_to_tell(self) -> Self:
        if self.mlo == "depth_only" and (self.guiding_depth or self.hidden != "both"):
            raise ValueError(
                "mlo: found depth_only with guiding_depth or hidden, which say what layers are given"
            )
        if self.mlo == "noise_only" and self.hidden == "tokens":
            raise ValueError(
                "hidden: found tokens with mlo: noise_only, which has no E_F; wanted both or none"
            )
        return self

    @model_validator(mode="after")
    def _buildable(self) -> Self:
        # ControlNet halves a picture three times at most.
        strides(self.factor, 3 if self.method == "controlnet" else len(self.guider.channels))
        return self

    @property
    def has_occlusion_tokens(self) -> bool:
        """Whether there is E_F (Eq. 2), the second of the two embeddings."""
        return self.mlo == "full"

    @property
    def longest_window(self) -> float:
        """Frames that can go through the network together: as many as there are position codes for."""
        return self.temporal.max_frames if self.with_temporal else math.inf


class ModelConfig(BaseModel, frozen=True, extra="forbid"):
    """Network, codec and noise schedule, which must fit one another."""

    network: NetworkConfig = NetworkConfig()
    """The network."""
    codec: CodecConfig = Field(discriminator="kind")
    """Pictures to latents and back."""
    schedule: ScheduleConfig = ScheduleConfig()
    """Noise."""

    @model_validator(mode="after")
    def _one_latent(self) -> Self:
        for name in ("latent_channels", "factor"):
            ours, theirs = getattr(self.network, name), getattr(self.codec, name)
            if ours != theirs:
                raise ValueError(f"network.{name} is {ours}, but the codec's is {theirs}")
        return self
