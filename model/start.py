"""The model that a stage of training starts from."""

import torch

from model.config import ModelConfig
from model.network import ManiVideoNetwork
from model.pipeline import (
    ManiVideoPipeline,
    build_network,
    build_pipeline,
    read_network_settings,
    read_pipeline,
)
from model.pretrained import load_pretrained
from model.training_config import TrainConfig
from storage.config import load_config
from storage.errors import InputError


def network_without_contents(config: TrainConfig) -> ManiVideoNetwork:
    """The network that a stage starts from, as shapes alone: nothing is allocated, no weights are read."""
    if config.init_from is not None:
        settings = read_network_settings(config.init_from)
    else:
        assert config.model is not None  # TrainConfig wants exactly one of the two
        settings = load_config(ModelConfig, config.model).network
    with torch.device("meta"):
        network = build_network(settings)
        if config.stage == "temporal":
            network.set_temporal(True)
    return network


def starting_pipeline(config: TrainConfig) -> ManiVideoPipeline:
    """A fresh model, or the saved one that the stage starts from, with the layers that the stage needs."""
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        if config.init_from is not None:
            pipeline = read_pipeline(config.init_from)
        else:
            assert config.model is not None  # TrainConfig wants exactly one of the two
            pipeline = build_pipeline(load_config(ModelConfig, config.model))
        if config.stage == "temporal":
            pipeline.network.set_temporal(True)
        load_pretrained(pipeline, config.pretrained)
    settings = pipeline.network.settings
    if settings.with_temporal and config.batch.pick == "scattered":
        raise InputError("the model has temporal layers: batch.pick must be 'window'", code="config")
    if config.batch.frames > settings.longest_window:
        found, wanted = config.batch.frames, f"at most temporal.max_frames, {settings.longest_window}"
        raise InputError(f"batch.frames: found {found}, wanted {wanted}", code="config")
    return pipeline
