"""What is computed at covered pixels, whatever rasterizer found them: weights, layer normals and depth.

Letters: H rows, W columns, V vertices, F faces.  Frame: clip space as in `rasterizers.protocol`.
All loops visit covered pixels only; dense float images are never made.
"""

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def perspective_weights(a, b, c, x, y):  # type: ignore[no-untyped-def]
    """Return the weights (of a, b, c) and the facing (> 0: counter-clockwise in x, y) at the point (x, y).

    The triangle's point that is seen at (x, y) is Σ weight·vertex with Σ weight·(p − w·(x, y)) = 0 in each of
    the two picture axes: the weights are ratios of cross products of p − w·(x, y).
    Near edge-on triangles a pixel on a snapped edge can lie outside; weights are then held to [0, 1].
    """
    ax, ay = a[0] - x * a[3], a[1] - y * a[3]
    bx, by = b[0] - x * b[3], b[1] - y * b[3]
    cx, cy = c[0] - x * c[3], c[1] - y * c[3]
    cross_a = bx * cy - by * cx
    cross_b = cx * ay - cy * ax
    cross_c = ax * by - ay * bx
    facing = cross_a + cross_b + cross_c
    scale = 1.0 / facing if facing != 0.0 else 0.0
    weight_a = min(max(cross_a * scale, 0.0), 1.0)
    weight_b = min(max(cross_b * scale, 0.0), 1.0)
    weight_c = min(max(cross_c * scale, 0.0), 1.0)
    total = weight_a + weight_b + weight_c
    if total == 0.0:
        return 1.0, 0.0, 0.0, facing
    return weight_a / total, weight_b / total, weight_c / total, facing


@njit(nogil=True, cache=True)
def clip_vertex(clip_vertices, v):  # type: ignore[no-untyped-def]
    """Return a vertex of clip_vertices [V, 4] as four float64."""
    return (
        np.float64(clip_vertices[v, 0]),
        np.float64(clip_vertices[v, 1]),
        np.float64(clip_vertices[v, 2]),
        np.float64(clip_vertices[v, 3]),
    )


@njit(nogil=True, cache=True)
def fill_weights(ids, clip_vertices, triangles, image):  # type: ignore[no-untyped-def]
    """Fill image [H, W, 4] with (u, v, z/w, triangle number + 1) at covered pixels of ids [H, W]."""
    height, width = ids.shape
    for row in range(height):
        y = (2 * row + 1) / height - 1.0
        for column in range(width):
            number = ids[row, column]
            if number == 0:
                continue
            corners = triangles[number - 1]
            a = clip_vertex(clip_vertices, corners[0])
            b = clip_vertex(clip_vertices, corners[1])
            c = clip_vertex(clip_vertices, corners[2])
            u, v, rest, _ = perspective_weights(a, b, c, (2 * column + 1) / width - 1.0, y)
            z = u * a[2] + v * b[2] + rest * c[2]
            w = u * a[3] + v * b[3] + rest * c[3]
            image[row, column, 0] = u
            image[row, column, 1] = v
            image[row, column, 2] = min(max(z / w, -1.0), 1.0)
            image[row, column, 3] = number
