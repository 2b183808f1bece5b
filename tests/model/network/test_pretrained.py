"""Public weights: random ones in the exact layouts of Stable Diffusion 1.5 and AnimateDiff, of small size."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from model.codec import VaeConfig
from model.config import ModelConfig, NetworkConfig
from model.network import ManiVideoNetwork
from model.pipeline import build_pipeline, read_pipeline
from model.pretrained import (
    MOTION_MODULES_FILES,
    STABLE_DIFFUSION_FILES,
    PretrainedConfig,
    load_pretrained,
    load_stable_diffusion,
    missing_parts,
)
from model.pretrained_motion import load_motion_modules
from model.unet_walk import UNetConfig
from storage.errors import InputError

CHANNELS, GROUPS, HEADS, WIDTH = (8, 16, 24, 24), 4, 2, 12
WEIGHTS = "diffusion_pytorch_model.safetensors"
OLD_NAMES = {
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "to_out.0": "proj_attn",
}  # SD 1.5's VAE has these
STEP = torch.tensor([10, 900])


def small_config() -> ModelConfig:
    """SD 1.5's blocks with few channels, and a VAE like SD 1.5's."""
    unet = UNetConfig(
        block_out_channels=CHANNELS,
        attention_head_dim=HEADS,
        cross_attention_dim=WIDTH,
        norm_num_groups=GROUPS,
    )
    vae = VaeConfig(kind="vae", block_out_channels=(4, 4, 8, 8), layers_per_block=1, norm_num_groups=2)
    return ModelConfig(network=NetworkConfig(unet=unet, temporal={"heads": HEADS}), codec=vae)


def write_stable_diffusion(folder: Path) -> Path:
    UNet2DConditionModel(
        sample_size=64,
        block_out_channels=CHANNELS,
        attention_head_dim=HEADS,
        cross_attention_dim=WIDTH,
        norm_num_groups=GROUPS,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        sample_size=512,
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=2,
    ).save_pretrained(folder / "vae")
    edit(folder / "vae" / WEIGHTS, _old_attention_names)
    text = CLIPTextConfig(
        vocab_size=8, hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    words = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    return folder


def write_motion_modules(folder: Path, *, middle: bool = True) -> Path:
    adapter = MotionAdapter(
        block_out_channels=CHANNELS,
        motion_num_attention_heads=HEADS,
        motion_norm_num_groups=GROUPS,
        motion_max_seq_length=32,
        use_motion_mid_block=middle,
    )
    adapter.save_pretrained(folder)
    return folder


def write_original_release(folder: Path, path: Path) -> Path:
    """The same modules under the names of AnimateDiff's own release, position codes included."""
    weights = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        for new, old in {
            "attn1": "attention_blocks.0", "attn2": "attention_blocks.1", "norm1": "norms.0",
            "norm2": "norms.1", "norm3": "ff_norm", "pos_embed.pe": "attention_blocks.0.pos_encoder.pe",
        }.items():  # fmt: skip
            name = name.replace(new, old)
        block, index, rest = (
            name.partition(".motion_modules.")[0],
            *name.split(".motion_modules.")[1].split(".", 1),
        )
        weights[f"{block}.motion_modules.{index}.temporal_transformer.{rest}"] = tensor
    torch.save(weights, path)
    return path


