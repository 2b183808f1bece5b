"""Training on stored latents is training on pictures, with the frames encoded once for all runs."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.codec import PixelUnshuffleCodec, VaeConfig, build_codec
from model.config import ModelConfig
from model.data import Draws
from model.latents import StoredLatents, digest_codec
from model.train import train
from model.training_config import TrainConfig
from storage.config import load_config, save_config
from storage.dataset import Dataset
from storage.manifest import Manifest
from storage.store import Store
from storage.upkeep import gc

VAE = VaeConfig(kind="vae", block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4)


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Store:
    """A store of the test's own."""
    shutil.copytree(store.root, tmp_path / "store")
    return Store(tmp_path / "store")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run / "checkpoints").iterdir()) / "network.safetensors")


def test_latents_that_need_no_arithmetic_train_bit_for_bit_as_pictures_do(
    copy: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    plain = image_config.model_copy(update={"iterations": 3})
    train(plain, copy, tmp_path / "pictures")
    pictures = weights(tmp_path / "pictures")
    for cache_gib in (1.0, 0.0):  # all in memory, or read frame by frame
        run = tmp_path / f"latents{cache_gib}"
        train(plain.model_copy(update={"cache_gib": cache_gib, "stored_latents": True}), copy, run)
        latents = weights(run)
        assert all(torch.equal(pictures[name], latents[name]) for name in pictures)
    draws = Draws(Dataset.open(copy, "toy").rows("train"), plain.batch, plain.seed)
    taken = {draws(step, slot).row.id for step in range(3) for slot in range(plain.batch.clips)}
    assert len(copy.keys("latents")) == len(taken) < len(draws.rows)


def test_a_vae_s_latents_train_to_rounding_as_pictures_do(
    copy: Store, image_config: TrainConfig, model_yaml: Path, tmp_path: Path
) -> None:
    values = load_config(ModelConfig, model_yaml).model_dump()
    values["network"] |= {"latent_channels": VAE.latent_channels, "factor": VAE.factor}
    save_config(ModelConfig.model_validate(values | {"codec": VAE}), tmp_path / "vae.yaml")
    config = image_config.model_copy(update={"model": tmp_path / "vae.yaml", "iterations": 3})
    pictures = train(config, copy, tmp_path / "pictures")
    latents = train(config.model_copy(update={"stored_latents": True}), copy, tmp_path / "latents")
    assert latents.losses == pytest.approx(pictures.losses, rel=1e-4)


def test_only_what_is_missing_is_encoded_and_another_codec_has_latents_of_its_own(copy: Store) -> None:
    rows = Dataset.open(copy, "toy").rows("train")
    latents = StoredLatents(copy, PixelUnshuffleCodec(factor=2))
    latents.encode(rows[:2], show=False)
    assert latents.missing(rows) == rows[2:]
    other = StoredLatents(copy, PixelUnshuffleCodec(factor=2, scale=1.0))
    assert other.missing(rows) == rows
    recipe = latents.recipe(rows[0])
    assert copy.open("latents", recipe.key).recipe == recipe
    assert latents.read(rows[0], slice(1, 5, 2)).shape == (2, 12, 8, 8)


def test_a_codec_s_digest_is_of_its_weights_too() -> None:
    torch.manual_seed(0)
    first, second = build_codec(VAE), build_codec(VAE)
    assert digest_codec(first) != digest_codec(second)
    second.load_state_dict(first.state_dict())
    assert digest_codec(first) == digest_codec(second)


def test_latents_stay_as_long_as_their_frames_are_needed(copy: Store) -> None:
    rows = Dataset.open(copy, "toy").rows("train")
    StoredLatents(copy, PixelUnshuffleCodec(factor=2)).encode(rows, show=False)
    assert "latents" not in gc(copy)
    Manifest("toy", tuple(rows[1:])).write(copy)
    assert gc(copy)["latents"].records == 1
    assert len(copy.keys("latents")) == len(rows) - 1
