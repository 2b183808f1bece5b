"""One noise schedule for training and inference."""

import pytest
import torch
from pydantic import ValidationError

from model.schedule import (
    SAMPLERS,
    ScheduleConfig,
    build_sampler,
    build_scheduler,
    min_snr_weights,
    prediction_target,
)

EPSILON = ScheduleConfig(prediction="epsilon", zero_terminal_snr=False, spacing="leading")


def test_last_level_is_pure_noise_and_inference_starts_there():
    scheduler = build_scheduler(ScheduleConfig())
    assert scheduler.alphas_cumprod[-1] == 0
    for steps in (1, 7, 25, 50):
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps[0] == 999


def test_v_gives_back_picture_and_noise_at_every_level():
    scheduler = build_scheduler(ScheduleConfig())
    z_0, noise = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    timestep = torch.tensor([0, 10, 500, 998, 999])
    z_t = scheduler.add_noise(z_0, noise, timestep)
    v = prediction_target(scheduler, z_0, noise, timestep)
    signal = scheduler.alphas_cumprod[timestep].double()[:, None]
    torch.testing.assert_close(signal.sqrt() * z_t - (1 - signal).sqrt() * v, z_0)
    torch.testing.assert_close((1 - signal).sqrt() * z_t + signal.sqrt() * v, noise)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("steps", [1, 4, 20])
def test_sampling_with_the_true_target_ends_at_the_picture(steps, prediction):
    scheduler = build_scheduler(ScheduleConfig(prediction=prediction))
    scheduler.set_timesteps(steps)
    z_0, noise = torch.randn(2, 3), torch.randn(2, 3)
    z = noise
    for timestep in scheduler.timesteps:
        target = prediction_target(scheduler, z_0, noise, timestep.expand(2))
        z = scheduler.step(target, timestep, z).prev_sample
    torch.testing.assert_close(z, z_0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "epsilon"])
@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_solver_with_the_true_target_ends_at_the_picture(name, prediction):
    config = EPSILON if prediction == "epsilon" else ScheduleConfig(prediction=prediction)
    schedule = build_scheduler(config)
    sampler = build_sampler(schedule, name)
    sampler.set_timesteps(20)
    z_0, noise = torch.randn(2, 3), torch.randn(2, 3)
    z = sampler.add_noise(z_0, noise, sampler.timesteps[:1].expand(2))
    for timestep in sampler.timesteps:
        sampler.scale_model_input(z, timestep)
        target = prediction_target(schedule, z_0, noise, timestep.long().expand(2))
        z = sampler.step(target, timestep, z).prev_sample
    torch.testing.assert_close(z, z_0, rtol=0, atol=0.05)


def test_solvers_share_the_noise_levels_and_steps_of_training():
    schedule = build_scheduler(ScheduleConfig())
    for name in SAMPLERS:
        sampler = build_sampler(schedule, name)
        torch.testing.assert_close(sampler.alphas_cumprod[:-1], schedule.alphas_cumprod[:-1])
        sampler.set_timesteps(10)
        schedule.set_timesteps(10)
        assert sampler.timesteps.tolist() == schedule.timesteps.tolist()


def test_min_snr_weights_follow_their_formula():
    scheduler = build_scheduler(ScheduleConfig())
    weights = min_snr_weights(scheduler, torch.arange(1000), gamma=5.0)
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    torch.testing.assert_close(weights, torch.minimum(snr + 1, torch.tensor(5.0)) / (snr + 1))
    assert weights[-1] == 1  # the level that inference starts from is trained
    assert (weights.diff() >= 0).all()


def test_predicting_the_picture_is_weighted_like_predicting_v():
    by_v, by_picture = (build_scheduler(ScheduleConfig(prediction=p)) for p in ("v_prediction", "sample"))
    timestep = torch.tensor([1, 10, 300, 700, 999])
    z_0, guess, noise = torch.randn(3, 5, 4, dtype=torch.float64)
    z_t = by_v.add_noise(z_0, noise, timestep)
    alpha, sigma = (signal.double().sqrt()[:, None] for signal in _signal_and_noise(by_v, timestep))
    v_of_guess = (alpha * z_t - guess) / sigma  # the v that says the picture is `guess`
    v_error = (v_of_guess - prediction_target(by_v, z_0, noise, timestep)).square().mean(1)
    error = (guess - prediction_target(by_picture, z_0, noise, timestep)).square().mean(1)
    weighted = min_snr_weights(by_v, timestep, gamma=5.0) * v_error
    torch.testing.assert_close(min_snr_weights(by_picture, timestep, gamma=5.0) * error, weighted)


def _signal_and_noise(scheduler, timestep):
    return scheduler.alphas_cumprod[timestep], 1 - scheduler.alphas_cumprod[timestep]


def test_epsilon_preset_is_stable_diffusion_15s():
    scheduler = build_scheduler(EPSILON)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps[0] == 981
    assert scheduler.timesteps[-1] == 1
    assert scheduler.alphas_cumprod[-1].item() == pytest.approx(0.0047, abs=1e-4)
    noise = torch.randn(2, 3)
    assert (prediction_target(scheduler, torch.randn(2, 3), noise, torch.tensor([1, 2])) == noise).all()
    assert min_snr_weights(scheduler, torch.tensor([999]), gamma=5.0) == 1


@pytest.mark.parametrize("wrong", [{"prediction": "epsilon"}, {"spacing": "leading"}])
def test_pure_noise_needs_v_and_trailing_steps(wrong):
    with pytest.raises(ValidationError, match="zero_terminal_snr"):
        ScheduleConfig(**wrong)
