"""AnimateDiff's motion modules into the temporal layers (paper, Sec. 3.3), by name.

Two differences are known and reported, not refused: AnimateDiff has modules in blocks without attention,
where this network has no site, and before version 1.5.2 it had none in the middle block.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffusers import MotionAdapter, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_animatediff_checkpoint_to_diffusers
from torch import Tensor, nn

from model.network import ManiVideoNetwork
from model.weights import check_configs, check_names, read_config, read_file, read_model

SEPARATOR = ".motion_modules."  # between a block's name and its modules' in diffusers' layout
POSITION_CODES = "pos_embed.pe"  # computed, not learned


@dataclass(frozen=True)
class MotionReport:
    """What became of a file of motion modules, by diffusers' module names."""

    loaded: tuple[str, ...]
    unused: tuple[str, ...]  # in the file, of blocks without an attention site
    fresh: tuple[str, ...]  # sites of the middle block that the file has nothing for


def load_motion_modules(
    network: ManiVideoNetwork, source: str, output: Literal["zero", "pretrained"] = "zero"
) -> MotionReport:
    """Read AnimateDiff's motion modules into a network that has temporal layers.

    Position codes are computed, not read: a network may have more of them than AnimateDiff was trained on.
    """
    modules = {
        layers.site.path.replace("attentions", "motion_modules"): layers.motion
        for layers in network.denoising_unet.layers
        if layers.motion is not None
    }
    given = _motion_weights(source, network)
    without_sites = _blocks_without_attention(network.denoising_unet.unet)
    unused = {name for name in given if name.partition(SEPARATOR)[0] in without_sites}
    had = {path for path in modules if any(name.startswith(f"{path}.") for name in given)}
    fresh = {path for path in modules if path.startswith("mid_block") and path not in had}
    wanted = {path: _learned(module) for path, module in modules.items() if path not in fresh}
    check_names(
        source,
        given={name: tensor for name, tensor in given.items() if name not in unused},
        wanted={f"{path}.{name}": tensor for path in wanted for name, tensor in wanted[path].items()},
    )
    for path, names in wanted.items():
        modules[path].load_state_dict({name: given[f"{path}.{name}"] for name in names}, strict=False)
    if output == "zero":
        for module in modules.values():
            nn.init.zeros_(module.proj_out.weight)
            nn.init.zeros_(module.proj_out.bias)
    return MotionReport(tuple(wanted), tuple(sorted({_module(name) for name in unused})), tuple(fresh))


def _motion_weights(source: str, network: ManiVideoNetwork) -> dict[str, Tensor]:
    """Motion modules by diffusers' names, without position codes."""
    if Path(source).is_file():
        weights = convert_animatediff_checkpoint_to_diffusers(read_file(Path(source)))
    else:
        temporal, groups = network.settings.temporal, network.settings.unet.norm_num_groups
        config = read_config(MotionAdapter, source)
        wanted = {"motion_num_attention_heads": temporal.heads, "motion_norm_num_groups": groups}
        check_configs(source, config, wanted)
        weights = read_model(MotionAdapter, source, None, None)
    return {name: tensor for name, tensor in weights.items() if not name.endswith(POSITION_CODES)}


def _blocks_without_attention(unet: UNet2DConditionModel) -> set[str]:
    """Names of the blocks that have motion modules in AnimateDiff alone."""
    blocks = [(f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)]
    blocks += [(f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)]
    return {name for name, block in blocks if not hasattr(block, "attentions")}


def _module(name: str) -> str:
    """`down_blocks.3.motion_modules.1.norm.weight` → `down_blocks.3.motion_modules.1`."""
    block, separator, rest = name.partition(SEPARATOR)
    return block + separator + rest.partition(".")[0]


def _learned(module: nn.Module) -> dict[str, Tensor]:
    """A module's weights, without its position codes."""
    return {name: tensor for name, tensor in module.state_dict().items() if not name.endswith(POSITION_CODES)}
