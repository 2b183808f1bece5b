"""CLIP's image encoder as context of the UNets' own attention, with random weights in the public layout."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from model.clip_context import clip_context
from model.conditions import FRONT_SLOT
from model.config import ModelConfig
from model.pipeline import ManiVideoPipeline, build_pipeline
from model.pretrained import IMAGE_ENCODER_FILES, PretrainedConfig, load_pretrained, missing_parts
from model.sampling import SamplingConfig
from storage.errors import InputError
from tests.model.clip_weights import WIDTH, old_release, write_image_encoder

STEP = torch.tensor([500, 500])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_image_encoder(tmp_path / "variations")


@pytest.fixture
def config(tiny: ModelConfig) -> ModelConfig:
    return tiny.model_copy(update={"network": tiny.network.model_copy(update={"context": "clip_image"})})


@pytest.fixture
def pipeline(config: ModelConfig, source: Path) -> ManiVideoPipeline:
    pipeline = build_pipeline(config)
    pipeline.set_progress_bar_config(disable=True)
    load_pretrained(pipeline, PretrainedConfig(image_encoder=str(source)))
    return pipeline


def references(b: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 256, (b, 8, 3, 28, 28), dtype=torch.uint8), torch.ones(b, 8, dtype=torch.bool)


def test_the_token_is_clips_embedding_of_the_front_view(pipeline, source):
    pictures, present = references()
    plain = CLIPVisionModelWithProjection.from_pretrained(source, subfolder="image_encoder")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    tokens = clip_context(pipeline.image_encoder, pictures, present)
    with torch.no_grad():
        wanted = plain((pictures[:, FRONT_SLOT] / 255 - mean) / std).image_embeds
    assert tokens.shape == (2, 1, WIDTH)
    torch.testing.assert_close(tokens[:, 0], wanted, rtol=1e-4, atol=1e-5)


def test_an_absent_picture_has_a_zero_token_and_dropout_zeroes_the_others(pipeline, make_conditions):
    pictures, present = references()
    present[1, FRONT_SLOT] = False  # a human video has O_B alone
    tokens = clip_context(pipeline.image_encoder, pictures, present)
    assert [bool(token.any()) for token in tokens] == [True, False]
    conditions = make_conditions(pipeline.network.settings, b=2)
    dropped = conditions.drop(torch.tensor([True, False]), torch.tensor([False, False]))
    assert not dropped.context[0].any()
    assert dropped.context[1].any()


def test_each_clip_attends_to_its_own_tokens_in_both_unets(pipeline, trained, make_conditions, make_noisy):
    network = trained(pipeline.network).eval()
    conditions = make_conditions(network.settings, b=2)
    z, before = make_noisy(conditions), conditions.context.clone()

    def outcome():
        with torch.no_grad():
            encoded = network.encode(conditions)
            return network(z, STEP, encoded), encoded.per_clip.references[-1].tapped

    first, features = outcome()
    conditions.context[1] = before[0]
    second, other_features = outcome()
    torch.testing.assert_close(first[0], second[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features[0], other_features[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(first[1], second[1], atol=1e-3)
    assert not torch.allclose(features[1], other_features[1], atol=1e-3)


@pytest.mark.parametrize("old", [False, True])
def test_public_layouts_are_read_and_found(old, config, source):
    if old:
        old_release(source)
    pipeline = build_pipeline(config)
    load_pretrained(pipeline, PretrainedConfig(image_encoder=str(source)))
    assert pipeline.image_encoder.config.projection_dim == WIDTH
    assert missing_parts(str(source), IMAGE_ENCODER_FILES) == []
    assert missing_parts(str(source.parent), IMAGE_ENCODER_FILES) == ["image encoder"]


def test_encoders_that_do_not_fit_are_named(config, tiny, source, tmp_path):
    def load(model, folder):
        load_pretrained(build_pipeline(model), PretrainedConfig(image_encoder=folder and str(folder)))

    with pytest.raises(InputError, match=r"clip_image: wanted pretrained\.image_encoder"):
        load(config, None)
    with pytest.raises(InputError, match="no place in a model with context: learned"):
        load(tiny, source)
    with pytest.raises(InputError, match=f"projection_dim: found 8, wanted {WIDTH}"):
        load(config, write_image_encoder(tmp_path / "narrow", width=8))
    with pytest.raises(InputError, match="image_encoder: no weights could be read"):
        load(config, tmp_path)
    with pytest.raises(InputError, match=r"image_encoder: unexpected lora\.weight"):
        load(config, old_release(source, **{"lora.weight": torch.ones(1)}))


def test_a_saved_pipeline_keeps_its_encoder(pipeline, make_conditions, tmp_path):
    conditions = make_conditions(pipeline.network.settings)

    def generate(each):
        each.set_progress_bar_config(disable=True)
        seed = torch.Generator().manual_seed(0)
        return each(conditions, SamplingConfig(num_inference_steps=2, guidance_scale=2.0), seed).frames

    wanted = generate(pipeline)
    pipeline.save_pretrained(tmp_path / "saved")
    loaded = ManiVideoPipeline.from_pretrained(tmp_path / "saved")
    pictures, present = references()
    tokens = [clip_context(each.image_encoder, pictures, present) for each in (pipeline, loaded)]
    assert torch.equal(*tokens)
    assert (generate(loaded) == wanted).all()
    assert (tmp_path / "saved" / "image_encoder" / "model.safetensors").is_file()
