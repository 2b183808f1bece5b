"""Pictures to latents and back."""

import pytest
import torch

from model.codec import PixelUnshuffleCodec, PixelUnshuffleConfig, VaeCodec, VaeConfig, build_codec

SMALL_VAE = VaeConfig(
    kind="vae", block_out_channels=(8, 8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4
)


def test_pixel_unshuffle_is_lossless():
    codec = build_codec(PixelUnshuffleConfig(kind="pixel_unshuffle"))
    pictures = torch.randint(256, (2, 3, 32, 16)) / 127.5 - 1
    latents = codec.encode(pictures)
    assert latents.shape == (2, codec.latent_channels, 8, 4)
    assert (codec.decode(latents) == pictures).all()
    assert latents[0].ne(0).all()  # no picture is mistaken for an absent one


def test_vae_latents_have_the_configs_shape_and_one_value_a_picture():
    codec = build_codec(SMALL_VAE)
    assert isinstance(codec, VaeCodec)
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = codec.encode(pictures)
        assert latents.shape == (2, SMALL_VAE.latent_channels, 8, 8)
        assert (latents == codec.encode(pictures)).all()
        assert codec.decode(latents).shape == pictures.shape
    assert (codec.factor, codec.latent_channels) == (SMALL_VAE.factor, SMALL_VAE.latent_channels)


def test_vae_of_half_precision_takes_pictures_as_they_are_stored():
    codec = build_codec(SMALL_VAE)
    pictures = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        wanted = codec.encode(pictures)
        latents = codec.to(torch.bfloat16).encode(pictures)
    assert latents.dtype == torch.bfloat16
    assert (latents - wanted).square().mean() < 1e-2 * wanted.square().mean()


def test_default_vae_is_stable_diffusion_15s():
    with torch.device("meta"):
        codec = build_codec(VaeConfig(kind="vae"))
    assert sum(p.numel() for p in codec.parameters()) == 83_653_863
    assert (codec.factor, codec.latent_channels) == (8, 4)


@pytest.mark.parametrize(
    "kind", [PixelUnshuffleConfig(kind="pixel_unshuffle", factor=2, scale=1.5), SMALL_VAE]
)
def test_saved_codec_is_the_same_codec(kind, tmp_path):
    codec = build_codec(kind)
    codec.save_pretrained(tmp_path)
    loaded = type(codec).from_pretrained(tmp_path)
    pictures = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert (loaded.encode(pictures) == codec.encode(pictures)).all()
    assert isinstance(loaded, PixelUnshuffleCodec | VaeCodec)