def edit(file: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def _old_attention_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        renamed[name] = tensor
    assert renamed.keys() != weights.keys()
    return renamed


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    return write_stable_diffusion(tmp_path_factory.mktemp("sd15"))


@pytest.fixture(scope="module")
def animatediff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    return write_motion_modules(tmp_path_factory.mktemp("animatediff"))


def test_untrained_network_on_stable_diffusion_is_its_plain_unet(
    stable_diffusion, make_conditions, make_noisy
):
    pipeline = build_pipeline(small_config())
    load_stable_diffusion(pipeline, str(stable_diffusion))
    network = pipeline.network.eval()
    plain = UNet2DConditionModel.from_pretrained(stable_diffusion, subfolder="unet")
    conditions = make_conditions(network.settings, b=2, t=3, size=64)
    z = make_noisy(conditions)
    with torch.no_grad():
        ours = network(z, STEP, network.encode(conditions))
        theirs = plain(z.flatten(0, 1), STEP.repeat_interleave(3), network.context.expand(6, -1, -1)).sample
    assert network.context.any()
    torch.testing.assert_close(ours.flatten(0, 1), theirs, rtol=0, atol=1e-4)


def test_appearance_net_starts_from_the_same_weights(stable_diffusion):
    pipeline = build_pipeline(small_config())
    load_stable_diffusion(pipeline, str(stable_diffusion))
    ours = pipeline.network.appearance_net.unet.state_dict()
    published = load_file(stable_diffusion / "unet" / WEIGHTS)
    assert published.keys() - ours.keys() == {
        "conv_norm_out.weight", "conv_norm_out.bias", "conv_out.weight", "conv_out.bias",
    }  # fmt: skip
    assert all((ours[name] == published[name]).all() for name in ours)


def test_codec_is_the_published_vae_under_its_old_names(stable_diffusion):
    pipeline = build_pipeline(small_config())
    load_stable_diffusion(pipeline, str(stable_diffusion))
    plain = AutoencoderKL.from_pretrained(stable_diffusion, subfolder="vae")
    pictures = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        wanted = plain.encode(pictures).latent_dist.mode() * 0.18215
        torch.testing.assert_close(pipeline.codec.encode(pictures), wanted, rtol=0, atol=1e-6)


def test_context_is_the_empty_prompts_embedding(stable_diffusion):
    pipeline = build_pipeline(small_config())
    load_stable_diffusion(pipeline, str(stable_diffusion))
    encoder = CLIPTextModel.from_pretrained(stable_diffusion / "text_encoder")
    with torch.no_grad():
        wanted = encoder(torch.tensor([[0] + [1] * 76])).last_hidden_state  # start, then ends up to 77
    torch.testing.assert_close(pipeline.network.context, wanted)


@pytest.mark.parametrize("original", [False, True])
def test_temporal_network_on_animatediff_is_the_image_network_frame_by_frame(
    original, stable_diffusion, animatediff, tmp_path, make_conditions, make_noisy
):
    source = write_original_release(animatediff, tmp_path / "mm_sd_v15.ckpt") if original else animatediff
    pipeline = build_pipeline(small_config())
    network = pipeline.network.eval()
    conditions = make_conditions(network.settings, t=3, size=64)
    z = make_noisy(conditions)
    load_pretrained(pipeline, PretrainedConfig(stable_diffusion=str(stable_diffusion)))
    with torch.no_grad():
        encoded = network.encode(conditions)
        image = [network(z[:, i : i + 1], STEP[:1], encoded.frames(i, i + 1)) for i in range(3)]
        network.set_temporal(True)
        load_pretrained(pipeline, PretrainedConfig(motion_modules=str(source)))
        torch.testing.assert_close(network(z, STEP[:1], encoded), torch.cat(image, dim=1), rtol=0, atol=1e-4)
    loaded = network.denoising_unet.layers[0].motion.transformer_blocks[0].attn1.to_q.weight
    published = load_file(animatediff / WEIGHTS)
    name = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.weight"
    assert (loaded == published[name]).all()


def test_with_its_own_output_layers_the_motion_is_animatediffs(
    stable_diffusion, animatediff, make_conditions, make_noisy
):
    pipeline = build_pipeline(small_config())
    load_stable_diffusion(pipeline, str(stable_diffusion))
    network = pipeline.network.eval()
    network.set_temporal(True)
    report = load_motion_modules(network, str(animatediff), "pretrained")
    plain = UNet2DConditionModel.from_pretrained(stable_diffusion, subfolder="unet")
    oracle = UNetMotionModel.from_unet2d(plain, MotionAdapter.from_pretrained(animatediff)).eval()
    for path in report.unused:  # where this network has no temporal layer
        for parameter in oracle.get_submodule(path).proj_out.parameters():
            torch.nn.init.zeros_(parameter)
    conditions = make_conditions(network.settings, t=4, size=64)
    z = make_noisy(conditions)
    with torch.no_grad():
        ours = network(z, STEP[:1], network.encode(conditions))
        theirs = oracle(z.transpose(1, 2), STEP[:1], network.context.expand(4, -1, -1)).sample.transpose(1, 2)
        still = plain(z.flatten(0, 1), STEP[:1], network.context.expand(4, -1, -1)).sample
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours[0], still, atol=1e-2)


def test_modules_without_a_site_and_sites_without_a_module_are_reported(tmp_path):
    source = write_motion_modules(tmp_path / "v1-5", middle=False)
    network = ManiVideoNetwork(small_config().network)
    network.set_temporal(True)
    report = load_motion_modules(network, str(source))
    assert report.fresh == ("mid_block.motion_modules.0",)
    assert set(report.unused) == {
        "down_blocks.3.motion_modules.0", "down_blocks.3.motion_modules.1",
        *(f"up_blocks.0.motion_modules.{i}" for i in range(3)),
    }  # fmt: skip
    assert len(report.loaded) == 15


