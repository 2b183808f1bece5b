"""One training step: noise a batch, predict, weigh the error, move the weights (paper, Sec. 3.3, 4.1).

    loss = w(SNR) · mean_area |prediction − target|²        target: v (or ε) of z_t = √ᾱ z_0 + √(1−ᾱ) ε

Timesteps and noise depend on (seed, step) alone.
Letters: b clips, t frames, c latent channels, h×w latent, H×W picture.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from pytorch_optimizer import Muon
from torch import Tensor, nn
from torch.optim import Optimizer

from model.checkpoint import TrainingState
from model.clip_context import clip_context
from model.clip_tensors import assemble, to_signed
from model.conditions import Conditions
from model.data import Batch, LeastRecent
from model.network import ManiVideoNetwork
from model.pipeline import ManiVideoPipeline
from model.schedule import min_snr_weights, prediction_target
from model.training_config import TrainConfig

LATENT_CACHE_BYTES = 2**30
ENCODED_AT_ONCE = 8  # pictures, to bound the codec's memory
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def select_trained(network: ManiVideoNetwork, stage: str) -> dict[str, nn.Parameter]:
    """Parameters that a stage trains, by name; all others are frozen."""
    chosen = {
        "image": network.image_parameters,
        "temporal": network.temporal_parameters,
        "human": lambda: chain(network.image_parameters(), network.skeleton_parameters()),
    }[stage]
    identities = {id(parameter) for parameter in chosen()}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in identities)
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def build_optimizer(trained: dict[str, nn.Parameter], config: TrainConfig) -> Optimizer:
    """The optimizer of a stage's parameters.

    Muon orthogonalises the steps of weight matrices and scales them to Adam's size; AdamW takes the rest.
    """
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer != "muon":
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        return kind(trained.values(), rate, weight_decay=decay, fused=True)
    matrices = [p for name, p in trained.items() if name.endswith("weight") and p.ndim > 1]
    taken = {id(p) for p in matrices}
    rest = [p for p in trained.values() if id(p) not in taken]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "use_muon": True, "use_adjusted_lr": True, "lr": rate, "weight_decay": decay},
        {"params": rest, "use_muon": False, "lr": rate},
    ]
    return Muon(groups)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of a step: linear warm-up, then constant or half a cosine down to zero."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.decay == "constant":
        return config.learning_rate
    share = (step - config.warmup) / max(config.iterations - config.warmup, 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


def weighted_loss(prediction: Tensor, target: Tensor, area: Tensor, foreground_weight: float) -> Tensor:
    """Squared error [b, t, c, h, w] as a mean for each frame [b, t], in which the area counts more.

    area: bool [b, t, H, W]; a latent cell counts by the share of its pixels that are inside.
    """
    height, width = prediction.shape[-2:]
    inside = F.adaptive_avg_pool2d(area.float(), (height, width))  # [b, t, h, w]
    weight = 1.0 + (foreground_weight - 1.0) * inside
    error = (prediction.float() - target).square().mean(dim=2)  # [b, t, h, w]
    return (error * weight).flatten(2).sum(2) / weight.flatten(2).sum(2)


@dataclass(frozen=True)
class NoisedClips:
    """b clips as the loss takes them."""

    z_t: Tensor  # [b, t, c, h, w]
    timestep: Tensor  # [b, t]
    target: Tensor  # v, ε or z_0: [b, t, c, h, w]
    area: Tensor  # bool [b, t, H, W]
    conditions: Conditions

    def split(self, count: int) -> list["NoisedClips"]:
        """At most `count` shares of about equally many clips."""
        count = min(count, len(self.z_t))
        z_t, timestep = self.z_t.tensor_split(count), self.timestep.tensor_split(count)
        target, area = self.target.tensor_split(count), self.area.tensor_split(count)
        shares = zip(z_t, timestep, target, area, self.conditions.split(count), strict=True)
        return [NoisedClips(*share) for share in shares]


class Trainer:
    """The network in training: one call of `step` is one step of the optimizer."""

    def __init__(self, config: TrainConfig, pipeline: ManiVideoPipeline) -> None:
        self.config, self.pipeline = config, pipeline
        self.device = torch.device(
            config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        )
        self.network = pipeline.network.to(self.device).train()
        self.codec = pipeline.codec.to(self.device).eval().requires_grad_(False)
        self.image_encoder = pipeline.image_encoder
        if self.image_encoder is not None:
            self.image_encoder.to(self.device).eval().requires_grad_(False)
        if config.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        trained = select_trained(self.network, config.stage)
        self.parameters = list(trained.values())
        optimizer = build_optimizer(trained, config)
        ema = EMAModel(self.parameters, config.ema_decay, foreach=True) if config.ema_decay else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.state = TrainingState(self.network, optimizer, ema, list(trained), self.scaler)
        self.latents = LeastRecent[tuple[Tensor, Tensor]](
            LATENT_CACHE_BYTES, lambda both: sum(x.nbytes for x in both)
        )

    def step(self, step: int, batch: Batch) -> tuple[float, float]:
        """Take one step; return the loss and the gradient's norm before clipping."""
        value = self.backward(self.noised(step, batch.to(self.device)))
        self.scaler.unscale_(self.state.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.config.max_gradient_norm))
        overflow = self.scaler.is_enabled() and math.isfinite(value)  # the scaler leaves such a step out
        if not (math.isfinite(value) and (math.isfinite(norm) or overflow)):
            raise FloatingPointError(f"step {step}: loss {value}, gradient {norm} on clips {list(batch.ids)}")
        for group in self.state.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.config)
        self.scaler.step(self.state.optimizer)
        self.scaler.update()
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.state.ema is not None:
            self.state.ema.step(self.parameters)
        return value, norm

    @torch.no_grad()
    def noised(self, step: int, batch: Batch) -> NoisedClips:
        """What the loss of one step is computed from."""
        scheduler = self.pipeline.scheduler
        b, t = batch.clips.frames.shape[:2]
        frames = to_signed(batch.clips.frames.flatten(0, 1)).split(ENCODED_AT_ONCE)
        z_0 = torch.cat([self.codec.encode(part) for part in frames])  # [b·t, c, h, w]
        timestep = self.timesteps(step, b, t)
        noise = torch.randn(z_0.shape, generator=self._generator(step, "noise")).to(self.device)
        z_t = scheduler.add_noise(z_0, noise, timestep.flatten())
        target = prediction_target(scheduler, z_0, noise, timestep.flatten())
        conditions = assemble(batch.clips, *self._encoded_references(batch), batch.references.points)
        return NoisedClips(
            z_t.unflatten(0, (b, t)),
            timestep,
            target.unflatten(0, (b, t)),
            batch.clips.area,
            conditions.drop(batch.dropped, batch.motion_dropped),
        )

    def backward(self, clips: NoisedClips) -> float:
        """Set the gradients of the batch's loss, part after part; return the loss."""
        parts = clips.split(self.config.accumulate)
        return sum(self.add_gradients(part, len(part.z_t) / len(clips.z_t)) for part in parts)

    def add_gradients(self, clips: NoisedClips, weight: float) -> float:
        """Add the gradients of `weight` times the loss of some clips; return that.

        On several threads each takes its share of the clips, and their gradients are summed in a fixed order.
        """
        shares = clips.split(self.config.clip_threads)
        if len(shares) == 1:
            loss = self.loss(clips) * weight
            self.scaler.scale(loss).backward()
            return loss.item()

        def gradients(share: NoisedClips) -> tuple[float, tuple[Tensor | None, ...]]:
            loss = self.loss(share) * (weight * len(share.z_t) / len(clips.z_t))
            scaled = self.scaler.scale(loss)
            return loss.item(), torch.autograd.grad(scaled, self.parameters, allow_unused=True)

        # What flushes denormal numbers is a mode of each thread.
        with ThreadPoolExecutor(len(shares), initializer=torch.set_flush_denormal, initargs=(True,)) as pool:
            losses, parts = zip(*pool.map(gradients, shares), strict=True)
        for parameter, *given in zip(self.parameters, *parts, strict=True):
            there = [gradient for gradient in (parameter.grad, *given) if gradient is not None]
            parameter.grad = torch.stack(there).sum(0) if there else None
        return sum(losses)

    def loss(self, clips: NoisedClips) -> Tensor:
        """Mean loss of the clips, a scalar."""
        dtype = AUTOCAST.get(self.config.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            # The temporal stage freezes all that encode runs, so leaving its gradient out changes nothing.
            with torch.set_grad_enabled(self.config.stage != "temporal"):
                encoded = self.network.encode(clips.conditions)
            prediction = self.network(clips.z_t, clips.timestep, encoded)
        losses = weighted_loss(prediction, clips.target, clips.area, self.config.foreground_weight)  # [b, t]
        if self.config.min_snr_gamma is not None:
            scheduler, gamma = self.pipeline.scheduler, self.config.min_snr_gamma
            losses = losses * min_snr_weights(scheduler, clips.timestep, gamma)
        return losses.mean()

    def timesteps(self, step: int, b: int, t: int) -> Tensor:
        """Timesteps [b, t] of a step; frames of a window share one, scattered frames do not."""
        generator = self._generator(step, "timesteps")
        count = b * t if self.config.batch.pick == "scattered" else b
        # Stratified: even a small batch spans low and high noise.
        stratum = (
            torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)
        ) / count
        levels = self.pipeline.scheduler.config.num_train_timesteps
        timestep = (
            (stratum ** (1 / self.config.noise_bias) * levels).long().clamp(max=levels - 1)
        )  # 1 by rounding
        return timestep.reshape(b, -1).expand(b, t).to(self.device)

    def _generator(self, step: int, purpose: Literal["timesteps", "noise"]) -> torch.Generator:
        """A generator on the CPU, the same for any device."""
        entropy = [self.config.seed, step, ("timesteps", "noise").index(purpose)]
        seed = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed))

    def _encoded_references(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """References as latents [b, 8, c, h, w] and tokens [b, k, d], made once a clip; absent ones zero."""

        def encode(pictures: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
            tokens = clip_context(self.image_encoder, pictures[None], present[None])[0]
            return self.codec.encode(to_signed(pictures)), tokens

        given = zip(batch.ids, batch.references.pictures, batch.references.present, strict=True)
        encoded = [self.latents.get(clip, partial(encode, *pictures)) for clip, *pictures in given]
        latents, tokens = (torch.stack(each) for each in zip(*encoded, strict=True))
        return latents * batch.references.present[..., None, None, None], tokens
