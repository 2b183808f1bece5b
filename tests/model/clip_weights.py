"""Random weights of a small CLIP image encoder in the layout of Stable Diffusion Image Variations."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

WIDTH = 64  # of tiny's context


def write_image_encoder(folder: Path, width: int = WIDTH) -> Path:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28,
        patch_size=14, projection_dim=width,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
    return folder


def old_release(folder: Path, **more: torch.Tensor) -> Path:
    """The same as transformers saved it in 2022: a pickle, position numbers included."""
    file = folder / "image_encoder" / "model.safetensors"
    numbers = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    torch.save(load_file(file) | numbers | more, folder / "image_encoder" / "pytorch_model.bin")
    file.unlink()
    return folder
