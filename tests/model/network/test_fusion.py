"""Eq. 3: taps against the convolution as the paper writes it, attention against one long softmax."""

import pytest
import torch
import torch.nn.functional as F

from model.fusion import FusionConfig, ReferenceAttention, ReferenceFusion, ReferenceTaps

B, T, R, C, H, W = 2, 3, 8, 6, 4, 5
PRESENT = torch.ones(B, R, dtype=torch.bool)


def test_taps_are_the_dilated_convolution_of_pictures_side_by_side(trained):
    taps = trained(ReferenceTaps(C))
    references, f_0 = torch.randn(B, R, C, H, W), torch.randn(B * T, C, H, W)

    repeated = references[:, None].expand(B, T, R, C, H, W).flatten(0, 1)
    row = torch.cat([*repeated.unbind(1), f_0], dim=3)  # [b·t, C, H, 9·W], f_0 last as in the paper
    by_picture = taps.references.weight.unflatten(1, (R, C))[..., 0, 0].movedim(1, 2)  # [C, C, 8]
    kernel = torch.cat([by_picture, taps.own.weight[:, :, :, 0]], dim=2)[:, :, None]  # [C, C, 1, 9]
    literal = F.conv2d(row, kernel, taps.own.bias, dilation=(1, W))

    assert literal.shape == f_0.shape
    torch.testing.assert_close(taps(f_0, taps.project(references)), literal)


def test_attention_is_one_softmax_over_own_and_reference_tokens(trained):
    attention = trained(ReferenceAttention(C, heads=2))
    references, f_0 = torch.randn(B, R, C, H, W), torch.randn(B * T, C, H, W)
    fused = attention(f_0, *attention.project(references, PRESENT))

    clip, frame = 1, 2
    own = attention.norm(f_0[clip * T + frame].flatten(1).T)  # [h·w, C]
    others = attention.norm(references[clip].flatten(2).mT).flatten(0, 1)  # [r·h·w, C]
    tokens, heads = torch.cat([own, others]), []
    for q, k, v in zip(
        attention.to_q(own).chunk(2, -1),
        attention.to_k(tokens).chunk(2, -1),
        attention.to_v(tokens).chunk(2, -1),
        strict=True,
    ):
        heads.append(torch.softmax(q @ k.T / (C / 2) ** 0.5, dim=-1) @ v)
    wanted = f_0[clip * T + frame] + attention.to_out(torch.cat(heads, -1)).T.reshape(C, H, W)
    torch.testing.assert_close(fused[clip * T + frame], wanted)


@pytest.mark.parametrize("mode", ["conv", "attention", "both"])
def test_fusion_is_identity_until_trained(mode, trained):
    fusion = ReferenceFusion(C, heads=2, stride=1, config=FusionConfig(mode=mode))
    references, f_0 = torch.randn(B, R, C, H, W), torch.randn(B * T, C, H, W)
    assert (fusion(f_0, fusion.project(references, PRESENT)) == f_0).all()
    trained(fusion)
    fused = fusion(f_0, fusion.project(references, PRESENT))
    assert not torch.allclose(fused, fusion(f_0, fusion.project(references.flip(0), PRESENT)))


def test_fine_sites_have_taps_alone():
    config = FusionConfig(mode="attention", attention_min_stride=2)
    fine, coarse = ReferenceFusion(C, 2, 1, config), ReferenceFusion(C, 2, 2, config)
    assert (fine.attention is None, fine.taps is None) == (True, False)
    assert (coarse.attention is None, coarse.taps is None) == (False, True)


def test_absent_references_have_zero_keys_and_values(trained):
    attention = trained(ReferenceAttention(C, heads=2))
    present = PRESENT.clone()
    present[0, 3] = False
    keys, values = attention.project(torch.randn(B, R, C, H, W), present)
    gone = torch.zeros(R, H * W, dtype=torch.bool)
    gone[3] = True
    for projected in (keys, values):
        assert not projected[0, :, gone.flatten()].any()
        assert projected[1, :, gone.flatten()].any()
