"""What is given and what is absent."""

from dataclasses import replace

import pytest
import torch

from model.conditions import FRAME_FIELDS, Conditions


def test_dropped_samples_are_zero_and_others_untouched(small, make_conditions):
    conditions = make_conditions(small, b=3)
    dropped = conditions.drop(torch.tensor([True, False, True]), torch.zeros(3, dtype=torch.bool))
    for name, value in vars(dropped).items():
        assert not value[[0, 2]].any(), name
        assert (value[1] == getattr(conditions, name)[1]).all(), name


def test_frames_cut_what_has_time_and_keep_the_rest(small, make_conditions):
    conditions = make_conditions(small, t=4)
    part = conditions.frames(1, 3)
    assert part.num_frames == 2
    assert (part.confidence == conditions.confidence[:, 1:3]).all()
    assert part.references is conditions.references


def test_dropped_motion_leaves_references_and_points(small, make_conditions):
    conditions = make_conditions(small.model_copy(update={"context": "clip_image"}), b=2)
    dropped = conditions.drop(torch.zeros(2, dtype=torch.bool), torch.tensor([False, True]))
    for name, value in vars(dropped).items():
        assert (value[0] == getattr(conditions, name)[0]).all(), name
        assert bool(value[1].any()) is (name not in FRAME_FIELDS), name
    alone = conditions.without_motion()
    assert not any(getattr(alone, name).any() for name in FRAME_FIELDS)
    assert alone.references is conditions.references
    assert not any(value.any() for value in vars(conditions.absent()).values())


def test_composite_depth_is_the_nearest_layers(small, make_conditions):
    conditions = make_conditions(small)
    assert conditions.composite_depth.shape == (1, 2, 1, 32, 32)
    assert (conditions.composite_depth[:, :, 0] == conditions.confidence.amax(2)).all()


def test_signed_confidence_is_negative_where_another_layer_is_in_front(small, make_conditions):
    conditions = make_conditions(small)
    confidence = torch.zeros_like(conditions.confidence)
    confidence[:, :, 0, :, :16], confidence[:, :, 1, :, 8:24] = 0.5, 0.75  # they overlap in columns 8 to 16
    overlapping = replace(conditions, confidence=confidence)
    signed = overlapping.signed(overlapping.hidden)
    assert (signed.confidence[:, :, 0, :, :8] == 0.5).all()
    assert (signed.confidence[:, :, 0, :, 8:16] == -0.5).all()
    assert (signed.confidence[:, :, 1] == confidence[:, :, 1]).all()
    assert not signed.confidence[:, :, 2:].any()
    assert not signed.confidence[..., 24:].any()
    assert (signed.composite_depth == confidence.amax(2, keepdim=True)).all()  # w/o MLO and CDiff see no sign
    assert signed.normals is conditions.normals
    tied = replace(conditions, confidence=torch.full_like(confidence, 0.5))
    assert (tied.signed(tied.hidden).confidence == 0.5).all()


def test_of_what_is_visible_each_pixel_has_the_nearest_layer_alone(small, make_conditions):
    conditions = make_conditions(small)
    visible = conditions.visible(conditions.hidden)
    nearest = conditions.confidence == conditions.composite_depth
    assert (visible.confidence == conditions.confidence * nearest).all()
    assert (visible.normals == conditions.normals * nearest[:, :, :, None]).all()
    assert (visible.composite_depth == conditions.composite_depth).all()


def test_check_names_every_tensor_that_does_not_fit(small, make_conditions):
    conditions = make_conditions(small)
    conditions.check(small.num_layers, small.latent_channels, small.factor)
    wrong: Conditions = replace(
        conditions, points=conditions.points[..., :2], skeleton=conditions.skeleton[:, :1]
    )
    with pytest.raises(ValueError, match=r"points is \[1, 50, 2\], wanted \[1, 50, 3\]; skeleton is"):
        wrong.check(small.num_layers, small.latent_channels, small.factor)
    with pytest.raises(ValueError, match=r"normals is .* wanted .*13"):
        conditions.check(13, small.latent_channels, small.factor)
