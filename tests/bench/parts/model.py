"""The network: parameters by box of Figure 2, a training step of `tiny` on the CPU, conditions encoded once.

The paper's size (`sd15`) is counted only: its times need a GPU.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from model.config import ModelConfig
from model.memory import clips_without_contents, estimate_memory
from model.network import ManiVideoNetwork
from model.objective import NoisedClips
from model.pipeline import build_pipeline
from model.trainer import Trainer
from model.training_config import TrainConfig
from storage.config import load_config
from tests.bench.harness import Table, ratio, take_turns

CONFIGS = Path(__file__).parents[3] / "configs" / "model"
SIZE = 64  # pixels, as in the demo
BATCH = {"clips": 2, "frames": 4}
STEPS = 25  # of denoising
VARIANTS: dict[str, dict[str, object]] = {
    "plain": {},
    "activations recomputed": {"gradient_checkpointing": True},
    "one clip after the other": {"accumulate": 2},
    "bfloat16": {"precision": "bfloat16"},
}
BOXES = {
    "denoising UNet": "denoising_unet.unet",
    "layers added at its sites, with temporal ones": "denoising_unet.sites",
    "AppearanceNet R": "appearance_net",
    "pose guider G": "pose_guider",
    "skeleton guider G₁": "skeleton_guider",
    "MLO embedding E_F": "mlo_embedding",
    "object embedding E_N": "object_embedding",
}


def run(rounds: int, folder: Path) -> list[Table]:
    """Count parameters and time the tiny network."""
    return [parameters(), training_step(rounds), cached_conditions(rounds)]


def parameters() -> Table:
    """Parameters of each box, in millions."""
    rows = [[box] for box in (*BOXES, "temporal layers alone")]
    for name in ("tiny", "sd15"):
        with torch.device("meta"):
            network = ManiVideoNetwork(load_config(ModelConfig, CONFIGS / f"{name}.yaml").network)
            network.set_temporal(True)
        counts = [sum(p.numel() for p in network.get_submodule(path).parameters()) for path in BOXES.values()]
        counts.append(sum(p.numel() for p in network.temporal_parameters()))
        for row, count in zip(rows, counts, strict=True):
            row.append(f"{count / 1e6:.2f}")
    return Table("Parameters by box, in millions", ("box", "tiny", "sd15"), rows)


def training_step(rounds: int) -> Table:
    """Time of a step of the image stage, and its memory by estimate."""
    trainers = {name: _trainer(change) for name, change in VARIANTS.items()}
    peers: dict[str, Callable[[], object]] = {}
    for name, trainer in trainers.items():
        clips = _clips(trainer)
        peers[name] = lambda trainer=trainer, clips=clips: _step(trainer, clips)
    seconds = take_turns(peers, rounds)
    rows = []
    for name, trainer in trainers.items():
        memory = estimate_memory(trainer, SIZE, SIZE).total / 2**20
        times = f"{1e3 * median(seconds[name]):.0f} ms", f"{ratio(seconds, name, 'plain'):.2f}"
        rows.append([name, *times, f"{memory:.0f} MiB"])
    return Table(
        "A training step of tiny",
        ("step", "median", "of the plain one", "memory, estimated"),
        rows,
        notes=(f"{BATCH['clips']} clips of {BATCH['frames']} frames at {SIZE}², AdamW",),
        data=seconds,
    )


def cached_conditions(rounds: int) -> Table:
    """Denoising with conditions encoded once, against once a step."""
    trainer = _trainer({})
    network, clips = trainer.network.eval(), _clips(trainer)

    @torch.no_grad()
    def denoise(*, cached: bool) -> None:
        encoded = network.encode(clips.conditions)
        for step in range(STEPS):
            if step > 0 and not cached:
                encoded = network.encode(clips.conditions)
            network(clips.z_t, clips.timestep, encoded)

    peers = {"once": lambda: denoise(cached=True), "at every step": lambda: denoise(cached=False)}
    seconds = take_turns(peers, rounds)
    rows = [
        [name, f"{median(seconds[name]):.2f} s", f"{ratio(seconds, name, 'at every step'):.2f}"]
        for name in peers
    ]
    title = f"{STEPS} denoising steps of tiny, conditions encoded once or at every step"
    return Table(title, ("encoded", "median", "of encoding at every step"), rows, data=seconds)


def _trainer(change: dict[str, object]) -> Trainer:
    settings: dict[str, object] = {"stage": "image", "dataset": "none", "optimizer": "adamw", "device": "cpu"}
    tiny = CONFIGS / "tiny.yaml"
    config = TrainConfig.model_validate(settings | {"model": tiny, "batch": BATCH} | change)
    return Trainer(config, build_pipeline(load_config(ModelConfig, tiny)))


def _clips(trainer: Trainer) -> NoisedClips:
    clips = clips_without_contents(trainer, SIZE, SIZE)
    for tensor in (clips.z_t, clips.timestep, clips.target, clips.area, *vars(clips.conditions).values()):
        tensor.fill_(1)
    return clips


def _step(trainer: Trainer, clips: NoisedClips) -> None:
    trainer.backward(clips)
    trainer.state.optimizer.step()
    trainer.state.optimizer.zero_grad(set_to_none=True)
