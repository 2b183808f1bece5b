"""What the model's benchmarks run: the paper's two stages (Sec. 4.1) and a video of 24 frames, at a scale.

The scales differ by values alone, so what is measured of `tiny` on a CPU is the code that a GPU runs.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.config import ModelConfig
from model.memory import LiveBytes, clips_without_contents
from model.objective import NoisedClips
from model.pipeline import ManiVideoPipeline, build_pipeline
from model.trainer import Trainer
from model.training_config import TrainConfig
from storage.config import load_config

CONFIGS = Path(__file__).parents[3] / "configs" / "model"
Result = TypeVar("Result")
Stage = Literal["image", "temporal"]
STAGES: tuple[Stage, ...] = ("image", "temporal")
BATCHES: dict[Stage, dict[str, object]] = {  # the paper's
    "image": {"clips": 4, "frames": 1},
    "temporal": {"clips": 1, "frames": 24, "pick": "window"},
}
ITERATIONS: dict[Stage, int] = {"image": 20_000, "temporal": 30_000}
FRAMES, STEPS = 24, 25  # of a generated video, and of its denoising


@dataclass(frozen=True)
class Scale:
    """A model, the size of its pictures, and what it runs on."""

    model: str  # a file of configs/model
    size: int  # pixels
    precision: Literal["float32", "bfloat16"]
    device: Literal["cpu", "cuda"]

    @property
    def config(self) -> Path:
        return CONFIGS / f"{self.model}.yaml"

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


TINY = Scale("tiny", 64, "float32", "cpu")
PAPER = Scale("sd15", 512, "bfloat16", "cuda")


def available() -> list[Scale]:
    """The scales that this machine can run."""
    return [TINY, PAPER] if torch.cuda.is_available() else [TINY]


def build_trainer(scale: Scale, stage: Stage, **change: Any) -> Trainer:
    """A stage with fresh weights and the paper's batch."""
    values = {"stage": stage, "dataset": "none", "model": scale.config, "batch": BATCHES[stage]}
    hardware = {"device": scale.device, "precision": scale.precision}
    config = TrainConfig.model_validate(values | hardware | change)
    pipeline = build_pipeline(load_config(ModelConfig, scale.config))
    pipeline.network.set_temporal(stage == "temporal")
    return Trainer(config, pipeline)


def filled_clips(trainer: Trainer, size: int) -> NoisedClips:
    """A step's batch of ones."""
    clips = clips_without_contents(trainer, size, size)
    tensors = [getattr(clips, field.name) for field in fields(clips) if field.name != "conditions"]
    for tensor in (*tensors, *vars(clips.conditions).values()):
        tensor.fill_(1)
    return clips


def take_step(trainer: Trainer, clips: NoisedClips) -> None:
    """A step of the optimizer, as `Trainer.step` takes it once the batch is noised."""
    trainer.backward(clips)
    trainer.state.optimizer.step()
    trainer.state.optimizer.zero_grad(set_to_none=True)
    if trainer.state.ema is not None:
        trainer.state.ema.step(trainer.parameters)


def build_generator(scale: Scale) -> ManiVideoPipeline:
    """A pipeline with temporal layers and fresh weights, silent."""
    pipeline = build_pipeline(load_config(ModelConfig, scale.config))
    pipeline.network.set_temporal(True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(scale.device, scale.dtype)


def finished(scale: Scale, function: Callable[[], object]) -> Callable[[], None]:
    """The function, returning when the device is done."""

    def call() -> None:
        function()
        if scale.device == "cuda":
            torch.cuda.synchronize()

    return call


def weightless(scale: Scale, stage: Stage, **change: Any) -> Trainer:
    """A stage whose tensors have shapes and no contents, for a device that need not be there.

    To be called, and used, under a FakeTensorMode.
    """
    with patch.object(nn.Module, "to", lambda module, *_, **__: module):  # such tensors cannot be moved
        return build_trainer(scale, stage, device="cpu", **change)


@cache
def flops_of_step(scale: Scale, stage: Stage) -> int:
    """Operations of the network in one step, forward and backward; a multiply and add are two."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        trainer = weightless(scale, stage)
        clips = clips_without_contents(trainer, scale.size, scale.size)
        return count_flops(lambda: trainer.backward(clips))[0]


@cache
def flops_of_references(scale: Scale) -> int:
    """Operations of a temporal step that its clip's references take: R, and their projection at each site."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        trainer = weightless(scale, "temporal")
        conditions = clips_without_contents(trainer, scale.size, scale.size).conditions
        given = (conditions.references, conditions.context)
        return count_flops(lambda: trainer.network.encode_references(*given))[0]


@cache
def flops_of_generation(scale: Scale) -> int:
    """Operations of the network for a video: its conditions encoded once, then its steps."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        trainer = weightless(scale, "temporal")
        network, clips = trainer.network, clips_without_contents(trainer, scale.size, scale.size)
        encoding, encoded = count_flops(lambda: network.encode(clips.conditions))
        step, _ = count_flops(lambda: network(clips.z_t, clips.timestep[:, :1], encoded))
        return encoding + STEPS * step


def count_flops(function: Callable[[], Result]) -> tuple[int, Result]:
    counter = FlopCounterMode(display=False)
    # Plain attention, since the counter does not know every fused one; the products are the same.
    with sdpa_kernel(SDPBackend.MATH), LiveBytes(), counter:
        result = function()
    return counter.get_total_flops(), result
