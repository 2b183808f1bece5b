"""What a user brings: motion without a video, an object's mesh, a background, the object's first look."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from flows.generate import GenerateConfig, Motion, generate_motion, load_pipeline
from model.config import ModelConfig
from model.pipeline import build_pipeline
from model.sampling import SamplingConfig
from storage.config import load_config
from storage.errors import InputError
from storage.store import Store
from storage.video import VideoFile
from tests.flows.conftest import HEIGHT, NUM_FRAMES, WIDTH, MakeSession
from tests.model.network.conftest import random_conditions

TINY = Path(__file__).parents[2] / "configs" / "model" / "tiny.yaml"
SMALL = ("network.tokens={channels: [4, 8], grid: 2, points: 2}", "network.guider.channels=[4, 4, 4, 8]")
SIZE = {"layers": {"size": 32}, "six_views": {"size": 16}}


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_motion_alone_an_object_and_a_background_become_a_video(
    make_session: MakeSession, objects: Path, tmp_path: Path
) -> None:
    session = make_session("grasp")
    shutil.rmtree(session / "videos")
    model, rng = tmp_path / "model", np.random.default_rng(0)
    build_pipeline(load_config(ModelConfig, TINY, SMALL)).save_pretrained(model)
    room = write_picture(tmp_path / "room.png", rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    first = write_picture(tmp_path / "first.png", rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
    config = GenerateConfig.model_validate({"sampling": {"num_inference_steps": 2}, "ingest": SIZE})
    made = {}
    for name, motion in {
        "without": Motion(session, "side", objects / "mug.glb", room),
        "with": Motion(session, "side", objects / "mug.glb", room, first),
    }.items():
        out = tmp_path / f"{name}.mp4"
        assert generate_motion(model, motion, config, Store(tmp_path / "store"), out) == NUM_FRAMES
        made[name] = VideoFile(out)
    assert (made["with"].info.width, made["with"].info.height) == (32, 32)
    assert made["with"].path.read_bytes() != made["without"].path.read_bytes()  # f_8 is looked at
    with pytest.raises(InputError, match="no plate of side: name a background"):
        generate_motion(model, Motion(session, "side"), config, Store(tmp_path / "store"), tmp_path / "x.mp4")


def test_a_network_of_half_precision_generates_nearly_the_same(tmp_path: Path) -> None:
    build_pipeline(load_config(ModelConfig, TINY, SMALL)).save_pretrained(tmp_path)
    plain, half = load_pipeline(tmp_path), load_pipeline(tmp_path, "bfloat16")
    assert (half.network.dtype, half.codec.dtype) == (torch.bfloat16, torch.float32)
    conditions, sampling = random_conditions(plain.network.settings), SamplingConfig(num_inference_steps=2)
    wanted, found = (
        pipeline(conditions, sampling, torch.Generator().manual_seed(0)).frames for pipeline in (plain, half)
    )
    assert wanted.std() > 0.01
    np.testing.assert_allclose(found, wanted, atol=0.05)
