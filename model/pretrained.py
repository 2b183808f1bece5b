"""Starting from public weights: Stable Diffusion 1.5, and AnimateDiff's motion modules for it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import try_to_load_from_cache
from pydantic import BaseModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from model.codec import VaeCodec
from model.pipeline import ManiVideoPipeline
from model.pretrained_motion import load_motion_modules
from model.weights import read_model, unreadable
from storage.errors import InputError

logger = logging.getLogger(__name__)

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
MOTION_MODULES = "guoyww/animatediff-motion-adapter-v1-5-2"
WEIGHTS = "diffusion_pytorch_model"  # diffusers' name of a file of weights
STABLE_DIFFUSION_FILES = {
    "UNet": ("unet/config.json", f"unet/{WEIGHTS}.safetensors"),
    "VAE": ("vae/config.json", f"vae/{WEIGHTS}.safetensors"),
    "text encoder": ("text_encoder/config.json", "text_encoder/model.safetensors"),
    "tokenizer": ("tokenizer/vocab.json", "tokenizer/merges.txt"),
}
MOTION_MODULES_FILES = {"motion modules": ("config.json", f"{WEIGHTS}.safetensors")}


class PretrainedConfig(BaseModel, frozen=True, extra="forbid"):
    """Public weights that a stage starts from."""

    stable_diffusion: str | None = None
    """Folder or hub id of Stable Diffusion 1.5 in diffusers' layout: both UNets, the VAE and the embedding of
    the empty prompt start from it; null: fresh weights."""
    motion_modules: str | None = None
    """Folder or hub id of AnimateDiff's motion modules in diffusers' layout, or a file of the original
    release; null: fresh weights."""
    motion_output: Literal["zero", "pretrained"] = "zero"
    """Output layers of the motion modules: `zero`, so that a clip starts as its frames, or AnimateDiff's."""


def load_pretrained(pipeline: ManiVideoPipeline, config: PretrainedConfig) -> None:
    """Read what the config names into a pipeline; InputError (code "weights") lists what does not fit."""
    if config.stable_diffusion is not None:
        load_stable_diffusion(pipeline, config.stable_diffusion)
        logger.info("started from %s", config.stable_diffusion)
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
    embedding = empty_prompt(source, network.settings.context_tokens)
    if embedding.shape != network.context.shape:
        found, wanted = list(embedding.shape), list(network.context.shape)
        raise InputError.mismatch(source, "text_encoder", found=found, wanted=wanted, code="weights")
    network.context.data.copy_(embedding)


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
    """Name the parts whose files are neither in the folder `source` nor in the hub's cache under that id."""

    def present(file: str) -> bool:
        if Path(source).is_dir():
            return (Path(source) / file).is_file()
        return isinstance(try_to_load_from_cache(source, file), str)

    return [part for part, files in parts.items() if not all(map(present, files))]
