"""The CDiff baseline sees depth and one picture, starts as its plain UNet, and takes the method's place."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from model.conditions import Conditions
from model.config import ModelConfig
from model.controlnet_baseline import ControlNetBaseline
from model.objective import NoisedClips, Objective
from model.pipeline import build_pipeline, read_pipeline
from model.pretrained import PretrainedConfig, load_pretrained
from model.sampling import SamplingConfig
from model.schedule import build_scheduler
from model.training_config import TrainConfig
from storage.errors import InputError

MakeConditions = Callable[..., Conditions]


@pytest.fixture
def config(tiny: ModelConfig) -> ModelConfig:
    return tiny.model_copy(update={"network": tiny.network.model_copy(update={"method": "controlnet"})})


@pytest.fixture
def baseline(config: ModelConfig) -> ControlNetBaseline:
    return ControlNetBaseline(config.network)


def predict(network: ControlNetBaseline, conditions: Conditions) -> torch.Tensor:
    b, t = conditions.normals.shape[:2]
    z = torch.randn(b, t, *conditions.references.shape[2:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(z, torch.full((b,), 500), network.encode(conditions))


def test_before_training_it_is_its_plain_unet(
    baseline: ControlNetBaseline, make_conditions: MakeConditions
) -> None:
    conditions = make_conditions(baseline.settings)
    torch.testing.assert_close(predict(baseline, conditions), predict(baseline, conditions.absent()))


def test_it_sees_composite_depth_and_the_front_view_and_nothing_else(
    baseline: ControlNetBaseline, make_conditions: MakeConditions, trained: Callable[[nn.Module], nn.Module]
) -> None:
    trained(baseline)
    conditions = make_conditions(baseline.settings)
    hidden = conditions.confidence.clone()
    nearest = hidden.amax(dim=2, keepdim=True)
    hidden[hidden < nearest] *= 0.5  # moves what is hidden, and nothing that is seen
    others = conditions.references.clone()
    others[:, 1:] += 1.0
    unseen = replace(
        conditions,
        normals=-conditions.normals,
        confidence=hidden,
        references=others,
        points=conditions.points + 1,
        skeleton=1 - conditions.skeleton,
    )
    reference = predict(baseline, conditions)
    torch.testing.assert_close(predict(baseline, unseen), reference)
    nearer = replace(conditions, confidence=conditions.confidence * 0.9)
    front = conditions.references.clone()
    front[:, 0] += 1.0
    for seen in (nearer, replace(conditions, references=front)):
        assert not torch.allclose(predict(baseline, seen), reference)


def test_its_temporal_stage_trains_all_of_it(
    config: ModelConfig,
    baseline: ControlNetBaseline,
    make_conditions: MakeConditions,
    trained: Callable[[nn.Module], nn.Module],
) -> None:
    trained(baseline)
    conditions = make_conditions(baseline.settings)
    z_t, target = torch.randn(2, 1, 2, 12, 16, 16)
    area = torch.ones(1, 2, 32, 32, dtype=torch.bool)
    clips = NoisedClips(z_t, torch.full((1, 2), 500), target, area, conditions)
    stage = TrainConfig(stage="temporal", dataset="none", init_from=Path("image"))
    Objective(baseline, build_scheduler(config.schedule), stage)(clips).mean().backward()
    assert [name for name, p in baseline.named_parameters() if p.grad is None] == []


def test_public_weights_are_refused(config: ModelConfig) -> None:
    with pytest.raises(InputError, match="controlnet starts from fresh weights"):
        load_pretrained(build_pipeline(config), PretrainedConfig(stable_diffusion="anywhere"))


def test_a_saved_baseline_generates_what_it_did(
    config: ModelConfig, make_conditions: MakeConditions, tmp_path: Path
) -> None:
    pipeline = build_pipeline(config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(tmp_path / "model")
    again = read_pipeline(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    conditions = make_conditions(config.network, t=3)
    videos = [
        each(conditions, SamplingConfig(num_inference_steps=2), torch.Generator().manual_seed(0)).frames
        for each in (pipeline, again)
    ]
    assert videos[0].shape == (1, 3, 32, 32, 3)
    assert (videos[0] == videos[1]).all()


def test_a_saved_model_of_other_tensors_lists_them(config: ModelConfig, tmp_path: Path) -> None:
    build_pipeline(config).save_pretrained(tmp_path)
    file = tmp_path / "network" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["stray"] = weights.pop("unet.conv_in.bias")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"{file.parent}: missing unet.conv_in.bias; unexpected stray$"):
        read_pipeline(tmp_path)
