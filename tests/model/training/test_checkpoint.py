"""Checkpoints: whole or absent, newest kept, errors that say what is wrong."""

from pathlib import Path

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from model.checkpoint import (
    TrainingState,
    checkpoints,
    load_checkpoint,
    prune_checkpoints,
    read_position,
    save_checkpoint,
)
from storage.errors import InputError


def training_state(seed: int) -> TrainingState:
    """A trained layer with its optimizer and averages."""
    torch.manual_seed(seed)
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    trained = [layer.weight]
    optimizer, ema = torch.optim.AdamW(trained, 0.1), EMAModel(trained, 0.9)
    for _ in range(2):
        layer(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        ema.step(trained)
    return TrainingState(layer, optimizer, ema, ["weight"])


def test_a_checkpoint_restores_weights_averages_and_moments(tmp_path: Path) -> None:
    saved, other = training_state(0), training_state(1)
    path = save_checkpoint(tmp_path, 12, saved, {"seed": 5})
    assert load_checkpoint(path, other) == 12
    assert read_position(path)["config"] == {"seed": 5}
    assert torch.equal(saved.network.weight, other.network.weight)
    assert torch.equal(saved.network.bias, other.network.bias)
    assert saved.ema is not None
    assert other.ema is not None
    assert torch.equal(saved.ema.shadow_params[0], other.ema.shadow_params[0])
    assert saved.ema.optimization_step == other.ema.optimization_step
    moments = [state.optimizer.state_dict()["state"][0]["exp_avg"] for state in (saved, other)]
    assert torch.equal(*moments)


def test_a_checkpoint_from_a_gpu_is_read_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, other = training_state(0), training_state(1)
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        path = save_checkpoint(tmp_path, 3, saved, {})
    assert load_checkpoint(path, other) == 3
    moments = [state.optimizer.state_dict()["state"][0]["exp_avg"] for state in (saved, other)]
    assert moments[1].device.type == "cpu"
    assert torch.equal(*moments)


def test_an_interrupted_write_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = training_state(0)
    save_checkpoint(tmp_path, 1, state, {})

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", die)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path, 2, state, {})
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000001"]
    save_checkpoint(tmp_path, 2, state, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    state = training_state(0)
    for step in (5, 100, 20):
        save_checkpoint(tmp_path, step, state, {})
    prune_checkpoints(tmp_path, keep=2)
    assert [read_position(path)["step"] for path in checkpoints(tmp_path)] == [20, 100]


def test_a_damaged_or_foreign_checkpoint_is_named(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 1, training_state(0), {})
    foreign = nn.Linear(4, 4)
    adam = torch.optim.AdamW(foreign.parameters())
    with pytest.raises(InputError, match=r"step-00000001: cannot be resumed from: .*size mismatch"):
        load_checkpoint(path, TrainingState(foreign, adam, None, ["weight", "bias"]))
    for name in ("ema.safetensors", "optimizer.pt", "network.safetensors", "state.json"):
        (path / name).write_bytes((path / name).read_bytes()[:20])
        with pytest.raises(InputError, match="cannot be resumed from"):
            load_checkpoint(path, training_state(0))
    for text in ("[1]", "5", '{"step": 1}'):
        (path / "state.json").write_text(text)
        with pytest.raises(InputError, match=r"cannot be resumed from: state.json is not a checkpoint's"):
            read_position(path)
