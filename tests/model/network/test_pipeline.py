"""Conditions and noise in, video out; saved and loaded."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.memory import LiveBytes
from model.pipeline import ManiVideoPipeline, build_pipeline
from model.sampling import SamplingConfig, draw_noise, guidance_branches
from model.windows import WindowConfig


@pytest.fixture
def pipeline(tiny: ModelConfig, trained) -> ManiVideoPipeline:
    pipeline = build_pipeline(tiny)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.network.set_temporal(True)
    trained(pipeline.network)
    return pipeline


def generate(pipeline, conditions, generator=None, **options):
    sampling = SamplingConfig(**{"num_inference_steps": 2} | options)
    return pipeline(conditions, sampling, generator or torch.Generator().manual_seed(0)).frames


def test_video_has_every_frame_in_range(pipeline, small, make_conditions):
    conditions = make_conditions(small, b=2, t=7)
    frames = generate(pipeline, conditions, window=WindowConfig(length=4, overlap=2))
    assert frames.shape == (2, 7, 32, 32, 3)
    assert frames.dtype == np.float32
    assert frames.min() >= 0
    assert frames.max() <= 1
    assert frames.std() > 0.01


def test_same_seed_same_video(pipeline, small, make_conditions):
    conditions = make_conditions(small)
    first, again = generate(pipeline, conditions), generate(pipeline, conditions)
    other = generate(pipeline, conditions, generator=torch.Generator().manual_seed(1))
    assert (first == again).all()
    assert not np.allclose(first, other)


def test_loaded_pipeline_generates_the_same_video(pipeline, small, make_conditions, tmp_path):
    conditions = make_conditions(small)
    pipeline.save_pretrained(tmp_path)
    loaded = ManiVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.network.settings == pipeline.network.settings
    assert (generate(loaded, conditions) == generate(pipeline, conditions)).all()
    weights = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert weights == {".json", ".safetensors"}


def test_guidance_moves_away_from_the_unconditional(pipeline, small, make_conditions):
    conditions = make_conditions(small)
    torch.testing.assert_close(
        generate(pipeline, conditions, guidance_scale=1.0 + 1e-6), generate(pipeline, conditions),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
    torch.testing.assert_close(
        generate(pipeline, conditions, guidance_scale=0.0), generate(pipeline, conditions.absent()),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
    assert not np.allclose(generate(pipeline, conditions, guidance_scale=3.0), generate(pipeline, conditions))


def test_guidance_of_references_and_of_motion_is_one_weighted_sum(pipeline, small, make_conditions):
    conditions = make_conditions(small)
    config = SamplingConfig(guidance_scale=3.0, motion_guidance_scale=1.5, num_inference_steps=1)
    z, step = torch.randn(1, 2, 12, 16, 16), pipeline.scheduler.timesteps[0]
    with torch.no_grad():
        guided = pipeline._predict(pipeline.encode(conditions, config), z, step, 0, 2)
        free, references, both = (
            pipeline.network(z, step.expand(1), pipeline.network.encode(each))
            for each in (conditions.absent(), conditions.without_motion(), conditions)
        )
    wanted = free + 3.0 * (references - free) + 1.5 * (both - references)
    torch.testing.assert_close(guided, wanted, rtol=1e-4, atol=1e-4)


def test_guidance_costs_only_the_predictions_that_count(small, make_conditions):
    conditions = make_conditions(small)

    def weights(**scales):
        return [weight for weight, _ in guidance_branches(conditions, SamplingConfig(**scales))]

    assert weights() == [1.0]
    assert weights(guidance_scale=2.5) == [-1.5, 2.5]
    assert weights(guidance_scale=2.0, motion_guidance_scale=3.0) == [-1.0, -1.0, 3.0]


def test_solvers_agree_when_their_steps_are_small(tiny, small, make_conditions):
    pipeline = build_pipeline(tiny)  # untrained, so that its z_0 changes smoothly with the noise level
    pipeline.set_progress_bar_config(disable=True)
    conditions = make_conditions(small, t=1, size=16)
    reference, *others = (
        generate(pipeline, conditions, num_inference_steps=30, sampler=sampler)
        for sampler in ("ddim", "euler", "dpm_solver++")
    )
    assert reference.std() > 0.05
    assert all(np.abs(other - reference).mean() < 0.02 for other in others)


def test_a_clip_is_the_same_in_any_batch(pipeline, small, make_conditions):
    conditions = make_conditions(small, b=2, t=3)
    both = generate(pipeline, conditions, [torch.Generator().manual_seed(seed) for seed in (5, 6)])
    second = type(conditions)(**{name: value[1:] for name, value in vars(conditions).items()})
    alone = generate(pipeline, second, torch.Generator().manual_seed(6))
    np.testing.assert_allclose(both[1:], alone, atol=1e-4)


def test_without_temporal_layers_windows_change_nothing(pipeline, small, make_conditions):
    pipeline.network.set_temporal(False)
    conditions = make_conditions(small, t=7)
    at_once = generate(pipeline, conditions)
    by_window = generate(pipeline, conditions, window=WindowConfig(length=3, overlap=1))
    np.testing.assert_allclose(by_window, at_once, atol=1e-4)


def test_a_longer_clip_begins_with_the_noise_of_a_shorter_one():
    def noise(t, *seeds):
        return draw_noise((len(seeds), t, 3, 5, 4), [torch.Generator().manual_seed(seed) for seed in seeds])

    assert (noise(9, 1, 2)[:, :4] == noise(4, 1, 2)).all()
    assert (noise(4, 1, 2)[1:] == noise(4, 2)).all()
    with pytest.raises(ValueError, match="1 generators for 2 clips"):
        draw_noise((2, 1, 3, 5, 4), [torch.Generator()])


def test_no_part_of_the_network_ever_sees_more_than_a_window(pipeline, small, make_conditions, monkeypatch):
    seen: dict[str, list[int]] = {"encode": [], "denoise": [], "decode": [], "references": []}

    def spy(owner, name, into, frames_of):
        method = getattr(owner, name)

        def watched(first, *rest):
            seen[into].append(frames_of(first))
            return method(first, *rest)

        monkeypatch.setattr(owner, name, watched)

    spy(pipeline.network, "encode_frames", "encode", lambda conditions: conditions.num_frames)
    spy(pipeline.network, "forward", "denoise", lambda z: z.shape[1])
    spy(pipeline.codec, "decode", "decode", len)
    spy(pipeline.network, "encode_references", "references", len)
    conditions = make_conditions(small, t=21)
    window = WindowConfig(length=4, overlap=2)
    frames = generate(pipeline, conditions, window=window, guidance_scale=2.0, decoded_at_once=3)
    assert frames.shape[1] == 21
    assert {name: max(counts) for name, counts in seen.items()} == {
        "encode": 4, "denoise": 4, "decode": 3, "references": 1,
    }  # fmt: skip
    assert sum(seen["encode"]) == 2 * 21  # each frame once for each of the two predictions
    assert len(seen["references"]) == 2  # the clip's pictures, and none


def test_a_prediction_holds_as_many_bytes_however_long_the_clip_is(
    pipeline, small, make_conditions, monkeypatch
):
    predict = pipeline._predict

    def most_bytes(t):
        peaks = []

        def watched(*arguments):
            with LiveBytes() as live:
                prediction = predict(*arguments)
            peaks.append(live.peak)
            return prediction

        monkeypatch.setattr(pipeline, "_predict", watched)
        conditions = make_conditions(small, t=t, size=16)
        generate(pipeline, conditions, window=WindowConfig(length=4, overlap=2), num_inference_steps=1)
        return max(peaks)

    assert most_bytes(5) == most_bytes(12)


def test_encoding_by_window_equals_encoding_at_once(pipeline, small, make_conditions):
    conditions = make_conditions(small, t=7)
    with torch.no_grad():
        sampling = SamplingConfig(window=WindowConfig(length=3, overlap=1))
        [(_, by_window)] = pipeline.encode(conditions, sampling)
        at_once = pipeline.network.encode(conditions)
    for name, value in vars(by_window.per_frame).items():
        torch.testing.assert_close(value, getattr(at_once.per_frame, name), rtol=1e-4, atol=1e-5)


def test_offloading_runs_each_model_through_its_hook_and_changes_nothing(pipeline, small, make_conditions):
    conditions = make_conditions(small)
    wanted = generate(pipeline, conditions)
    pipeline.enable_model_cpu_offload(device="cpu")  # the hooks are the same as a GPU's
    moved = []
    for hook in pipeline._all_hooks:
        before = hook.model._hf_hook.pre_forward

        def pre_forward(module, *args, _before=before, **kwargs):
            moved.append(type(module).__name__)
            return _before(module, *args, **kwargs)

        hook.model._hf_hook.pre_forward = pre_forward
    assert (generate(pipeline, conditions) == wanted).all()
    # frames and references are encoded, then two steps, then decoding
    assert moved == ["ManiVideoNetwork"] * 4 + ["PixelUnshuffleCodec"]


def test_wrong_shapes_and_windows_are_named(pipeline, small, make_conditions):
    conditions = make_conditions(small)
    with pytest.raises(ValueError, match=r"references is \[1, 8, 12, 16, 16\], wanted \[1, 8, 12, 14, 16\]"):
        pipeline(type(conditions)(**(vars(conditions) | {
            "normals": conditions.normals[..., :28, :], "confidence": conditions.confidence[..., :28, :],
            "skeleton": conditions.skeleton[..., :28, :],
        })))  # fmt: skip
    with pytest.raises(ValueError, match=r"window\.length: found 40, wanted at most 32"):
        generate(pipeline, conditions, window=WindowConfig(length=40))


def test_network_and_codec_must_share_their_latents(tiny):
    values = tiny.model_dump()
    values["codec"]["factor"] = 8
    with pytest.raises(ValueError, match=r"network\.latent_channels is 12, but the codec's is 192"):
        ModelConfig.model_validate(values)
