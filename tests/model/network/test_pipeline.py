"""Conditions and noise in, video out; saved and loaded."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.pipeline import ManiVideoPipeline, build_pipeline, unconditional
from model.windows import WindowConfig


@pytest.fixture
def pipeline(tiny: ModelConfig, trained) -> ManiVideoPipeline:
    pipeline = build_pipeline(tiny)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.network.set_temporal(True)
    trained(pipeline.network)
    return pipeline


def generate(pipeline, conditions, **options):
    options = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)} | options
    return pipeline(conditions, **options).frames


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
        generate(pipeline, conditions, guidance_scale=0.0), generate(pipeline, unconditional(conditions)),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
    assert not np.allclose(generate(pipeline, conditions, guidance_scale=3.0), generate(pipeline, conditions))


def test_encoding_by_window_equals_encoding_at_once(pipeline, small, make_conditions):
    conditions = make_conditions(small, t=7)
    with torch.no_grad():
        by_window = pipeline.encode(conditions, WindowConfig(length=3, overlap=1))
        at_once = pipeline.network.encode(conditions)
    for name, value in vars(by_window.per_frame).items():
        torch.testing.assert_close(value, getattr(at_once.per_frame, name), rtol=1e-4, atol=1e-5)


def test_wrong_shapes_and_windows_are_named(pipeline, small, make_conditions):
    conditions = make_conditions(small)
    with pytest.raises(ValueError, match=r"references is \[1, 8, 12, 16, 16\], wanted \[1, 8, 12, 14, 16\]"):
        pipeline(type(conditions)(**(vars(conditions) | {
            "normals": conditions.normals[..., :28, :], "confidence": conditions.confidence[..., :28, :],
            "skeleton": conditions.skeleton[..., :28, :],
        })))  # fmt: skip
    with pytest.raises(ValueError, match="windows of 40 frames"):
        generate(pipeline, conditions, window=WindowConfig(length=40))


def test_network_and_codec_must_share_their_latents(tiny):
    values = tiny.model_dump()
    values["codec"]["factor"] = 8
    with pytest.raises(ValueError, match=r"network\.latent_channels is 12, but the codec's is 192"):
        ModelConfig.model_validate(values)
