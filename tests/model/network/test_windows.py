"""Windows cover a clip, cross-fade, move, and never wrap around."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model.windows import WindowConfig, blend, ramp, windows
from tests.model.analytic_video import sample_process

CONFIG = WindowConfig()
FRAMES, PIXELS = 240, 200  # of the made-up video
cuts = st.integers(1, 30).flatmap(
    lambda length: st.builds(WindowConfig, length=st.just(length), overlap=st.integers(0, length - 1))
)


@given(num_frames=st.integers(1, 200), step=st.integers(0, 60), config=cuts)
def test_windows_are_whole_inside_the_clip_and_overlap_enough(num_frames, step, config):
    found = windows(num_frames, step, config)
    assert found[0][0] == 0
    assert found[-1][1] == num_frames
    assert all(stop - start == min(config.length, num_frames) for start, stop in found)
    for (start, stop), (following, _) in pairwise(found):
        assert start < following <= stop - config.overlap


@given(num_frames=st.integers(1, 90), step=st.integers(0, 30), config=cuts)
def test_a_denoiser_that_agrees_with_itself_has_no_seams(num_frames, step, config):
    wanted = 3.0 * torch.arange(num_frames).reshape(1, -1, 1) - 7
    blended = blend(lambda start, stop: wanted[:, start:stop], num_frames, step, config)
    torch.testing.assert_close(blended, wanted)


def test_windows_that_disagree_cross_fade_in_a_straight_line():
    config = WindowConfig(length=10, overlap=4)
    assert windows(16, 0, config) == [(0, 10), (6, 16)]
    blended = blend(lambda start, stop: torch.full((1, stop - start), float(start > 0)), 16, 0, config)
    wanted = torch.tensor([0.0] * 6 + [0.2, 0.4, 0.6, 0.8] + [1.0] * 6)
    torch.testing.assert_close(blended[0], wanted)


def test_neighbouring_ramps_sum_to_one():
    weights = ramp(24, 8)
    torch.testing.assert_close(weights[-8:] + weights[:8], torch.ones(8))
    assert (weights[8:-8] == 1).all()


def test_no_seam_stays_put():
    seams = [{start for start, _ in windows(200, step, CONFIG)} - {0, 176} for step in range(25)]
    places = set.union(*seams)
    assert max(sum(place in seam for seam in seams) for place in places) <= 4
    assert all(not (a & b) for a, b in pairwise(seams))


def test_short_clip_is_one_window_at_every_step():
    assert {tuple(windows(10, step, CONFIG)) for step in range(20)} == {((0, 10),)}


def test_window_that_is_all_overlap_is_refused():
    with pytest.raises(ValidationError, match="overlap 24"):
        WindowConfig(length=24, overlap=24)


def test_a_long_clip_changes_from_frame_to_frame_as_a_window_does():
    noise = torch.randn(FRAMES, PIXELS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    change = sample_process(noise, CONFIG).diff(dim=0).square().mean()
    in_window = sample_process(noise[: CONFIG.length], CONFIG).diff(dim=0).square().mean()
    assert 0.7 < change / in_window < 1.4  # blending neither freezes the clip nor makes it shake
