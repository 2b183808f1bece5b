"""Settings of a model: those that make no network are refused by key, and the shipped ones are read."""

import re
from pathlib import Path

import pytest

from model.config import ModelConfig, NetworkConfig
from model.network import ManiVideoNetwork
from storage.config import load_config
from storage.errors import InputError

CONFIGS = Path(__file__).parents[3] / "configs" / "model"


@pytest.mark.parametrize("settings", [
    {"mlo": "depth_only", "guiding_depth": True}, {"mlo": "depth_only", "hidden": "none"},
    {"mlo": "noise_only", "hidden": "tokens"},
])  # fmt: skip
def test_settings_that_would_change_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=r"mlo|hidden"):
        NetworkConfig.model_validate(settings)


@pytest.mark.parametrize(("setting", "told"), [
    ("network.unet.norm_num_groups=0", "'network.unet.norm_num_groups': found 0, wanted greater than 0"),
    ("network.unet.norm_num_groups=7", "norm_num_groups: found 7, wanted one that divides the channels [48"),
    ("network.unet.attention_head_dim=5", "attention_head_dim: found 5, wanted one that divides the"),
    ("network.unet.block_out_channels=[48, 64]", "down_block_types: found 3, wanted 2, as many as block_out"),
    ("network.unet.only_cross_attention=[true]", "only_cross_attention: found 1, wanted 3, as many as"),
    ("network.unet.down_block_types=[AttnDownBlock2D]", "found 'AttnDownBlock2D', wanted 'DownBlock2D' or"),
    ("network.tokens.channels=[8, 63]", "'network.tokens.channels': found 63 as the last, wanted a multiple"),
    ("network.unet.block_out_channels=[]", "'network.unet.block_out_channels': found []"),
    ("network.unet.up_block_types=[UpBlock2D, UpBlock2D, UpBlock2D]", "wanted a CrossAttnUpBlock2D"),
    ("network.factor=3", "'network': factor: found 3, wanted a power of two up to 16"),
    ("schedule.num_train_timesteps=1", "'schedule.num_train_timesteps': found 1, wanted greater than or"),
])  # fmt: skip
def test_a_shape_that_no_network_has_is_refused_by_its_key(setting, told):
    with pytest.raises(InputError, match=re.escape(told)):
        load_config(ModelConfig, CONFIGS / "tiny.yaml", [setting])


def test_heads_need_divide_the_channels_of_levels_with_attention_alone(tiny):
    values = tiny.network.model_dump()
    values["unet"] |= {"block_out_channels": [20, 32, 32], "norm_num_groups": 4, "attention_head_dim": 8}
    ManiVideoNetwork(values | {"temporal": {"heads": 3}})
    with pytest.raises(
        InputError, match=r"temporal\.heads: found 33, wanted one that divides the channels 32"
    ):
        ManiVideoNetwork(values | {"temporal": {"heads": 33}, "with_temporal": True})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_model_is_told_which_layer_is_in_front(path):
    assert load_config(ModelConfig, path).network.confidence == "signed"


def test_models_saved_before_d_had_a_sign_are_read_without_one():
    assert NetworkConfig.model_validate({"mlo": "full"}).confidence == "depth"
