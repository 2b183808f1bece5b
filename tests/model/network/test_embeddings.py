"""G and G_1 (Eq. 1, 5), E_F (Eq. 2), E_N (Eq. 4) and the block that attends to them."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from model.added_attention import AddedAttention
from model.mlo_embedding import MloEmbedding, PictureTokens, TokensConfig
from model.object_embedding import ObjectEmbedding
from model.pose_guider import PoseGuider, strides

TOKENS = TokensConfig(channels=(8, 16), grid=4, points=5)


@pytest.mark.parametrize(
    ("factor", "wanted"), [(8, (1, 2, 2, 2)), (4, (1, 1, 2, 2)), (16, (2, 2, 2, 2)), (1, (1, 1, 1, 1))]
)
def test_guider_strides_come_to_the_codecs_factor(factor, wanted):
    assert strides(factor, 4) == wanted


@pytest.mark.parametrize("factor", [3, 32])
def test_guider_refuses_a_factor_it_cannot_reach(factor):
    with pytest.raises(ValueError, match=str(factor)):
        strides(factor, 4)


@pytest.mark.parametrize("factor", [4, 8])
def test_guider_has_the_latents_size_and_starts_at_zero(factor):
    out = PoseGuider(21, 6, (4, 4, 4, 4), factor)(torch.randn(2, 21, 64, 48))
    assert out.shape == (2, 6, 64 // factor, 48 // factor)
    assert not out.any()


def test_mlo_tokens_depend_on_each_layers_normals_and_confidence(trained):
    embed = trained(MloEmbedding(num_layers=3, context_dim=12, config=TOKENS))
    normals, confidence = torch.randn(2, 3, 3, 32, 32), torch.rand(2, 3, 32, 32)
    normals.requires_grad_()
    confidence.requires_grad_()
    tokens = embed(normals, confidence)
    tokens.square().sum().backward()
    assert tokens.shape == (2, 16, 12)
    assert (normals.grad.flatten(3).abs().amax(3) > 0).all()
    assert (confidence.grad.flatten(2).abs().amax(2) > 0).all()


def test_mlo_tokens_are_equation_2(trained):
    embed = trained(MloEmbedding(num_layers=2, context_dim=12, config=TOKENS))
    normals, confidence = torch.randn(2, 2, 3, 32, 32), torch.rand(2, 2, 32, 32)
    features = torch.cat([*normals.unbind(1), confidence], dim=1)  # [H, D]
    for conv in embed.tokens.convs:
        features = F.silu(F.conv2d(features, conv.weight, stride=2, padding=1))
    pooled = F.avg_pool2d(features, 2).flatten(2).mT  # 32 pixels, halved twice, to 4 tokens
    norm, first, _, last = embed.mlp
    contents = embed.tokens.norm(pooled)
    hidden = F.silu(norm(contents + embed.tokens.position) @ first.weight.mT + first.bias)
    torch.testing.assert_close(embed(normals, confidence), hidden @ last.weight.mT + last.bias)


def test_mlo_tokens_know_where_they_are(trained):
    embed = trained(MloEmbedding(num_layers=1, context_dim=12, config=TOKENS))
    tokens = embed(torch.zeros(1, 1, 3, 32, 32), torch.zeros(1, 1, 32, 32))[0]
    inner = tokens.unflatten(0, (4, 4))[1:3, 1:3].flatten(0, 1)  # the border's differ by padding alone
    assert torch.cdist(inner, inner).fill_diagonal_(1).min() > 1e-3


def test_fresh_tokens_tell_contents_apart_as_they_do_places():
    embed = PictureTokens(28, TokensConfig(channels=(32, 64), grid=8))
    tokens = embed(0.2 * torch.randn(16, 28, 64, 64))
    assert tokens.std(0).mean() > tokens.mean(0).std(0).mean()
    empty = PictureTokens(3, TOKENS)
    torch.testing.assert_close(empty(torch.zeros(1, 3, 32, 32))[0], empty.position)


def test_object_tokens_do_not_depend_on_the_points_order(trained):
    embed = trained(ObjectEmbedding(context_dim=12, config=TOKENS))
    normals, points = torch.randn(1, 2, 3, 32, 32), torch.randn(1, 40, 3)
    shuffled = points[:, torch.randperm(40)]
    torch.testing.assert_close(embed(normals, shuffled), embed(normals, points))
    assert not torch.allclose(embed(normals, points + 0.1), embed(normals, points), atol=1e-3)


def test_object_tokens_are_equation_4_of_pictures_and_of_points_apart(trained):
    embed = trained(ObjectEmbedding(context_dim=12, config=TOKENS))
    normals, points = torch.randn(1, 2, 3, 32, 32), torch.randn(1, 40, 3)
    tokens = embed(normals, points)
    other_points, other_normals = embed(normals, points + 1), embed(normals + 1, points)
    assert torch.equal(other_points[:, :, :16], tokens[:, :, :16])
    assert torch.equal(other_normals[:, :, 16:], tokens[:, :, 16:])
    picture = embed.mlp(embed.picture_tokens(normals[0]) + embed.types[0])
    cloud = embed.mlp(embed.point_tokens(points) + embed.types[1])  # the same MLP
    torch.testing.assert_close(tokens[0], torch.cat([picture, cloud.expand(2, -1, -1)], dim=1))


def test_object_tokens_are_sixteen_a_frame_and_five_of_the_clip(trained):
    embed = trained(ObjectEmbedding(context_dim=12, config=TOKENS))
    tokens = embed(torch.randn(2, 3, 3, 32, 32), torch.randn(2, 40, 3))
    assert tokens.shape == (2, 3, 16 + 5, 12)
    assert (tokens[:, 0, 16:] == tokens[:, 1, 16:]).all()
    assert not torch.allclose(tokens[:, 0, :16], tokens[:, 1, :16])


def test_added_attention_is_identity_until_trained(trained):
    block = AddedAttention(8, heads=2, context_dim=12, feed_forward_mult=2, tokens=TOKENS)
    features, embedding = torch.randn(3, 8, 5, 4), torch.randn(3, 7, 12)
    assert (block(features, embedding) == features).all()
    trained(block)
    out = block(features, embedding)
    assert out.shape == features.shape
    assert not torch.allclose(out, block(features, embedding.roll(1, 0)))


@pytest.mark.parametrize("ranges", [None, (0.5, 2.0)])
def test_added_attention_is_the_softmax_of_equations_2_and_4(trained, ranges):
    tokens = TOKENS.model_copy(update={"grid": 2, "ranges": ranges})
    block = trained(AddedAttention(8, heads=2, context_dim=12, feed_forward_mult=2, tokens=tokens))
    features, embedding = torch.randn(3, 8, 6, 4), torch.randn(3, 4 + 3, 12)  # 4 of a picture, 3 of points
    z = features.flatten(2).mT
    projected = (block.to_q(block.norm_attention(z)), block.to_k(embedding), block.to_v(embedding))
    q, k, v = (each.unflatten(2, (2, 4)).transpose(1, 2) for each in projected)  # [n, heads, tokens, d]
    logits = q @ k.mT / 4**0.5
    for head, (place, token) in product(range(2 if ranges else 0), product(range(6 * 4), range(4))):
        down = (place // 4 + 0.5) / 3 - (token // 2 + 0.5)  # in tokens, each of which is three places high
        across = (place % 4 + 0.5) / 2 - (token % 2 + 0.5)  # and two wide
        logits[:, head, place, token] -= (down**2 + across**2) / (2 * ranges[head] ** 2)
    z = z + block.to_out((logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
    z = z + block.feed_forward(block.norm_feed_forward(z))
    torch.testing.assert_close(block(features, embedding), z.mT.reshape(features.shape))


def test_heads_take_the_ranges_in_turn():
    tokens = TOKENS.model_copy(update={"ranges": (0.5, 2.0)})
    block = AddedAttention(6, heads=3, context_dim=12, feed_forward_mult=1, tokens=tokens)
    assert block.ranges == (0.5, 2.0, 0.5)


def test_added_attention_does_not_depend_on_the_tokens_order(trained):
    block = trained(AddedAttention(8, heads=2, context_dim=12, feed_forward_mult=2, tokens=TOKENS))
    features, embedding = torch.randn(1, 8, 3, 3), torch.randn(1, 7, 12)
    torch.testing.assert_close(block(features, embedding.flip(1)), block(features, embedding))
