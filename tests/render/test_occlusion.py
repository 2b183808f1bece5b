"""Who hides whom, on layers whose order is known: squares of one depth each."""

import numpy as np
import pytest

from render.occlusion import HIDERS, count_hidden, hidden_fingers, hidden_shares, visible_object
from render.scene import STORED_LAYERS

SIZE = 8


def scene(**nearness: tuple[slice, float]) -> np.ndarray:
    """D [1, L, 8, 8] of layers that fill some columns, each at one nearness."""
    confidence = np.zeros((1, len(STORED_LAYERS), SIZE, SIZE), np.float32)
    for name, (columns, value) in nearness.items():
        confidence[0, STORED_LAYERS.index(name), :, columns] = value
    return confidence


@pytest.mark.parametrize(
    ("hider", "by"),
    [
        ("left_middle", "fingers"),
        ("left_thumb", "fingers"),
        ("left_palm", "palm"),
        ("object", "object"),
        ("right_index", "other_hand"),
        ("right_palm", "other_hand"),
    ],
)
def test_a_finger_half_covered_is_half_hidden_by_what_covers_it(hider: str, by: str) -> None:
    wide, right_half = slice(0, 8), slice(4, 8)
    confidence = scene(left_index=(wide, 0.5), **{hider: (right_half, 0.9)})
    counts = count_hidden(confidence)
    digits = 2 if hider.endswith(("middle", "thumb", "right_index")) else 1  # a finger that hides is one too
    assert counts["pixels"] == 64 + 32 * (digits - 1)
    assert {name: counts[name] for name in HIDERS} == {name: 32 * (name == by) for name in HIDERS}
    hidden = hidden_fingers(confidence)
    assert hidden[0, :, 4:].all()
    assert not hidden[0, :, :4].any()


def test_what_lies_behind_hides_nothing() -> None:
    confidence = scene(
        right_ring=(slice(2, 6), 0.9), object=(slice(0, 8), 0.4), left_little=(slice(6, 8), 0.8)
    )
    assert hidden_shares(count_hidden(confidence)) == {
        "hidden": 0.0,
        **{f"by_{name}": 0.0 for name in HIDERS},
    }
    assert not hidden_fingers(confidence).any()


def test_the_object_shows_where_nothing_is_nearer() -> None:
    shown = visible_object(scene(object=(slice(0, 4), 0.5), left_thumb=(slice(3, 6), 0.6)))
    assert shown[0, :, :3].all()
    assert not shown[0, :, 3:].any()


def test_of_several_covers_the_nearest_gets_the_pixel() -> None:
    both = slice(0, 8)
    confidence = scene(left_index=(both, 0.3), object=(both, 0.6), right_palm=(slice(0, 4), 0.9))
    shares = hidden_shares(count_hidden(confidence))
    assert shares["by_object"] == shares["by_other_hand"] == 0.5
    assert shares["hidden"] == 1.0


def test_a_stack_of_fingers_counts_every_layer() -> None:
    everywhere = slice(0, 8)
    names = ("left_thumb", "left_index", "left_middle", "left_ring")
    confidence = scene(**{name: (everywhere, 0.2 + 0.1 * rank) for rank, name in enumerate(names)})
    assert hidden_shares(count_hidden(confidence))["by_fingers"] == pytest.approx(3 / 4)


def test_no_finger_no_share() -> None:
    assert hidden_shares(count_hidden(scene(object=(slice(0, 8), 0.5))))["hidden"] == 0.0
