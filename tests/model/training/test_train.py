"""Training runs: exact resume, frozen parts, interruption, and what a run leaves behind."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model.config import ModelConfig
from model.data import BatchConfig, Draws, StepBatches
from model.objective import weighted_loss
from model.pipeline import ManiVideoPipeline, build_pipeline
from model.start import starting_pipeline
from model.train import train
from model.trainer import Trainer, learning_rate, select_trained
from model.training_config import TrainConfig
from storage.config import load_config
from storage.dataset import Dataset
from storage.errors import InputError
from storage.store import Store

CONFIGS = Path(__file__).parents[3] / "configs" / "train"


def final_weights(run: Path) -> dict[str, Tensor]:
    """Weights, averaged weights and the optimizer's moments at the end of a run."""
    last = max((run / "checkpoints").iterdir())
    optimizer = torch.load(last / "optimizer.pt", weights_only=True)["state"]
    moments = {f"{k}.{name}": tensor for k, state in optimizer.items() for name, tensor in state.items()}
    averaged = {f"ema.{name}": tensor for name, tensor in load_file(last / "ema.safetensors").items()}
    return load_file(last / "network.safetensors") | averaged | moments


def interrupt_after(step: int) -> Callable[[int, int, float], None]:
    """A progress callback that presses Ctrl-C."""

    def press(done: int, total: int, loss: float) -> None:
        if done == step:
            signal.raise_signal(signal.SIGINT)

    return press


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_run_stopped_by_ctrl_c_and_resumed_equals_one_that_never_stopped(
    optimizer: str, store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    config = image_config.model_copy(update={"optimizer": optimizer})
    straight_run, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(config, store, straight_run)
    with pytest.raises(KeyboardInterrupt, match="after step 3"):
        train(config, store, stopped, interrupt_after(3))
    assert not (stopped / "model").exists()
    result = train(config, store, stopped, resume=True)

    straight, resumed = final_weights(straight_run), final_weights(stopped)
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert len(result.losses) == config.iterations
    assert (stopped / "losses.jsonl").read_text() == (straight_run / "losses.jsonl").read_text()


def test_ctrl_c_is_python_s_own_again_after_training(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(image_config, store, tmp_path, interrupt_after(1))
    assert signal.getsignal(signal.SIGINT) is before


def test_the_saved_pipeline_has_the_averaged_weights(image_run: Path) -> None:
    saved = ManiVideoPipeline.from_pretrained(image_run / "model").network.state_dict()
    averaged = load_file(image_run / "checkpoints" / "step-00000006" / "ema.safetensors")
    trained = load_file(image_run / "checkpoints" / "step-00000006" / "network.safetensors")
    assert all(torch.equal(saved[name], averaged[name]) for name in averaged)
    assert any(not torch.equal(saved[name], trained[name]) for name in averaged)


def test_the_temporal_stage_changes_motion_modules_alone(
    store: Store, image_config: TrainConfig, image_run: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        stage="temporal",
        dataset="toy",
        init_from=image_run / "model",
        iterations=3,
        learning_rate=1e-2,
        ema_decay=0.0,
        batch={"clips": 1, "frames": 5, "pick": "window"},
    )
    result = train(config, store, tmp_path / "temporal")
    before = ManiVideoPipeline.from_pretrained(image_run / "model").network.state_dict()
    after = ManiVideoPipeline.from_pretrained(result.model).network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    motion = {name: tensor for name, tensor in after.items() if name not in before}
    assert motion
    assert all(".motion." in name for name in motion)
    assert any(tensor.any() for name, tensor in motion.items() if "proj_out" in name)  # zero before training


def test_the_human_stage_trains_the_skeleton_guider_too(model_yaml: Path) -> None:
    network = build_pipeline(load_config(ModelConfig, model_yaml)).network
    network.set_temporal(True)
    image, temporal, human = (set(select_trained(network, stage)) for stage in ("image", "temporal", "human"))
    everything = {name for name, _ in network.named_parameters()}
    assert image.isdisjoint(temporal)
    assert all(name.startswith("skeleton_guider.") for name in human - image)
    assert human - image
    assert human | temporal == everything


def test_training_fits_one_batch(dataset: Dataset, image_config: TrainConfig) -> None:
    config = image_config.model_copy(update={"learning_rate": 1e-2, "decay": "constant"})
    batch = StepBatches(dataset, Draws(dataset.rows("train"), config.batch, seed=0), 2**30)(0)
    trainer = Trainer(config, starting_pipeline(config))
    losses = [trainer.step(0, batch).loss for _ in range(25)]
    assert losses[-1] < 0.5 * losses[0]


def test_accumulation_and_recomputation_give_the_same_gradients(
    dataset: Dataset, image_config: TrainConfig
) -> None:
    batching = BatchConfig(clips=4, frames=2, condition_dropout=0.4, motion_dropout=0.4)
    draws = Draws(dataset.rows("train"), batching, seed=0)
    batch = StepBatches(dataset, draws, 2**30)(0)
    gradients = []
    for change in (
        {},
        {"accumulate": 4},
        {"accumulate": 3},
        {"gradient_checkpointing": True, "accumulate": 2},
    ):
        config = image_config.model_copy(update={"batch": batching, **change})
        trainer = Trainer(config, starting_pipeline(config))
        torch.manual_seed(0)
        for parameter in trainer.parameters:  # off its zero, so that every gradient counts
            parameter.data += 0.02 * torch.randn(parameter.shape)
        loss = trainer.backward(trainer.noised(0, batch)).mean()
        gradients.append([loss, *(parameter.grad for parameter in trainer.parameters)])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_float16_scales_its_loss_and_leaves_out_a_step_that_overflows(
    dataset: Dataset, image_config: TrainConfig
) -> None:
    batch = StepBatches(dataset, Draws(dataset.rows("train"), image_config.batch, seed=0), 2**30)(0)
    plain = Trainer(image_config, starting_pipeline(image_config))
    expected = plain.step(1, batch).loss
    config = image_config.model_copy(update={"precision": "float16"})
    trainer = Trainer(config, starting_pipeline(config))
    scaler = trainer.state.scaler
    assert scaler is not None
    state = scaler.state_dict()
    scaler.load_state_dict(state | {"scale": 1024.0})
    assert trainer.step(1, batch).loss == pytest.approx(expected, rel=0.02)
    before = [parameter.detach().clone() for parameter in trainer.parameters]
    scaler.load_state_dict(state | {"scale": 2.0**127})  # every gradient overflows
    trainer.step(2, batch)
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.parameters, strict=True))
    assert scaler.get_scale() == 2.0**126


