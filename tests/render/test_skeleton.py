"""Skeleton pictures: each bone in its colour where it lies, nothing where a keypoint was not seen."""

import numpy as np

from render.camera import Crop
from render.skeleton import BONES, COLORS, KEYPOINTS, crop_keypoints, draw_skeletons

SHOULDERS = (KEYPOINTS.index("left_shoulder"), KEYPOINTS.index("right_shoulder"))


def only_shoulders(confidence: float = 1.0) -> np.ndarray:
    keypoints = np.zeros((1, len(KEYPOINTS), 3), np.float32)
    keypoints[0, SHOULDERS, 0] = 8, 24
    keypoints[0, SHOULDERS, 1] = 16
    keypoints[0, SHOULDERS, 2] = confidence
    return keypoints


def test_a_bone_is_a_stroke_from_end_to_end_in_its_own_colour() -> None:
    (picture,) = draw_skeletons(only_shoulders(), (32, 40))
    assert picture.shape == (32, 40, 3)
    color = np.rint(255 * COLORS[BONES.index(SHOULDERS)]).astype(np.uint8)
    assert (picture[16, 8:25] == color).all()
    drawn = picture.any(axis=-1)
    assert not drawn[:14].any()
    assert not drawn[19:].any()
    assert not drawn[:, :6].any()
    assert not drawn[:, 27:].any()


def test_what_was_not_seen_is_not_drawn() -> None:
    assert not draw_skeletons(only_shoulders(0.1), (32, 40)).any()
    assert len(set(map(tuple, COLORS.round(6)))) == len(BONES)


def test_a_crop_shows_keypoints_where_it_shows_their_pixels() -> None:
    keypoints = only_shoulders()
    moved = crop_keypoints(keypoints, Crop(8, 12, 16), 32)
    # Pixel (8, 16) is the crop's (0, 4); at twice the size it is pixels 0 and 1, whose middle is 0.5.
    np.testing.assert_allclose(moved[0, SHOULDERS[0]], [0.5, 8.5, 1.0])
    np.testing.assert_array_equal(crop_keypoints(keypoints, Crop(0, 0, 40), 40), keypoints)
