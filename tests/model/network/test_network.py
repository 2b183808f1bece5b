"""The whole network: identity at the start, every box reached, nothing absent counted."""

from dataclasses import replace

import pytest
import torch

from model.conditions import Conditions
from model.config import NetworkConfig
from model.network import ManiVideoNetwork
from model.unet_walk import UNetConfig

BOXES = (
    "denoising_unet.unet", "denoising_unet.sites", "appearance_net", "pose_guider", "skeleton_guider",
    "mlo_embedding", "object_embedding", "context",
)  # fmt: skip
STEP = torch.tensor([500])


def shrunken_sd15(**choices) -> NetworkConfig:
    """SD 1.5's blocks with few channels."""
    unet = UNetConfig(
        block_out_channels=(8, 16, 24, 24), attention_head_dim=2, cross_attention_dim=12, norm_num_groups=4
    )
    return NetworkConfig(unet=unet, temporal={"heads": 2}, **choices)


@pytest.mark.parametrize("temporal", [False, True])
@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"mlo": "noise_only", "fusion": {"mode": "conv"}},
        {"mlo": "depth_only", "fusion": {"mode": "attention"}},
        {"guider": {"inject": "latent"}, "num_layers": 13, "context": "learned"},
    ],
)
def test_untrained_network_is_the_plain_unet(choices, temporal, make_conditions, make_noisy):
    network = ManiVideoNetwork(shrunken_sd15(**choices)).eval()
    network.set_temporal(temporal)
    conditions = make_conditions(network.settings, b=2, t=3, size=64)
    z, timestep = make_noisy(conditions), torch.tensor([10, 900])
    with torch.no_grad():
        ours = network(z, timestep, network.encode(conditions))
        plain = network.denoising_unet.unet(
            z.flatten(0, 1), timestep.repeat_interleave(3), network.context.expand(6, -1, -1)
        ).sample
    torch.testing.assert_close(ours.flatten(0, 1), plain, rtol=1e-5, atol=1e-5)


def test_fresh_temporal_layers_leave_each_frame_as_it_was(network, trained, make_conditions, make_noisy):
    trained(network)
    conditions = make_conditions(network.settings, t=4)
    z = make_noisy(conditions)
    with torch.no_grad():
        encoded = network.encode(conditions)
        frames = [network(z[:, i : i + 1], STEP, encoded.frames(i, i + 1)) for i in range(4)]
        network.set_temporal(True)
        clip = network(z, STEP, encoded)
    torch.testing.assert_close(clip, torch.cat(frames, dim=1), rtol=1e-5, atol=1e-5)


def test_trained_temporal_layers_mix_frames_and_can_be_taken_away(
    network, trained, make_conditions, make_noisy
):
    conditions = make_conditions(network.settings, t=3)
    z = make_noisy(conditions)
    with torch.no_grad():
        encoded = network.encode(conditions)
        image = network(z, STEP, encoded)
        network.set_temporal(True)
        for layers in network.denoising_unet.layers:
            trained(layers.motion)
        mixed = network(z, STEP, encoded)
        moved = network(torch.cat([z[:, :2], z[:, 2:] + 1], dim=1), STEP, encoded)
        network.set_temporal(False)
        assert (network(z, STEP, encoded) == image).all()
    assert not torch.allclose(mixed, image, atol=1e-3)
    assert not torch.allclose(moved[:, 0], mixed[:, 0], atol=1e-4)


