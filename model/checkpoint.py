"""Checkpoints of a training run: whole or not at all, newest kept, nothing that can run code when read.

A checkpoint is a folder `step-00000042`: `network.safetensors`, `ema.safetensors` (what is averaged),
`optimizer.pt` (tensors and numbers) and `state.json` (position and settings). Draws and noise depend on
(seed, step) alone, so this is all that an exact continuation needs.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer

from storage.durable import sync
from storage.errors import InputError, one_line

PREFIX = "step-"
STAGING = ".staging-"
UNREADABLE = (OSError, EOFError, KeyError, RuntimeError, ValueError, SafetensorError, UnpicklingError)


@dataclass(frozen=True)
class TrainingState:
    """The parts of a run that training changes; they are written to and read into in place."""

    network: nn.Module
    optimizer: Optimizer
    ema: EMAModel | None  # None: no averaging
    trained: Sequence[str]  # names of the parameters that are trained, in the optimizer's and ema's order
    scaler: torch.amp.GradScaler | None = None  # of the loss, where precision is float16


def checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


def save_checkpoint(folder: Path, step: int, state: TrainingState, config: Mapping[str, Any]) -> Path:
    """Write `folder/step-…` beside its final place, then rename it; clears what a killed write has left."""
    for abandoned in folder.glob(f"{STAGING}*"):
        shutil.rmtree(abandoned)
    staging = folder / f"{STAGING}{step:08d}"
    staging.mkdir(parents=True)
    save_file(_contiguous(state.network.state_dict()), staging / "network.safetensors")
    if state.ema is not None:
        averaged = dict(zip(state.trained, state.ema.shadow_params, strict=True))
        save_file(_contiguous(averaged), staging / "ema.safetensors")
    torch.save(state.optimizer.state_dict(), staging / "optimizer.pt")
    ema_steps = state.ema.optimization_step if state.ema is not None else 0
    position = {"step": step, "ema_steps": ema_steps, "config": dict(config)}
    position["scaler"] = state.scaler.state_dict() if state.scaler is not None else {}
    (staging / "state.json").write_text(json.dumps(position, indent=2))
    for file in (*staging.iterdir(), staging):
        sync(file)
    final = folder / f"{PREFIX}{step:08d}"
    if final.exists():
        shutil.rmtree(final)
    staging.rename(final)
    sync(folder)
    return final


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the `keep` ≥ 1 newest checkpoints."""
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(path: Path, state: TrainingState) -> int:
    """Read a checkpoint into `state`; return the number of steps it has behind it.

    Raises InputError (code "checkpoint") where a file is missing, broken or of another network.
    """
    position = read_position(path)
    try:
        state.network.load_state_dict(load_file(path / "network.safetensors"))
        # By way of the CPU: the GPU it was saved from may be another process', or not be there.
        moments = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
        state.optimizer.load_state_dict(moments)
        if state.ema is not None:
            averaged = load_file(path / "ema.safetensors")
            for name, shadow in zip(state.trained, state.ema.shadow_params, strict=True):
                shadow.copy_(averaged[name])
            state.ema.optimization_step = position["ema_steps"]
        if state.scaler is not None:
            state.scaler.load_state_dict(position["scaler"])
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return int(position["step"])


def read_position(path: Path) -> dict[str, Any]:
    """Return a checkpoint's `state.json`: step, ema_steps, config; InputError where it cannot be read."""
    try:
        position = json.loads((path / "state.json").read_text())
        if not isinstance(position, dict) or not {"step", "ema_steps", "config", "scaler"} <= position.keys():
            raise ValueError("state.json is not a checkpoint's")
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return position


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be resumed from: {one_line(error)}", code="checkpoint")


def _contiguous(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
