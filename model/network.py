"""The whole network of the paper's Figure 2: its boxes, and the order in which they meet.

`encode` runs what does not depend on the noise level, once a clip; `forward` predicts the noise target.
Letters: b clips, t frames, c latent channels, h×w latent.
"""

from collections.abc import Iterator
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

from model.appearance_net import AppearanceNet
from model.conditions import Conditions
from model.config import NetworkConfig
from model.denoising_unet import ClipEncoding, DenoisingUNet, Encoded, FrameEncoding
from model.mlo_embedding import MloEmbedding
from model.object_embedding import ObjectEmbedding
from model.pose_guider import PoseGuider
from model.temporal import motion_module


class ManiVideoNetwork(ModelMixin, ConfigMixin):
    """Denoises latents of clips under conditions."""

    _supports_gradient_checkpointing = True

    def __init__(self, settings: NetworkConfig | dict[str, Any]) -> None:
        """`settings` is a NetworkConfig, or one as JSON, which is what a saved network holds."""
        super().__init__()
        config = NetworkConfig.model_validate(settings)
        self.settings = config
        self.register_to_config(settings=config.model_dump(mode="json"))
        context_dim, factor = config.unet.cross_attention_dim, config.factor
        in_latent = config.guider.inject == "latent"
        guided = config.latent_channels if in_latent else config.unet.block_out_channels[0]
        mapped = 1 if config.mlo == "depth_only" else (3 + config.guiding_depth) * config.num_layers

        self.denoising_unet = DenoisingUNet(config)
        self.appearance_net = AppearanceNet(config.unet, config.latent_channels)  # R
        self.pose_guider = PoseGuider(mapped, guided, config.guider.channels, factor)  # G
        self.skeleton_guider = PoseGuider(3, guided, config.guider.channels, factor)  # G_1
        self.mlo_embedding = (
            MloEmbedding(config.num_layers, context_dim, config.tokens)
            if config.has_occlusion_tokens
            else None
        )
        self.object_embedding = ObjectEmbedding(context_dim, config.tokens)
        if config.context == "learned":
            self.context = nn.Parameter(torch.randn(1, config.context_tokens, context_dim) / context_dim**0.5)
        elif config.context == "empty":
            self.register_buffer("context", torch.zeros(1, config.context_tokens, context_dim))
        self.set_temporal(config.with_temporal)

    def set_temporal(self, enabled: bool) -> None:
        """Add motion modules, identity until trained (those that are there stay), or take them away."""
        for layers in self.denoising_unet.layers:
            if not enabled:
                layers.motion = None
            elif layers.motion is None:
                groups = self.settings.unet.norm_num_groups
                module = motion_module(layers.site.channels, groups, self.settings.temporal)
                layers.motion = module.to(self.device, self.dtype)
        self.settings = self.settings.model_copy(update={"with_temporal": enabled})
        self.register_to_config(settings=self.settings.model_dump(mode="json"))

    def temporal_parameters(self) -> Iterator[nn.Parameter]:
        """What the temporal stage trains."""
        for layers in self.denoising_unet.layers:
            if layers.motion is not None:
                yield from layers.motion.parameters()

    def skeleton_parameters(self) -> Iterator[nn.Parameter]:
        """G_1, which only the human fine-tune trains."""
        return self.skeleton_guider.parameters()

    def image_parameters(self) -> Iterator[nn.Parameter]:
        """What the image stage trains: all but the temporal layers and G_1."""
        others = {id(p) for p in (*self.temporal_parameters(), *self.skeleton_parameters())}
        return (parameter for parameter in self.parameters() if id(parameter) not in others)

    def encode(self, conditions: Conditions) -> Encoded:
        """Everything that does not depend on the noise level."""
        appearance = self.encode_references(conditions.references, conditions.context)
        return Encoded(appearance, self.encode_frames(conditions))

    @apply_forward_hook
    def encode_references(self, references: Tensor, context: Tensor) -> ClipEncoding:
        """R on latents [b, 8, c, h, w], projected for each site (Eq. 3), beside CLIP's tokens [b, k, d] or,
        where the network has a context of its own, that."""
        if self.settings.context != "clip_image":
            context = self.context.expand(len(references), -1, -1)
        features, present = self.appearance_net(references, context)
        sites = zip(self.denoising_unet.layers, features, strict=True)
        return ClipEncoding(context, tuple(layers.fusion.project(maps, present) for layers, maps in sites))

    @apply_forward_hook
    def encode_frames(self, conditions: Conditions) -> FrameEncoding:
        """G + G_1 (Eq. 1 and 5), E_F (Eq. 2) and E_N (Eq. 4) of every frame, of conditions in float32."""
        b, t = conditions.normals.shape[:2]
        hidden = conditions.hidden
        conditions = conditions.to(dtype=self.dtype)
        layers = conditions.signed(hidden) if self.settings.confidence == "signed" else conditions
        guiding = layers if self.settings.hidden == "both" else layers.visible(hidden)
        mlo = None
        if self.mlo_embedding is not None:
            embedded = guiding if self.settings.hidden == "none" else layers
            mlo = self.mlo_embedding(embedded.normals.flatten(0, 1), embedded.confidence.flatten(0, 1))
        return FrameEncoding(
            guidance=self._guidance(guiding).unflatten(0, (b, t)),
            mlo_tokens=None if mlo is None else mlo.unflatten(0, (b, t)),
            object_tokens=self.object_embedding(conditions.object_normals, conditions.points),
        )

    def _guidance(self, conditions: Conditions) -> Tensor:
        """G([H]), G([H, D]) or G of a depth map, + G_1(S) (Eq. 1, 5): [b·t, C_0 or c, h, w]; G_1 only where
        there is a skeleton."""
        if self.settings.mlo == "depth_only":
            maps = conditions.composite_depth.flatten(0, 1)  # [b·t, 1, H, W]
        else:
            maps = conditions.normals.flatten(0, 1).flatten(1, 2)  # [b·t, 3L, H, W]
            if self.settings.guiding_depth:
                maps = torch.cat([maps, conditions.confidence.flatten(0, 1)], dim=1)  # [b·t, 4L, H, W]
        skeleton = conditions.skeleton.flatten(0, 1)
        drawn = skeleton.flatten(1).any(dim=1)[:, None, None, None]  # [b·t, 1, 1, 1]
        return self.pose_guider(maps) + self.skeleton_guider(skeleton) * drawn

    def forward(self, z: Tensor, timestep: Tensor, encoded: Encoded) -> Tensor:
        """z_t [b, t, c, h, w] at timestep [b], or [b, t] → the predicted v, ε or z_0 [b, t, c, h, w]."""
        return self.denoising_unet(z, timestep, encoded)
