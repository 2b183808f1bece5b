"""Settings that cannot work together are refused before the first step."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from model.config import ModelConfig
from model.pipeline import build_pipeline
from model.start import starting_pipeline
from model.training_config import TrainConfig, ValidationConfig
from storage.config import load_config
from storage.errors import InputError


def test_clips_on_threads_of_their_own_have_no_scaled_loss(image_config: TrainConfig) -> None:
    with pytest.raises(ValidationError, match="wanted clip_threads: 1"):
        TrainConfig.model_validate(image_config.model_dump() | {"precision": "float16", "clip_threads": 2})


def test_settings_of_validation_keep_its_few_steps() -> None:
    validation = ValidationConfig.model_validate({"sampling": {"num_frames": 8}})
    assert validation.sampling.num_inference_steps == ValidationConfig().sampling.num_inference_steps == 4


def test_a_window_has_as_many_frames_as_there_are_position_codes(model_yaml: Path, tmp_path: Path) -> None:
    build_pipeline(load_config(ModelConfig, model_yaml)).save_pretrained(tmp_path)
    for frames in (32, 33):
        batch = {"clips": 1, "frames": frames, "pick": "window"}
        config = TrainConfig(stage="temporal", dataset="toy", init_from=tmp_path, batch=batch)
        if frames == 32:
            assert starting_pipeline(config).network.settings.with_temporal
        else:
            with pytest.raises(InputError, match=r"batch\.frames: found 33, wanted at most .*, 32$"):
                starting_pipeline(config)
