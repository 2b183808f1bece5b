"""The CDiff baseline (paper, Sec. 4.2): diffusers' own ControlNet on depth and one picture of the object.

It stands where ManiVideoNetwork does, so the same loop trains it and the same pipeline samples it. Of the
conditions it sees the composite depth and the object's front view alone; UNet and ControlNet are trained
together. There are no temporal layers: the temporal stage goes on training all of it.
Letters: b clips, t frames, c latent channels, h×w latent, H×W picture.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ControlNetModel, ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from model.conditions import FRONT_SLOT, Conditions
from model.config import NetworkConfig
from model.denoising_unet import ClipEncoding, Encoded, FrameEncoding
from model.fusion import SiteReferences
from model.unet_walk import build_unet


class ControlNetBaseline(ModelMixin, ConfigMixin):
    """Denoises latents of single frames under depth and a picture of the object."""

    _supports_gradient_checkpointing = True

    def __init__(self, settings: NetworkConfig | dict[str, Any]) -> None:
        """`settings` is a NetworkConfig, or one as JSON, which is what a saved network holds."""
        super().__init__()
        config = NetworkConfig.model_validate(settings).model_copy(update={"with_temporal": False})
        self.settings = config
        self.register_to_config(settings=config.model_dump(mode="json"))
        self.unet = build_unet(config.unet, config.latent_channels)
        halvings = int(math.log2(config.factor))
        self.controlnet = ControlNetModel.from_unet(
            self.unet,
            conditioning_channels=1 + config.latent_channels,
            conditioning_embedding_out_channels=config.guider.channels[: 1 + halvings],
        )
        width = config.unet.cross_attention_dim
        self.context = nn.Parameter(torch.randn(1, config.context_tokens, width) / width**0.5)

    def set_temporal(self, enabled: bool) -> None:
        """Do nothing: each frame stands alone."""

    def image_parameters(self) -> Iterator[nn.Parameter]:
        """What the image stage trains: everything."""
        return self.parameters()

    def temporal_parameters(self) -> Iterator[nn.Parameter]:
        """What the temporal stage trains: everything, so that its budget is not lost."""
        return self.parameters()

    def skeleton_parameters(self) -> Iterator[nn.Parameter]:
        """None: no skeleton is looked at."""
        return iter(())

    def encode(self, conditions: Conditions) -> Encoded:
        """Everything that does not depend on the noise level."""
        front_view = self.encode_references(conditions.references, conditions.context)
        return Encoded(front_view, self.encode_frames(conditions))

    @apply_forward_hook
    def encode_references(self, references: Tensor, context: Tensor) -> ClipEncoding:
        """Latents [b, 8, c, h, w] → the front view's [b, c, h, w], beside a context of its own."""
        front_view = SiteReferences(tapped=references[:, FRONT_SLOT], keys=None, values=None)
        return ClipEncoding(self.context.expand(len(references), -1, -1), (front_view,))

    @apply_forward_hook
    def encode_frames(self, conditions: Conditions) -> FrameEncoding:
        """The composite depth of every frame, [b, t, 1, H, W]."""
        depth = conditions.composite_depth.to(self.dtype)
        return FrameEncoding(depth, mlo_tokens=None, object_tokens=depth.new_zeros(*depth.shape[:2], 0, 0))

    def forward(self, z: Tensor, timestep: Tensor, encoded: Encoded) -> Tensor:
        """z_t [b, t, c, h, w] at timestep [b], or [b, t] → the predicted v, ε or z_0 [b, t, c, h, w]."""
        b, t = z.shape[:2]
        latents, depth = z.flatten(0, 1), encoded.per_frame.guidance.flatten(0, 1)
        steps = timestep.reshape(b, -1).expand(b, t).flatten()
        context = encoded.per_clip.context.repeat_interleave(t, dim=0)  # [b·t, k, d]
        front_view = encoded.per_clip.references[0].tapped
        assert front_view is not None  # set by encode_references
        # Nearest-neighbour: each latent cell's channels over the pixels that it stands for.
        picture = F.interpolate(front_view, depth.shape[-2:]).repeat_interleave(t, dim=0)  # [b·t, c, H, W]
        control = torch.cat([depth, picture], dim=1)
        down, middle = self.controlnet(latents, steps, context, control, return_dict=False)
        (prediction,) = self.unet(
            latents,
            steps,
            context,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )
        return prediction.unflatten(0, (b, t))
