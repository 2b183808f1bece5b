"""Pictures for people: colours, order and sizes."""

import numpy as np

from flows.pictures import (
    EDGE,
    EMPTY,
    GAP,
    LAYER_COLORS,
    comparison_frames,
    composite_picture,
    confidence_panel,
    confidence_picture,
    layers_panel,
    normals_picture,
)
from render.scene import Layer


def two_layers() -> tuple[np.ndarray, np.ndarray]:
    """Object everywhere but the last column, a nearer thumb in the first; both face the camera."""
    normals = np.zeros((len(Layer), 4, 6, 3), np.float32)
    confidence = np.zeros((len(Layer), 4, 6), np.float32)
    normals[Layer.OBJECT, :, :5] = normals[Layer.THUMB, :, 0] = (0, 0, -1)
    confidence[Layer.OBJECT, :, :5] = 0.5
    confidence[Layer.THUMB, :, 0] = 0.9
    return normals, confidence


def test_composite_shows_the_nearest_layer_in_its_colour() -> None:
    picture = composite_picture(*two_layers())
    assert tuple(picture[0, 0]) == LAYER_COLORS[Layer.THUMB]
    assert tuple(picture[0, 1]) == LAYER_COLORS[Layer.OBJECT]
    assert tuple(picture[0, 5]) == (EMPTY, EMPTY, EMPTY)


def test_normals_and_confidence_keep_their_meaning() -> None:
    normals, confidence = two_layers()
    assert tuple(normals_picture(normals[Layer.OBJECT])[0, 0]) == (128, 128, 255)
    assert confidence_picture(confidence[Layer.THUMB])[0, 0, 0] == 230
    assert confidence_picture(confidence[Layer.THUMB])[0, 1, 0] == 0


def test_cells_of_a_panel_are_told_apart_even_where_they_are_empty() -> None:
    normals, confidence = (np.zeros_like(array) for array in two_layers())
    for panel in (layers_panel(normals, confidence, 196), confidence_panel(normals, confidence, 196)):
        cell = 96 * 6 // 4
        assert panel.shape == (196, 4 * cell + 3 * GAP, 3)
        assert {tuple(panel[row, cell]) for row in (0, 100, 195)} == {(EDGE, EDGE, EDGE)}
        assert tuple(panel[97, 0]) == (EDGE, EDGE, EDGE)
        assert panel[0, 0, 0] < EDGE


def test_comparison_has_a_column_for_layers_and_one_for_each_video() -> None:
    normals, confidence = (array[None].repeat(3, axis=0) for array in two_layers())
    videos = {
        name: np.full((3, 6, 6, 3), level, np.uint8) for name, level in (("generated", 90), ("truth", 200))
    }
    frames = list(comparison_frames(normals, confidence, videos, 256))
    assert len(frames) == 3
    height, width = frames[0].shape[:2]
    assert height % 2 == width % 2 == 0
    assert height >= 256
    levels = frames[0][height // 2, :, 0].tolist()
    assert levels.count(90) >= 256
    assert levels.index(90) < levels.index(200)
