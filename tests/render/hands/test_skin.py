"""Procedural colours of skin and gloves."""

import numpy as np
from scipy.spatial.distance import pdist

from render.hands.model import default_hands
from render.hands.skin import glove_colors, skin_colors


def test_colours_are_valid_and_reproducible() -> None:
    hand = default_hands()["right"]
    first, again = (skin_colors(hand, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (778, 3)
    assert first.dtype == np.float32
    assert first.min() > 0
    assert first.max() <= 1
    np.testing.assert_array_equal(first, again)


def test_both_hands_of_a_person_match() -> None:
    left, right = (skin_colors(hand, np.random.default_rng(5)) for hand in default_hands().values())
    np.testing.assert_allclose(left, right, atol=1e-6)


def test_people_differ() -> None:
    hand = default_hands()["right"]
    tones = np.array([skin_colors(hand, np.random.default_rng(seed)).mean(axis=0) for seed in range(20)])
    assert tones.mean(axis=1).max() > 2 * tones.mean(axis=1).min()
    assert (tones[:, 0] > tones[:, 2]).all()  # redder than blue, whoever it is


def test_palms_are_lighter_tips_redder_and_nails_lighter_than_the_back() -> None:
    hand = default_hands()["right"]
    colors = skin_colors(hand, np.random.default_rng(3)).astype(float)
    points = hand.template
    palm_part = hand.weights[:, 0] > 0.9
    middle = palm_part & (np.abs(points[:, 2]) < 0.02) & (points[:, 0] < 0.07)
    back, front = (
        colors[middle & (points[:, 1] > 0)].mean(axis=0),
        colors[middle & (points[:, 1] < 0)].mean(axis=0),
    )
    assert (front > back).all()
    tip = colors[hand.tips[2]]
    assert tip[0] / tip[1] > front[0] / front[1]
    near_tip = (hand.weights[:, 6] > 0.9) & (np.linalg.norm(points - points[hand.tips[2]], axis=1) < 0.011)
    nail = colors[near_tip & (points[:, 1] > points[hand.tips[2], 1] + 0.004)].mean(axis=0)
    assert nail.sum() > 1.1 * back.sum()


def test_a_glove_tells_palm_and_digits_apart() -> None:
    left, right = default_hands()["left"], default_hands()["right"]
    colors = glove_colors(right)
    np.testing.assert_array_equal(glove_colors(left), colors)
    wrist = colors[np.linalg.norm(right.template - right.rest_joints[0], axis=1).argmin()]
    parts = [wrist, *(colors[tip] for tip in right.tips)]
    assert pdist(np.array(parts)).min() > 0.2
    assert len(np.unique(colors, axis=0)) == len(parts)