def test_float16_needs_a_gpu(image_config: TrainConfig) -> None:
    config = image_config.model_copy(update={"precision": "float16", "device": "cpu"})
    with pytest.raises(InputError, match="precision: float16 does not work on cpu"):
        Trainer(config, starting_pipeline(config))


def test_attention_is_fused(image_config: TrainConfig) -> None:
    network = starting_pipeline(image_config).network
    network.set_temporal(True)
    kinds = {type(m.processor).__name__ for m in network.modules() if hasattr(m, "processor")}
    assert kinds == {"AttnProcessor2_0"}  # torch's scaled_dot_product_attention


def test_recomputing_activations_changes_nothing_and_bfloat16_little(
    dataset: Dataset, image_config: TrainConfig
) -> None:
    batch = StepBatches(dataset, Draws(dataset.rows("train"), image_config.batch, seed=0), 2**30)(0)
    losses = {}
    for name, change in {
        "plain": {},
        "recomputed": {"gradient_checkpointing": True},
        "bfloat16": {"precision": "bfloat16"},
    }.items():
        config = image_config.model_copy(update=change)
        trainer = Trainer(config, starting_pipeline(config))
        losses[name] = [trainer.step(step, batch).loss for step in range(3)]
    assert losses["recomputed"] == pytest.approx(losses["plain"], rel=1e-5)
    assert losses["bfloat16"] == pytest.approx(losses["plain"], rel=0.05)


def test_clips_on_threads_of_their_own_train_as_a_batch_does_and_alike_each_time(
    dataset: Dataset, image_config: TrainConfig
) -> None:
    config = image_config.model_copy(update={"batch": BatchConfig(clips=3, frames=2)})
    batch = StepBatches(dataset, Draws(dataset.rows("train"), config.batch, seed=0), 2**30)(0)

    def gradients(clip_threads: int) -> tuple[float, list[Tensor]]:
        chosen = config.model_copy(update={"clip_threads": clip_threads})
        trainer = Trainer(chosen, starting_pipeline(chosen))
        loss = float(trainer.backward(trainer.noised(0, batch)).mean())
        return loss, [p.grad for p in trainer.parameters if p.grad is not None]

    (loss, together), (split_loss, apart), (_, again) = gradients(1), gradients(2), gradients(2)
    assert split_loss == pytest.approx(loss, rel=1e-5)
    assert len(apart) == len(together)
    largest = max(float(g.abs().max()) for g in together)
    for one, other, repeated in zip(together, apart, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * largest)
        assert torch.equal(other, repeated)


