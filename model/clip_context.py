"""Context of the UNets' own cross-attention by CLIP's image encoder (`context: clip_image`).

Pictures take the place of Stable Diffusion's text, as in Animate Anyone: CLIP's embedding of the object's
front view is one token, that of the human or background picture O_B, all that a human video has, another.
Letters: b clips, r references, H×W picture, k tokens, d context width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from model.conditions import BACKGROUND_SLOT, FRONT_SLOT
from model.config import NetworkConfig

CONTEXT_SLOTS = [FRONT_SLOT, BACKGROUND_SLOT]


def context_shape(config: NetworkConfig) -> tuple[int, int]:
    """(k, d) of the tokens that a network's conditions hold."""
    if config.context != "clip_image":
        return 0, 0  # it has a context of its own
    return len(CONTEXT_SLOTS), config.unet.cross_attention_dim


@torch.no_grad()
def clip_context(encoder: CLIPVisionModelWithProjection | None, pictures: Tensor, present: Tensor) -> Tensor:
    """References u8 [b, r, 3, H, W] and which of them are there [b, r] → tokens [b, k, d], zero where absent.

    Without an encoder the network has a context of its own: [b, 0, 0].
    """
    if encoder is None:
        return torch.zeros(len(pictures), 0, 0, device=pictures.device)
    size, device = encoder.config.image_size, encoder.device
    chosen = pictures[:, CONTEXT_SLOTS].flatten(0, 1).to(device).float() / 255.0  # [b·k, 3, H, W]
    resized = F.interpolate(chosen, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (
        torch.tensor(each, device=device)[:, None, None] for each in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    )
    tokens = encoder(((resized - mean) / std).to(encoder.dtype)).image_embeds.float()  # [b·k, d]
    return tokens.unflatten(0, (len(pictures), -1)) * present[:, CONTEXT_SLOTS, None].to(tokens)
