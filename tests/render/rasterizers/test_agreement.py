"""Two back ends see the same layers: ids away from edges, depth and normals where ids agree.

Letters: L layers, H rows, W columns, V vertices, F faces.  Frame: OpenCV camera, metres.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from render.camera import clip_vertices
from render.hands.model import default_hands
from render.layers import LayersConfig, render_layers
from render.mlo import decode_depth, decode_normals
from render.posing import PosedClip
from render.rasterizers.protocol import Rasterizer, get_rasterizer
from tests.bench.scene import bimanual_clip, front_camera
from tests.render.rasterizers.oracle import SNAP

SIZE = 256


def away_from_edges(ids: NDArray, vertices: NDArray, faces: NDArray, snap: float = SNAP) -> NDArray[np.bool_]:
    """Which covered pixels [L, H, W] lie farther from their triangle's edges than snapping moves those."""
    away = np.zeros(ids.shape, bool)
    layer, row, column = np.nonzero(ids)
    corners = vertices[faces[ids[layer, row, column] - 1]].astype(np.float64)  # [n, 3, 4]
    height, width = ids.shape[1:]
    corners = (corners[..., :2] / corners[..., 3:] + 1) * (width / 2, height / 2)  # pixels
    centre = np.stack([column + 0.5, row + 0.5], axis=-1)
    distances = []
    for k in range(3):
        start, side = corners[:, k], corners[:, (k + 1) % 3] - corners[:, k]
        offset = centre - start
        cross = side[:, 0] * offset[:, 1] - side[:, 1] * offset[:, 0]
        distances.append(np.abs(cross) / np.linalg.norm(side, axis=1))
    away[layer, row, column] = np.min(distances, axis=0) > snap
    return away


def drawn_layers(rasterizer: Rasterizer, num_triangles: int) -> tuple[NDArray, NDArray, NDArray]:
    """Images [L, H, W, 4] of one frame's layers, and the vertices [V, 4] and faces [F, 3] they show."""
    camera = front_camera(SIZE)
    posed = PosedClip(bimanual_clip(num_triangles, num_frames=1), camera, default_hands())
    points, _ = posed.pose(slice(0, 1))
    vertices = clip_vertices(points, camera, *posed.depth_range(0.05)).reshape(-1, 4)
    images = rasterizer.rasterize(vertices, posed.faces, posed.layer_ranges, (SIZE, SIZE))
    return images, vertices, posed.faces


def agreement(mine: NDArray, others: NDArray, vertices: NDArray, faces: NDArray) -> float:
    """The share of sure pixels at which two back ends see the same triangle."""
    sure = away_from_edges(mine[..., 3].astype(int), vertices, faces)
    assert sure.sum() > 5_000
    return float((mine[sure][:, 3] == others[sure][:, 3]).mean())


def test_ids_weights_and_depth_are_numbas(rasterizer: Rasterizer) -> None:
    images, vertices, faces = drawn_layers(rasterizer, 5_000)
    expected, _, _ = drawn_layers(get_rasterizer("numba"), 5_000)
    assert agreement(expected, images, vertices, faces) >= 0.999
    same = (images[..., 3] == expected[..., 3]) & (expected[..., 3] > 0)
    sure = same & away_from_edges(expected[..., 3].astype(int), vertices, faces)
    np.testing.assert_allclose(images[sure], expected[sure], atol=1e-4)
    covered = images[..., 3] > 0
    assert (covered == (expected[..., 3] > 0)).mean() > 0.999


@pytest.mark.parametrize("shift", [0.05, 0.5])
def test_agreement_notices_a_picture_that_is_shifted(shift: float) -> None:
    """By less than a grid step: not; by half a pixel: yes."""
    images, vertices, faces = drawn_layers(get_rasterizer("numba"), 5_000)
    moved = vertices + np.float32([2 * shift / SIZE, 0, 0, 0]) * vertices[:, 3:]
    ranges = PosedClip(bimanual_clip(5_000, 1), front_camera(SIZE), default_hands()).layer_ranges
    others = get_rasterizer("numba").rasterize(moved.astype(np.float32), faces, ranges, (SIZE, SIZE))
    assert (agreement(images, others, vertices, faces) >= 0.999) == (shift < 0.1)


@pytest.mark.parametrize("num_triangles", [5_000])
def test_layers_have_numbas_depth_and_normals(rasterizer: Rasterizer, num_triangles: int) -> None:
    """To 1e-4, and the step of their codes, wherever both see the same surface."""
    clip, camera = bimanual_clip(num_triangles, num_frames=2), front_camera(SIZE)
    rendered = [
        render_layers(clip, camera, default_hands(), LayersConfig(size=SIZE, rasterizer=name))  # type: ignore[arg-type]
        for name in (rasterizer.name, "numba")
    ]
    depth, normals = zip(
        *((decode_depth(r.depth, r.near_m, r.far_m), decode_normals(r.normals)) for r in rendered),
        strict=True,
    )
    both = (depth[0] > 0) & (depth[1] > 0)
    step = (rendered[0].far_m - rendered[0].near_m) / 65534
    assert (np.abs(depth[0] - depth[1])[both] <= 1e-4 + step).mean() >= 0.999
    assert (np.abs(normals[0] - normals[1])[both].max(axis=-1) <= 1e-4 + 1 / 127).mean() >= 0.999
