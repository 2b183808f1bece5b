"""What is given and what is absent."""

from dataclasses import replace

import pytest
import torch

from model.conditions import Conditions, join


def test_dropped_samples_are_zero_and_others_untouched(small, make_conditions):
    conditions = make_conditions(small, b=3)
    dropped = conditions.drop(torch.tensor([True, False, True]))
    for name, value in vars(dropped).items():
        assert not value[[0, 2]].any(), name
        assert (value[1] == getattr(conditions, name)[1]).all(), name


def test_frames_cut_what_has_time_and_keep_the_rest(small, make_conditions):
    conditions = make_conditions(small, t=4)
    part = conditions.frames(1, 3)
    assert part.num_frames == 2
    assert (part.confidence == conditions.confidence[:, 1:3]).all()
    assert part.references is conditions.references


def test_join_is_along_the_batch(small, make_conditions):
    first, second = make_conditions(small, b=1), make_conditions(small, b=2)
    both = join([first, second])
    assert (both.points[1:] == second.points).all()
    assert len(both.normals) == 3


def test_composite_depth_is_the_nearest_layers(small, make_conditions):
    conditions = make_conditions(small)
    assert conditions.composite_depth.shape == (1, 2, 1, 32, 32)
    assert (conditions.composite_depth[:, :, 0] == conditions.confidence.amax(2)).all()


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