def _without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: {key: tensor for key, tensor in weights.items() if key != name}


def _with(name: str, tensor: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda weights: weights | {name: tensor}


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("unet", _without("conv_in.bias"), "missing conv_in.bias"),
        ("unet", _with("lora.weight", torch.ones(1)), "unexpected lora.weight"),
        ("unet", _with("conv_in.bias", torch.ones(9)), r"conv_in.bias expected shape .*\[8\].*\[9\]"),
        ("vae", _without("decoder.conv_in.bias"), "missing decoder.conv_in.bias"),
    ],
)
def test_weights_that_do_not_fit_are_listed(part, change, told, tmp_path):
    folder = write_stable_diffusion(tmp_path / "sd15")
    edit(folder / part / WEIGHTS, change)
    with pytest.raises(InputError, match=f"{part}: .*{told}") as error:
        load_stable_diffusion(build_pipeline(small_config()), str(folder))
    assert error.value.code == "weights"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            _without("up_blocks.1.motion_modules.0.norm.bias"),
            "missing up_blocks.1.motion_modules.0.norm.bias",
        ),
        (_with("down_blocks.9.motion_modules.0.norm.bias", torch.ones(1)), "unexpected down_blocks.9"),
        (
            _with("mid_block.motion_modules.0.proj_in.bias", torch.ones(7)),
            r"proj_in.bias \[7\], wanted \[24\]",
        ),
    ],
)
def test_motion_modules_that_do_not_fit_are_listed(change, told, animatediff, tmp_path):
    path = tmp_path / "modules.safetensors"
    save_file(change(load_file(animatediff / WEIGHTS)), path)
    network = ManiVideoNetwork(small_config().network)
    network.set_temporal(True)
    with pytest.raises(InputError, match=told):
        load_motion_modules(network, str(path))


def test_weights_of_another_shape_of_network_name_the_setting(stable_diffusion, animatediff):
    values = small_config().model_dump()
    values["network"]["unet"]["norm_num_groups"] = 2
    values["network"]["with_temporal"] = True
    pipeline = build_pipeline(ModelConfig.model_validate(values))
    with pytest.raises(InputError, match="unet: norm_num_groups: found 4, wanted 2"):
        load_stable_diffusion(pipeline, str(stable_diffusion))
    with pytest.raises(InputError, match="motion_norm_num_groups: found 4, wanted 2"):
        load_motion_modules(pipeline.network, str(animatediff))


def test_a_model_without_a_vae_cannot_start_from_stable_diffusion(tiny, stable_diffusion):
    with pytest.raises(InputError, match=r"wanted a model with codec\.kind: vae"):
        load_stable_diffusion(build_pipeline(tiny), str(stable_diffusion))


def test_a_folder_without_weights_is_named(tmp_path):
    with pytest.raises(InputError, match="unet: no weights could be read"):
        load_stable_diffusion(build_pipeline(small_config()), str(tmp_path))
    (tmp_path / "torn.ckpt").write_bytes(b"PK")
    network = ManiVideoNetwork(small_config().network.model_copy(update={"with_temporal": True}))
    with pytest.raises(InputError, match=r"torn\.ckpt: no weights could be read"):
        load_motion_modules(network, str(tmp_path / "torn.ckpt"))


def test_missing_parts_are_named(stable_diffusion, animatediff, tmp_path):
    assert missing_parts(str(stable_diffusion), STABLE_DIFFUSION_FILES) == []
    assert missing_parts(str(animatediff), MOTION_MODULES_FILES) == []
    assert missing_parts(str(tmp_path), STABLE_DIFFUSION_FILES) == [
        "UNet",
        "VAE",
        "text encoder",
        "tokenizer",
    ]


def test_a_saved_codec_of_other_tensors_lists_them(tmp_path):
    build_pipeline(small_config()).save_pretrained(tmp_path)

    def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("decoder.conv_in.bias", "stray"): tensor for name, tensor in weights.items()}

    edit(tmp_path / "codec" / WEIGHTS, renamed)
    told = "codec: missing autoencoder.decoder.conv_in.bias; unexpected autoencoder.stray$"
    with pytest.raises(InputError, match=told):
        read_pipeline(tmp_path)