def test_gradients_reach_every_parameter_of_every_box(small, trained, make_conditions, make_noisy):
    # With one token of context a softmax is constant and its queries and keys have no gradient.
    config = small.model_copy(update={"with_temporal": True, "context_tokens": 2})
    network = trained(ManiVideoNetwork(config))
    conditions = make_conditions(small)
    network(make_noisy(conditions), STEP, network.encode(conditions)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_three_training_steps_move_every_box(network, make_conditions, make_noisy):
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for _ in range(3):  # behind a zero-initialised layer, gradients arrive once that layer has moved
        conditions = make_conditions(network.settings)
        z = make_noisy(conditions)
        optimizer.zero_grad()
        (network(z, STEP, network.encode(conditions)) - z).square().mean().backward()
        optimizer.step()
    for box in BOXES:
        moved = [n for n, p in network.named_parameters() if n.startswith(box) and (p != before[n]).any()]
        assert moved, box


def test_encoding_is_used_as_it_is_at_every_noise_level(network, trained, make_conditions, make_noisy):
    trained(network)
    conditions = make_conditions(network.settings)
    z = make_noisy(conditions)
    with torch.no_grad():
        fresh = [network(z, torch.tensor([s]), network.encode(conditions)) for s in (0, 999)]
        encoded = network.encode(conditions)
        for box in ("appearance_net", "pose_guider", "skeleton_guider", "mlo_embedding", "object_embedding"):
            delattr(network, box)  # nothing of them is left to run
        for wanted, step in zip(fresh, (0, 999), strict=True):
            assert (network(z, torch.tensor([step]), encoded) == wanted).all()


def test_clips_of_a_batch_do_not_see_each_other(network, trained, make_conditions, make_noisy):
    network.set_temporal(True)
    trained(network)
    conditions = make_conditions(network.settings, b=2)
    conditions.references[0, 5] = 0  # a batch in which one clip lacks one reference
    z, steps = make_noisy(conditions), torch.tensor([3, 700])
    with torch.no_grad():
        both = network(z, steps, network.encode(conditions))
        for i in range(2):
            alone = Conditions(**{name: value[i : i + 1] for name, value in vars(conditions).items()})
            one = network(z[i : i + 1], steps[i : i + 1], network.encode(alone))
            torch.testing.assert_close(both[i : i + 1], one, rtol=1e-4, atol=1e-5)


def test_frame_without_a_skeleton_gets_nothing_from_its_guider(network, trained, make_conditions):
    trained(network)
    conditions = make_conditions(network.settings, t=3)
    skeleton = conditions.skeleton.clone()
    skeleton[:, 1] = 0
    with torch.no_grad():
        some = network.encode_frames(replace(conditions, skeleton=skeleton)).guidance
        without = network.encode_frames(replace(conditions, skeleton=torch.zeros_like(skeleton))).guidance
    assert (some[:, 1] == without[:, 1]).all()
    assert not torch.allclose(some[:, 0], without[:, 0])


@pytest.mark.parametrize("layers", [7, 13])
def test_guiders_add_to_the_noisy_latent_as_in_equations_1_and_5(
    layers, trained, make_conditions, make_noisy
):
    config = shrunken_sd15(guider={"inject": "latent"}, num_layers=layers)
    network = trained(ManiVideoNetwork(config)).eval()
    conditions = make_conditions(config, size=64)
    z = make_noisy(conditions)
    maps, skeleton = conditions.normals.flatten(0, 1).flatten(1, 2), conditions.skeleton.flatten(0, 1)
    with torch.no_grad():
        added = (network.pose_guider(maps) + network.skeleton_guider(skeleton)).unflatten(0, (1, 2))
        encoded = network.encode(conditions)
        unguided = replace(encoded, per_frame=replace(encoded.per_frame, guidance=torch.zeros_like(added)))
        guided = network(z, STEP, encoded)
        torch.testing.assert_close(guided, network(z + added, STEP, unguided), rtol=1e-4, atol=1e-5)
    assert added.shape == z.shape
    assert not torch.allclose(guided, network(z, STEP, unguided), atol=1e-3)


@pytest.mark.parametrize("layers", [7, 13])
def test_every_one_of_seven_or_thirteen_layers_counts(layers, small, trained, make_conditions, make_noisy):
    network = trained(ManiVideoNetwork(small.model_copy(update={"num_layers": layers})))
    conditions = make_conditions(network.settings, t=1)
    normals, confidence = conditions.normals.requires_grad_(), conditions.confidence.requires_grad_()
    network(make_noisy(conditions), STEP, network.encode(conditions)).square().sum().backward()
    assert (normals.grad.flatten(3).abs().amax(3) > 0).all()
    assert (confidence.grad.flatten(3).abs().amax(3) > 0).all()


def test_appearance_net_is_never_told_the_noise_level(network, trained, make_conditions, make_noisy):
    trained(network)
    conditions, levels = make_conditions(network.settings), []
    network.appearance_net.unet.time_proj.register_forward_pre_hook(lambda _, told: levels.append(told[0]))
    with torch.no_grad():
        for step in (0, 999):
            network(make_noisy(conditions), torch.tensor([step]), network.encode(conditions))
    assert len(levels) == 2  # once for each encoding, and never for a step
    assert not torch.cat([level.flatten() for level in levels]).any()  # clean pictures: t = 0


def test_network_does_not_depend_on_the_order_of_the_points(network, trained, make_conditions, make_noisy):
    trained(network)
    conditions = make_conditions(network.settings)
    shuffled = replace(conditions, points=conditions.points[:, torch.randperm(50)])
    z = make_noisy(conditions)
    with torch.no_grad():
        wanted, found = (network(z, STEP, network.encode(each)) for each in (conditions, shuffled))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_absent_references_have_no_tap_and_zero_keys_and_values(network, trained, make_conditions):
    trained(network)
    conditions = make_conditions(network.settings)
    with torch.no_grad():
        absent = network.encode_references(
            torch.zeros_like(conditions.references), conditions.context
        ).references
    for site in absent:
        assert not site.tapped.any()
        assert site.keys is None or not (site.keys.any() or site.values.any())


@pytest.mark.parametrize(
    ("mlo", "seen"),
    [
        ("full", True),
        ("noise_only", False),
        ("depth_only", False),
    ],
)
def test_only_the_full_network_has_occlusion_tokens(mlo, seen, small, make_conditions):
    network = ManiVideoNetwork(small.model_copy(update={"mlo": mlo}))
    assert (network.mlo_embedding is not None) is seen
    assert all((layers.mlo is not None) is seen for layers in network.denoising_unet.layers)
    assert (network.encode_frames(make_conditions(small)).mlo_tokens is not None) is seen


def test_without_mlo_the_guider_sees_the_nearest_depth_alone(small, trained, make_conditions):
    network = trained(ManiVideoNetwork(small.model_copy(update={"mlo": "depth_only"})))
    conditions = make_conditions(small)
    swapped = replace(conditions, normals=-conditions.normals, confidence=conditions.confidence.flip(2))
    nearer = replace(conditions, confidence=conditions.confidence * 2)
    with torch.no_grad():
        guidance = network.encode_frames(conditions).guidance
        assert (network.encode_frames(swapped).guidance == guidance).all()
        assert not torch.allclose(network.encode_frames(nearer).guidance, guidance)


@pytest.mark.parametrize(("update", "depth_tells", "hidden_tells"), [
    ({"mlo": "noise_only"}, [False], [True]),
    ({"mlo": "noise_only", "guiding_depth": True}, [True], [True]),
    ({}, [False, True], [True, True]),
    ({"guiding_depth": True}, [True, True], [True, True]),
    ({"hidden": "tokens"}, [False, True], [False, True]),
    ({"hidden": "tokens", "guiding_depth": True}, [True, True], [False, True]),
    ({"hidden": "none"}, [False, True], [False, False]),
    ({"hidden": "none", "guiding_depth": True}, [True, True], [False, False]),
    ({"mlo": "noise_only", "hidden": "none"}, [False], [False]),
])  # fmt: skip
@pytest.mark.parametrize("sign", ["depth", "signed"])
def test_each_embedding_is_told_of_the_layers_what_the_config_says(
    update, depth_tells, hidden_tells, sign, small, trained, make_conditions
):
    """G's map, and E_F's tokens where there are any; of the nearest layer D, of another H and D."""
    network = trained(ManiVideoNetwork(small.model_copy(update={"confidence": sign, **update})))
    conditions = make_conditions(small)
    normals, confidence = conditions.normals.clone(), torch.zeros_like(conditions.confidence)
    confidence[:, :, 1], confidence[:, :, 2] = 0.25, 0.75  # the second hand layer lies before the first

    def seen(normals, confidence):
        with torch.no_grad():
            frames = network.encode_frames(replace(conditions, normals=normals, confidence=confidence))
        return [frames.guidance, *([] if frames.mlo_tokens is None else [frames.mlo_tokens])]

    def tells(others):
        return [not torch.equal(*each) for each in zip(seen(normals, confidence), others, strict=True)]

    turned, moved = normals.clone(), confidence.clone()
    turned[:, :, 1] *= -1
    moved[:, :, 2] = 0.5  # and stays before it
    behind = confidence.clone()
    behind[:, :, 1] = 0.125
    assert tells(seen(turned, confidence)) == hidden_tells
    assert tells(seen(normals, moved)) == depth_tells
    hidden_depth_tells = [depth and hidden for depth, hidden in zip(depth_tells, hidden_tells, strict=True)]
    assert tells(seen(normals, behind)) == hidden_depth_tells


@pytest.mark.parametrize("confidence", ["depth", "signed"])
def test_order_alone_tells_where_confidence_is_signed(confidence, small, trained, make_conditions):
    """Layers whose order is turned round, each as near as before but for a hair."""
    update = {"guiding_depth": True, "confidence": confidence}
    network = trained(ManiVideoNetwork(small.model_copy(update=update)))
    conditions = make_conditions(small)
    before = torch.full_like(conditions.confidence, 0.5)
    after = before.clone()
    before[:, :, 1] += 1e-6
    after[:, :, 2] += 1e-6
    with torch.no_grad():
        one, other = (network.encode_frames(replace(conditions, confidence=each)) for each in (before, after))
    for map_or_tokens in ("guidance", "mlo_tokens"):
        alike = torch.allclose(getattr(one, map_or_tokens), getattr(other, map_or_tokens), atol=1e-4)
        assert alike is (confidence == "depth"), map_or_tokens


def test_half_precision_tells_layers_that_touch_apart(small, trained, make_conditions):
    """Of two layers as near as bfloat16 tells one is in front, whichever it is."""
    network = trained(ManiVideoNetwork(small.model_copy(update={"confidence": "signed"}))).bfloat16()
    conditions = make_conditions(small)
    tokens = []
    for front in (1, 2):
        confidence = torch.zeros_like(conditions.confidence)
        confidence[:, :, 1:3] = 0.75
        confidence[:, :, front] += 1e-3
        with torch.no_grad():
            tokens.append(network.encode_frames(replace(conditions, confidence=confidence)).mlo_tokens)
    assert tokens[0].dtype == torch.bfloat16
    assert not torch.allclose(*tokens, atol=0.05)


def test_points_and_normals_of_the_object_are_given_whole_whatever_is_hidden(small, make_conditions):
    conditions = make_conditions(small)
    tokens = []
    for hidden in ("both", "tokens", "none"):
        torch.manual_seed(0)
        network = ManiVideoNetwork(small.model_copy(update={"hidden": hidden}))
        with torch.no_grad():
            tokens.append(network.encode_frames(conditions).object_tokens)
    assert (tokens[0] == tokens[1]).all()
    assert (tokens[0] == tokens[2]).all()


def test_parameter_groups_are_disjoint_and_complete(network):
    network.set_temporal(True)
    groups = [
        {id(p) for p in group}
        for group in (
            network.image_parameters(), network.temporal_parameters(), network.skeleton_parameters(),
        )
    ]  # fmt: skip
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(list(network.parameters()))


def test_checkpointing_changes_memory_not_gradients(network, trained, make_conditions, make_noisy):
    network.set_temporal(True)
    trained(network)
    conditions = make_conditions(network.settings)
    z, gradients = make_noisy(conditions), []
    for _ in range(2):
        network.zero_grad()
        network(z, STEP, network.encode(conditions)).square().mean().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        )
        network.enable_gradient_checkpointing()
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_near_full_precision(autocast, network, trained, make_conditions, make_noisy):
    network.set_temporal(True)
    trained(network)
    conditions = make_conditions(network.settings)
    conditions.references[:, 3] = 0
    z = make_noisy(conditions)
    with torch.no_grad():
        wanted = network(z, STEP, network.encode(conditions))
        if not autocast:
            network.to(torch.bfloat16)
            z, conditions = z.bfloat16(), conditions.to(dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = network(z, STEP, network.encode(conditions))
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).square().mean() < 1e-3 * wanted.square().mean()


def test_sd15_has_the_papers_size_by_box(sd15):
    with torch.device("meta"):
        network = ManiVideoNetwork(sd15.network)
        network.set_temporal(True)
    count = {
        name: sum(p.numel() for p in network.get_submodule(name).parameters())
        for name in ("denoising_unet.unet", "appearance_net", "pose_guider", "skeleton_guider")
    }
    output_layers = 2 * 320 + 9 * 320 * 4 + 4
    assert count["denoising_unet.unet"] == 859_520_964
    assert count["appearance_net"] == 859_520_964 - output_layers
    assert 1e5 < count["skeleton_guider"] < count["pose_guider"] < 1e6  # lightweight
    assert len(network.denoising_unet.layers) == 16
    widths = [layers.site.channels for layers in network.denoising_unet.layers]
    motion = sum(22 * width**2 + 21 * width for width in widths)  # two attentions, feed-forward, in and out
    assert sum(p.numel() for p in network.temporal_parameters()) == motion
