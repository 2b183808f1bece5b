"""One training step: noise a batch, predict, weigh the error, move the weights (paper, Sec. 3.3, 4.1).

Timesteps and noise depend on (seed, step) alone. Of several processes each takes its slots of the batch, and
gradients are averaged over all: their number changes a result by rounding alone.
Letters: b clips, t frames, c latent channels, h×w latent, H×W picture.
"""

import gc
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import chain
from statistics import fmean
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, gather_object
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim import Optimizer

from model.checkpoint import TrainingState
from model.clip_context import clip_context
from model.clip_tensors import FrameTensors, assemble, to_signed
from model.conditions import NUM_REFERENCES
from model.data import Batch, ClipCache, LeastRecent
from model.latents import encode_pictures, latent_bytes
from model.muon import Muon
from model.network import ManiVideoNetwork
from model.objective import NoisedClips, Objective
from model.pipeline import ManiVideoPipeline
from model.schedule import prediction_target, seeded_generator
from model.training_config import TrainConfig
from storage.errors import InputError

LATENT_CACHE_BYTES = 2**30
LEAST_SCALE = 1.0  # of the loss in float16: below it, it is not the scale that makes gradients overflow
LONGEST_WAIT = timedelta(days=1)  # for a process that encodes frames, or makes a validation video
MIXED_PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def trains_on_cpu(config: TrainConfig) -> bool:
    """Whether the config, or the machine, leaves the CPU alone to train on."""
    return config.device == "cpu" or not torch.accelerator.is_available()


