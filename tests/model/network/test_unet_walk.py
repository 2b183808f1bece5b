"""The walk against diffusers' own forward, and its sites against the names of public weights."""

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel

from model.temporal import TemporalConfig, motion_module
from model.unet_walk import UNetConfig, attention_sites, build_unet, walk

SHRUNKEN = UNetConfig(
    block_out_channels=(8, 16, 24, 24), attention_head_dim=2, cross_attention_dim=12, norm_num_groups=4
)


def test_the_default_is_stable_diffusion_15():
    with torch.device("meta"):
        unet = build_unet(UNetConfig(), latent_channels=4)
        published = UNet2DConditionModel(cross_attention_dim=768)  # diffusers' other defaults are SD 1.5's
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    shapes = {name: p.shape for name, p in published.named_parameters()}
    assert {name: p.shape for name, p in unet.named_parameters()} == shapes


@pytest.mark.parametrize("size", [(16, 16), (8, 24), (12, 10)])
def test_walk_equals_diffusers_forward(size):
    unet = build_unet(SHRUNKEN, latent_channels=4)
    latents, timestep, context = torch.randn(2, 4, *size), torch.tensor([3, 900]), torch.randn(2, 5, 12)
    visited = []

    def visit(index, features):
        visited.append((index, features.shape[1]))
        return features

    features = walk(unet, latents, timestep, context, visit)
    out = unet.conv_out(unet.conv_act(unet.conv_norm_out(features)))
    torch.testing.assert_close(out, unet(latents, timestep, context).sample, rtol=1e-5, atol=1e-5)
    assert visited == [(i, site.channels) for i, site in enumerate(attention_sites(unet))]


def test_sd15_has_sixteen_sites_at_four_resolutions():
    with torch.device("meta"):
        sites = attention_sites(build_unet(UNetConfig(), latent_channels=4))
    assert [site.stride for site in sites] == [1, 1, 2, 2, 4, 4, 8, 4, 4, 4, 2, 2, 2, 1, 1, 1]
    assert {(site.channels, site.stride) for site in sites} == {(320, 1), (640, 2), (1280, 4), (1280, 8)}
    assert {site.heads for site in sites} == {8}


def test_site_paths_name_animatediffs_motion_modules():
    with torch.device("meta"):
        adapter = MotionAdapter()
        sites = attention_sites(build_unet(UNetConfig(), latent_channels=4))
        for site in sites:
            public = adapter.get_submodule(site.path.replace("attentions", "motion_modules"))
            ours = motion_module(site.channels, 32, TemporalConfig())
            assert {n: p.shape for n, p in ours.state_dict().items()} == {
                n: p.shape for n, p in public.state_dict().items()
            }