def test_a_broken_loss_stops_with_the_clips_named(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    huge = image_config.model_copy(update={"learning_rate": 1e30, "warmup": 0, "decay": "constant"})
    with pytest.raises(FloatingPointError, match=r"step \d: loss .* on clips \['.*/cam0'"):
        train(huge, store, tmp_path)


def test_gradients_that_overflow_at_any_scale_stop_a_run(
    dataset: Dataset, image_config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(image_config, starting_pipeline(image_config))
    batch = StepBatches(dataset, Draws(dataset.rows("train"), image_config.batch, seed=0), 2**30)(0)
    monkeypatch.setattr(trainer.accelerator, "clip_grad_norm_", lambda *_: float("inf"))
    scales = iter([2.0**15, 0.5])  # a step that is left out, and one too many
    trainer.state = replace(trainer.state, scaler=SimpleNamespace(get_scale=lambda: next(scales)))
    trainer.step(0, batch)
    with pytest.raises(FloatingPointError, match=r"gradient inf at any scale of the loss, on clips \['"):
        trainer.step(1, batch)


def test_a_start_that_is_no_saved_model_is_named(image_config: TrainConfig, tmp_path: Path) -> None:
    config = image_config.model_copy(update={"model": None, "init_from": tmp_path})
    with pytest.raises(InputError, match="no saved model in it"):
        starting_pipeline(config)
    (tmp_path / "model_index.json").write_text('{"_class_name": "ManiVideoPipeline", "network"')
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be read"):
        starting_pipeline(config)


def test_scattered_frames_do_not_pass_motion_modules(
    store: Store, image_config: TrainConfig, image_run: Path, tmp_path: Path
) -> None:
    temporal = image_config.model_copy(
        update={"stage": "temporal", "model": None, "init_from": image_run / "model"}
    )
    with pytest.raises(InputError, match=r"batch\.pick must be 'window'"):
        train(temporal, store, tmp_path / "temporal")


def test_a_config_needs_exactly_one_start(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("{stage: image, dataset: toy}")
    with pytest.raises(InputError, match="exactly one of 'model' and 'init_from'"):
        load_config(TrainConfig, tmp_path / "t.yaml")


def test_learning_rate_warms_up_and_falls_along_a_cosine(image_config: TrainConfig) -> None:
    config = image_config.model_copy(update={"learning_rate": 1.0, "warmup": 4, "iterations": 12})
    rates = [learning_rate(step, config) for step in range(13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[8] == pytest.approx(0.5)
    assert rates[12] == pytest.approx(0.0)
    assert learning_rate(12, config.model_copy(update={"decay": "constant"})) == 1.0


def test_the_loss_weighs_the_area_and_stays_a_mean() -> None:
    area = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    area[..., :4] = True
    error = torch.zeros(1, 1, 3, 2, 2)
    error[..., 0] = 2.0  # inside: squared error 4; outside: 0
    zero = torch.zeros_like(error)
    assert weighted_loss(error, zero, area, 1.0).item() == pytest.approx(2.0)
    assert weighted_loss(error, zero, area, 3.0).item() == pytest.approx(4.0 * 3 / 4)
    assert weighted_loss(torch.ones_like(error), zero, area, 3.0).item() == pytest.approx(1.0)


def test_frames_of_a_window_share_a_noise_level_and_scattered_frames_do_not(
    image_config: TrainConfig,
) -> None:
    trainer = Trainer(image_config, starting_pipeline(image_config))
    scattered = torch.stack([trainer.timesteps(step, 2, 4) for step in range(50)])  # [50, 2, 4]
    assert all(len(set(levels.flatten().tolist())) == 8 for levels in scattered)
    assert (scattered.flatten(1).sort(dim=1).values // 125 == torch.arange(8)).all()  # one in each eighth
    window = image_config.model_copy(update={"batch": BatchConfig(clips=2, frames=4, pick="window")})
    trainer.config = window
    shared = trainer.timesteps(0, 2, 4)
    assert (shared == shared[:, :1]).all()
    assert shared[0, 0] != shared[1, 0]


def test_a_noise_bias_draws_more_high_noise(image_config: TrainConfig) -> None:
    trainer = Trainer(image_config, starting_pipeline(image_config))
    even = torch.stack([trainer.timesteps(step, 2, 4) for step in range(50)])
    trainer.config = image_config.model_copy(update={"noise_bias": 3.0})
    high = torch.stack([trainer.timesteps(step, 2, 4) for step in range(50)])
    assert even.float().mean() == pytest.approx(500, abs=15)
    assert high.float().mean() == pytest.approx(750, abs=15)  # mean of T·u^(1/3)
    assert high.max() < 1000


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_configs_are_valid(path: Path) -> None:
    config = load_config(TrainConfig, path)
    size, stage = path.stem.split("_")
    assert stage == config.stage
    if config.model is not None:
        load_config(ModelConfig, CONFIGS.parents[1] / config.model)
    else:  # a stage starts from the one before
        before = {"temporal": "image", "human": "temporal"}[stage]
        assert config.init_from == Path(f"outputs/{size}_{before}/model")
    if size == "sd15" and stage != "human":  # the paper's own numbers
        expected = {"image": (20_000, 1e-5, 4, 1), "temporal": (30_000, 8e-6, 1, 24)}[stage]
        assert (config.iterations, config.learning_rate, config.batch.clips, config.batch.frames) == expected
