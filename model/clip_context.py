"""Context of the UNets' own cross-attention by CLIP's image encoder (`context: clip_image`).

A picture takes the place of Stable Diffusion's text, as in Animate Anyone: CLIP's embedding of the object's
front view is the one token. What has no object, a human video, has zeros, as every absent condition.
Letters: b clips, r references, H×W picture, k tokens (1 or 0), d context width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from model.conditions import FRONT_SLOT
from model.config import NetworkConfig


def context_shape(config: NetworkConfig) -> tuple[int, int]:
    """(k, d) of the tokens that a network's conditions hold."""
    if config.context != "clip_image":
        return 0, 0  # it has a context of its own
    return 1, config.unet.cross_attention_dim


@torch.no_grad()
def clip_context(encoder: CLIPVisionModelWithProjection | None, pictures: Tensor, present: Tensor) -> Tensor:
    """References u8 [b, r, 3, H, W] and which of them are there [b, r] → tokens [b, 1, d], zero where absent.

    Without an encoder the network has a context of its own: [b, 0, 0].
    """
    if encoder is None:
        return torch.zeros(len(pictures), 0, 0, device=pictures.device)
    size, device = encoder.config.image_size, encoder.device
    front = pictures[:, FRONT_SLOT].to(device).float() / 255.0  # [b, 3, H, W]
    resized = F.interpolate(front, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (
        torch.tensor(each, device=device)[:, None, None] for each in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    )
    token = encoder(((resized - mean) / std).to(encoder.dtype)).image_embeds.float()  # [b, d]
    return (token * present[:, FRONT_SLOT, None].to(token))[:, None]
