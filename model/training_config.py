"""The settings of a training run: the three stages differ by these values alone (paper, Sec. 3.3, 4.1)."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from model.data import BatchConfig
from model.pretrained import PretrainedConfig


class TrainConfig(BaseModel, frozen=True, extra="forbid"):
    """One stage of training."""

    stage: Literal["image", "temporal", "human"]
    """What is trained: all but temporal layers and G_1; temporal layers; the image stage's set and G_1."""
    dataset: str
    """Name of the dataset in the store."""
    split: str = "train"
    """Rows of the dataset to draw from."""
    model: Path | None = None
    """YAML of the model to build with fresh weights."""
    init_from: Path | None = None
    """Folder of a saved pipeline to start from instead, e.g. the image stage's result."""
    pretrained: PretrainedConfig = PretrainedConfig()
    """Public weights to start from: Stable Diffusion's with `model`, AnimateDiff's in the temporal stage."""
    batch: BatchConfig = BatchConfig()
    """What one step draws."""

    iterations: int = Field(default=20_000, ge=1)
    """Steps of the whole run, counted from its beginning also after a resume."""
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    """Adam, AdamW with decoupled weight decay, or Muon (Jordan 2024), which a model from scratch needs fewer
    steps of."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak step size."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of weights a step, as a share of the learning rate."""
    warmup: int = Field(default=0, ge=0)
    """Steps of linear rise to the peak learning rate."""
    decay: Literal["constant", "cosine"] = "constant"
    """After the warm-up: stay at the peak, or fall to zero at the last step along a cosine."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Longer gradients are scaled down to this norm."""
    min_snr_gamma: float | None = Field(default=5.0, gt=0)
    """Cap of the signal-to-noise ratio in the loss weights (Hang et al. 2023); null: no weights."""
    noise_bias: float = Field(default=1.0, ge=1)
    """Timesteps have density ∝ t^(noise_bias - 1): above 1, more at high noise, where conditions decide."""
    foreground_weight: float = Field(default=1.0, gt=0)
    """Weight in the loss of the hand-object area, against 1 elsewhere; 1 is the paper's plain loss."""
    ema_decay: float = Field(default=0.9999, ge=0, lt=1)
    """Share that averaged weights keep a step, (1 + n) / (10 + n) at most; 0: no averaging."""

    seed: int = Field(default=0, ge=0)
    """Seeds draws, noise and fresh weights."""
    checkpoint_every: int = Field(default=1000, ge=1)
    """Steps between checkpoints; the last step always writes one."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints kept; older ones are deleted."""
    log_every: int = Field(default=100, ge=1)
    """Steps between log messages; `losses.jsonl` has every step."""

    device: str = "auto"
    """Where to train: a torch device, or auto: the GPU if there is one."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Arithmetic of the forward pass; weights stay float32. With float16 the loss is scaled, and a step whose
    gradients overflow is left out."""
    accumulate: int = Field(default=1, ge=1)
    """Parts of a batch that are computed one after another: the same gradients, less memory."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    memory_estimate: bool = True
    """Find out before the first step how much memory training needs, which takes seconds, and log it."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of torch; null: torch's own choice."""
    clip_threads: int = Field(default=1, ge=1)
    """Shares of a batch that a CPU trains side by side: operators of a small model fill one core alone."""
    read_ahead: int = Field(default=2, ge=0)
    """Batches that are read while a step is computed."""
    cache_gib: float = Field(default=4.0, ge=0)
    """Memory for clips, in GiB: a dataset that fits is read once, of a larger one only what is drawn."""

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if (self.model is None) == (self.init_from is None):
            raise ValueError("exactly one of 'model' and 'init_from' must be set")
        if self.pretrained.stable_diffusion is not None and self.model is None:
            raise ValueError("pretrained.stable_diffusion would overwrite what 'init_from' has learnt")
        if self.pretrained.motion_modules is not None and self.stage != "temporal":
            raise ValueError(
                "pretrained.motion_modules has no place in this stage: it has no temporal layers"
            )
        return self
