"""Training with CLIP's tokens as the UNets' context."""

from pathlib import Path

import torch

from model.config import ModelConfig
from model.memory import estimate_memory, num_bytes
from model.pipeline import read_pipeline
from model.start import starting_pipeline
from model.train import train
from model.trainer import Trainer
from model.training_config import TrainConfig
from storage.config import load_config, save_config
from storage.store import Store
from tests.model.clip_weights import write_image_encoder


def test_a_run_reads_clip_leaves_it_as_it_was_and_saves_it(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    assert image_config.model is not None
    model = load_config(ModelConfig, image_config.model)
    network = model.network.model_copy(update={"context": "clip_image"})
    save_config(model.model_copy(update={"network": network}), tmp_path / "model.yaml")
    source = write_image_encoder(tmp_path / "variations", network.unet.cross_attention_dim)
    config = TrainConfig(
        **image_config.model_dump() | {
            "model": tmp_path / "model.yaml", "pretrained": {"image_encoder": str(source)}, "iterations": 2,
            "memory_estimate": True,
        }
    )  # fmt: skip
    saved = read_pipeline(train(config, store, tmp_path / "run").model)
    fresh = starting_pipeline(config)
    assert saved.image_encoder is not None
    assert fresh.image_encoder is not None
    assert saved.network.settings.context == "clip_image"
    before = fresh.image_encoder.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in saved.image_encoder.state_dict().items())
    weights = estimate_memory(Trainer(config, fresh), 32, 32).weights
    assert weights == sum(map(num_bytes, (fresh.network, fresh.codec, fresh.image_encoder)))