def start_accelerator(config: TrainConfig) -> Accelerator:
    """Where and in what precision to compute, and this process' place among those that train together."""
    # Accelerate keeps one precision a process for good; a process may train several stages.
    AcceleratorState._reset_state(reset_partial_state=True)
    # Unless told that it is to be a CPU, Accelerate joins processes on GPUs alone.
    accelerator = Accelerator(
        cpu=trains_on_cpu(config),
        mixed_precision=MIXED_PRECISION[config.precision],
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )
    processes, device = accelerator.num_processes, accelerator.device
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if processes < started:  # each would train alone, into the same folder
        found = f"{started} processes that do not find each other on {device}"
        raise InputError(f"device: found {found}, wanted one, or device: cpu", code="config")
    if config.precision != "float32" and not accelerator.native_amp:  # Accelerate would do without it
        raise InputError(f"precision: {config.precision} does not work on {device}", code="config")
    if config.batch.clips % processes:
        wanted = f"a multiple of the {processes} processes"
        raise InputError(f"batch.clips: found {config.batch.clips}, wanted {wanted}", code="config")
    if processes > 1 and config.clip_threads > 1:
        raise InputError("clip_threads: wanted 1, as several processes train together", code="config")
    return accelerator


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
    """Rate of a step: linear warm-up, then constant or half a cosine down to zero behind the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.decay == "constant":
        return config.learning_rate
    share = (step - config.warmup) / max(config.iterations - config.warmup, 1)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


@dataclass(frozen=True)
class StepResult:
    """What one step came to, over all processes."""

    loss: float
    gradient_norm: float  # before clipping
    learning_rate: float
    by_source: dict[str, float]  # the loss of each source that was drawn


class Trainer:
    """The network in training: one call of `step` is one step of the optimizer."""

    def __init__(self, config: TrainConfig, pipeline: ManiVideoPipeline) -> None:
        self.config, self.pipeline = config, pipeline
        self.accelerator = start_accelerator(config)
        self.device = self.accelerator.device
        self.network = pipeline.network.train()
        self.codec = pipeline.codec.to(self.device).eval().requires_grad_(False)
        self.image_encoder = pipeline.image_encoder
        if self.image_encoder is not None:
            self.image_encoder.to(self.device).eval().requires_grad_(False)
        if config.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()
        trained = select_trained(self.network, config.stage)
        objective = Objective(self.network, pipeline.scheduler, config).to(self.device)
        self.parameters = list(trained.values())
        self.objective, optimizer = self.accelerator.prepare(objective, build_optimizer(trained, config))
        ema = EMAModel(self.parameters, config.ema_decay, foreach=True) if config.ema_decay else None
        self.state = TrainingState(self.network, optimizer, ema, list(trained), self.accelerator.scaler)
        self.latents = LeastRecent[tuple[Tensor, Tensor]](
            LATENT_CACHE_BYTES, lambda both: sum(x.nbytes for x in both)
        )

    def step(self, step: int, batch: Batch) -> StepResult:
        """Take one step; FloatingPointError, naming the clips, where loss or gradient is no number."""
        losses = self.backward(self.noised(step, batch.to(self.device)))  # [b, t]
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.config.max_gradient_norm))
        clips = gather_object(list(zip(batch.sources, batch.ids, losses.mean(1).tolist(), strict=True)))
        value = fmean(loss for *_, loss in clips)
        scaler, ids = self.state.scaler, [clip for _, clip, _ in clips]
        # A scaler leaves a step out whose gradient overflows.
        if not (math.isfinite(value) and (math.isfinite(norm) or scaler is not None)):
            raise FloatingPointError(f"step {step}: loss {value}, gradient {norm} on clips {ids}")
        rate = learning_rate(step, self.config)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        self.state.optimizer.step()
        if scaler is not None and not math.isfinite(norm) and scaler.get_scale() < LEAST_SCALE:
            raise FloatingPointError(f"step {step}: gradient {norm} at any scale of the loss, on clips {ids}")
        self.state.optimizer.zero_grad(set_to_none=True)
        if self.state.ema is not None:
            self.state.ema.step(self.parameters)
        return StepResult(value, norm, rate, mean_by_source(clips))

    def anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return any(gather_object([flag]))

    def leave(self) -> None:
        """Leave the processes that train together, if there are any; no step can be taken afterwards.

        What averages gradients is freed first. That is done with the interpreter's lock held: if it freed the
        group of processes too, it would wait for gloo's threads, which may wait for the lock.
        """
        del self.objective
        if not self.accelerator.use_distributed:
            return
        self.accelerator.free_memory()
        gc.collect()
        self.accelerator.end_training()

    def slots(self) -> range:
        """The slots of a step's batch that this process takes."""
        share = self.config.batch.clips // self.accelerator.num_processes
        return range(share * self.accelerator.process_index, share * (self.accelerator.process_index + 1))

    @torch.no_grad()
    def noised(self, step: int, batch: Batch) -> NoisedClips:
        """What the loss of one step is computed from."""
        scheduler = self.pipeline.scheduler
        b, t = batch.clips.area.shape[:2]
        z_0 = self._clean(batch.clips).flatten(0, 1)  # [b·t, c, h, w]
        timestep = self._own(self.timesteps(step, b * self.accelerator.num_processes, t))
        noise = self._own(self.noise(step, b * self.accelerator.num_processes, t, z_0.shape[1:])).flatten(
            0, 1
        )
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

    def backward(self, clips: NoisedClips) -> Tensor:
        """Set the gradients of the batch's mean loss, part after part; return the losses [b, t]."""
        parts = clips.split(self.config.accumulate)
        losses = []
        for part in parts:
            # Processes meet once a step, after the last part.
            apart = nullcontext() if part is parts[-1] else self.accelerator.no_sync(self.objective)
            with apart:
                losses.append(self.add_gradients(part, len(part.z_t) / len(clips.z_t)))
        return torch.cat(losses)

    def add_gradients(self, clips: NoisedClips, weight: float) -> Tensor:
        """Add the gradients of `weight` times the mean loss of some clips; return the losses [b, t].

        On several threads each takes its share of the clips, and their gradients are summed in a fixed order.
        """
        shares = clips.split(self.config.clip_threads)
        if len(shares) == 1:
            losses: Tensor = self.objective(clips)
            self.accelerator.backward(losses.mean() * weight)
            return losses.detach()

        def gradients(share: NoisedClips) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            losses = self.objective(share)
            loss = losses.mean() * (weight * len(share.z_t) / len(clips.z_t))
            return losses.detach(), torch.autograd.grad(loss, self.parameters, allow_unused=True)

        # What flushes denormal numbers is a mode of each thread.
        with ThreadPoolExecutor(len(shares), initializer=torch.set_flush_denormal, initargs=(True,)) as pool:
            each, parts = zip(*pool.map(gradients, shares), strict=True)
        for parameter, *given in zip(self.parameters, *parts, strict=True):
            there = [gradient for gradient in (parameter.grad, *given) if gradient is not None]
            parameter.grad = torch.stack(there).sum(0) if there else None
        return torch.cat(each)

    def _clean(self, clips: FrameTensors) -> Tensor:
        """z_0 of the frames [b, t, c, h, w], as stored or encoded now."""
        if self.config.stored_latents:
            return clips.latents
        return encode_pictures(self.codec, clips.frames.flatten(0, 1)).unflatten(0, clips.frames.shape[:2])

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
        return timestep.reshape(b, -1).expand(b, t)

    def noise(self, step: int, b: int, t: int, latent: Sequence[int]) -> Tensor:
        """Noise [b, t, c, h, w] of a step."""
        return torch.randn(b * t, *latent, generator=self._generator(step, "noise")).unflatten(0, (b, t))

    def _own(self, of_all: Tensor) -> Tensor:
        """This process' clips [b / processes, …] of what all of them share [b, …], on its device."""
        accelerator = self.accelerator
        return of_all.tensor_split(accelerator.num_processes)[accelerator.process_index].to(self.device)

    def _generator(self, step: int, purpose: Literal["timesteps", "noise"]) -> torch.Generator:
        """A generator on the CPU, the same for any device."""
        entropy = [self.config.seed, step, ("timesteps", "noise").index(purpose)]
        return seeded_generator(entropy)

    def most_latent_bytes(self, clips: ClipCache) -> int:
        """What the references of all clips take that are kept encoded."""
        of_clip = NUM_REFERENCES * latent_bytes(self.codec, clips.height, clips.width)
        return min(LATENT_CACHE_BYTES, of_clip * clips.count)

    def _encoded_references(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """References as latents [b, 8, c, h, w] and tokens [b, k, d], made once a clip; absent ones zero."""

        def encode(pictures: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
            tokens = clip_context(self.image_encoder, pictures[None], present[None])[0]
            return self.codec.encode(to_signed(pictures)), tokens

        given = zip(batch.ids, batch.references.pictures, batch.references.present, strict=True)
        encoded = [self.latents.get(clip, partial(encode, *pictures)) for clip, *pictures in given]
        latents, tokens = (torch.stack(each) for each in zip(*encoded, strict=True))
        return latents * batch.references.present[..., None, None, None], tokens


def mean_by_source(clips: Sequence[tuple[str, str, float]]) -> dict[str, float]:
    """Mean loss of each source from (source, clip, loss)."""
    sources = sorted({source for source, *_ in clips})
    return {name: fmean(loss for source, _, loss in clips if source == name) for name in sources}
