"""Starting from public weights: Stable Diffusion 1.5, AnimateDiff's motion modules, CLIP's image encoder."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from pydantic import BaseModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from model.codec import VaeCodec
from model.config import NetworkConfig
from model.controlnet_baseline import ControlNetBaseline
from model.pipeline import ManiVideoPipeline
from model.pretrained_motion import load_motion_modules
from model.weights import check_complete, read_model, unreadable
from storage.errors import InputError

logger = logging.getLogger(__name__)

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
IMAGE_ENCODER = "lambdalabs/sd-image-variations-diffusers"
MOTION_MODULES = "guoyww/animatediff-motion-adapter-v1-5-2"
WEIGHTS = "diffusion_pytorch_model"  # diffusers' name of a file of weights
STABLE_DIFFUSION_FILES = {
    "UNet": ("unet/config.json", f"unet/{WEIGHTS}.safetensors"),
    "VAE": ("vae/config.json", f"vae/{WEIGHTS}.safetensors"),
    "text encoder": ("text_encoder/config.json", "text_encoder/model.safetensors"),
    "tokenizer": ("tokenizer/vocab.json", "tokenizer/merges.txt"),
}
IMAGE_ENCODER_FILES = {
    "image encoder": (
        "image_encoder/config.json",
        "image_encoder/model.safetensors|image_encoder/pytorch_model.bin",  # either
    )
}
MOTION_MODULES_FILES = {"motion modules": ("config.json", f"{WEIGHTS}.safetensors")}


class PretrainedConfig(BaseModel, frozen=True, extra="forbid"):
    """Public weights that a stage starts from."""

    stable_diffusion: str | None = None
    """Folder or hub id of Stable Diffusion 1.5 in diffusers' layout: both UNets, the VAE and, but for
    `context: clip_image`, the context (as the empty prompt's) start from it; null: fresh weights."""
    image_encoder: str | None = None
    """Folder or hub id that has CLIP's image encoder under `image_encoder/`, as Stable Diffusion Image
    Variations does; wanted with `context: clip_image`, and never trained."""
    motion_modules: str | None = None
    """Folder or hub id of AnimateDiff's motion modules in diffusers' layout, or a file of the original
    release; null: fresh weights."""
    motion_output: Literal["zero", "pretrained"] = "zero"
    """Output layers of the motion modules: `zero`, so that a clip starts as its frames, or AnimateDiff's."""


def load_pretrained(pipeline: ManiVideoPipeline, config: PretrainedConfig) -> None:
    """Read what the config names into a pipeline; InputError (code "weights") lists what does not fit."""
    if isinstance(pipeline.network, ControlNetBaseline) and config != PretrainedConfig():
        raise InputError(
            "network.method controlnet starts from fresh weights: wanted no pretrained", code="weights"
        )
    if config.stable_diffusion is not None:
        load_stable_diffusion(pipeline, config.stable_diffusion)
        logger.info("started from %s", config.stable_diffusion)
    if config.image_encoder is not None:
        pipeline.register_modules(
            image_encoder=read_image_encoder(config.image_encoder, pipeline.network.settings)
        )
    if pipeline.network.settings.context == "clip_image" and pipeline.image_encoder is None:
        raise InputError("the model has context: clip_image: wanted pretrained.image_encoder", code="weights")
    if config.motion_modules is not None:
        report = load_motion_modules(pipeline.network, config.motion_modules, config.motion_output)
        logger.info(
            "%d motion modules from %s; unused: %s; fresh: %s",
            *(len(report.loaded), config.motion_modules, list(report.unused), list(report.fresh)),
        )


def load_stable_diffusion(pipeline: ManiVideoPipeline, source: str) -> None:
    """Read UNet (into the denoising UNet and into R), VAE and empty prompt of Stable Diffusion 1.5."""
    network, codec = pipeline.network, pipeline.codec
    if not isinstance(codec, VaeCodec):
        raise InputError(f"{source}: wanted a model with codec.kind: vae", code="weights")
    unet = read_model(UNet2DConditionModel, source, "unet", network.denoising_unet.unet)
    network.denoising_unet.unet.load_state_dict(unet)
    ends_earlier = network.appearance_net.unet  # at the last site
    ends_earlier.load_state_dict({name: unet[name] for name in ends_earlier.state_dict()})
    codec.autoencoder.load_state_dict(read_model(AutoencoderKL, source, "vae", codec.autoencoder))
    if network.settings.context != "clip_image":
        embedding = empty_prompt(source, network.settings.context_tokens)
        if embedding.shape != network.context.shape:
            found, wanted = list(embedding.shape), list(network.context.shape)
            raise InputError.mismatch(source, "text_encoder", found=found, wanted=wanted, code="weights")
        network.context.data.copy_(embedding)


def read_image_encoder(source: str, settings: NetworkConfig) -> CLIPVisionModelWithProjection:
    """CLIP's image encoder, whose embeddings must be as wide as the network's context."""
    where = f"{source}/image_encoder"
    if settings.context != "clip_image":
        raise InputError(f"{where}: has no place in a model with context: {settings.context}", code="weights")
    try:
        encoder, info = CLIPVisionModelWithProjection.from_pretrained(
            source, subfolder="image_encoder", output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable(where, error) from error
    check_complete(where, info)
    found, wanted = encoder.config.projection_dim, settings.unet.cross_attention_dim
    if found != wanted:
        raise InputError.mismatch(where, "projection_dim", found=found, wanted=wanted, code="weights")
    return encoder


@torch.no_grad()
def empty_prompt(source: str, num_tokens: int) -> Tensor:
    """What Stable Diffusion's text encoder makes of no words: [1, num_tokens, d]."""
    try:
        tokenizer = CLIPTokenizer.from_pretrained(source, subfolder="tokenizer")
        encoder = CLIPTextModel.from_pretrained(source, subfolder="text_encoder")
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable(f"{source}/text_encoder", error) from error
    tokens = tokenizer("", padding="max_length", max_length=num_tokens, return_tensors="pt")
    return encoder(tokens.input_ids).last_hidden_state


def missing_parts(source: str, parts: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Name the parts whose files are neither in the folder `source` nor in the hub's cache under that id.

    One of several names of a file, `a|b`, is enough.
    """

    def present(file: str) -> bool:
        if Path(source).is_dir():
            return (Path(source) / file).is_file()
        try:
            return isinstance(try_to_load_from_cache(source, file), str)
        except HFValidationError:  # a path that is no folder
            return False

    return [
        part for part, files in parts.items() if not all(any(map(present, file.split("|"))) for file in files)
    ]
