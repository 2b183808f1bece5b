"""What is computed at covered pixels, whatever rasterizer found them: weights, layer normals and depth.

Letters: H rows, W columns, V vertices, F faces.  Frame: clip space as in `rasterizers.protocol`.
All loops visit covered pixels only; dense float images are never made.
"""

import numpy as np
from numba import njit

from render.mlo import DEPTH_STEPS, NORMAL_STEPS, NORMAL_ZERO

SLACK = 1 / 16


@njit(nogil=True, cache=True)
def perspective_weights(a, b, c, x, y):  # type: ignore[no-untyped-def]
    """Return the weights (of a, b, c) and the facing (> 0: counter-clockwise in x, y) at the point (x, y).

    The triangle's point that is seen at (x, y) is Σ weight·vertex with Σ weight·(p − w·(x, y)) = 0 in each of
    the two picture axes: the weights are ratios of cross products of p − w·(x, y).
    A pixel on an edge that was snapped can lie a little outside: weights reach SLACK beyond [0, 1], no
    farther, which keeps planes exact and slivers bounded.
    """
    ax, ay = a[0] - x * a[3], a[1] - y * a[3]
    bx, by = b[0] - x * b[3], b[1] - y * b[3]
    cx, cy = c[0] - x * c[3], c[1] - y * c[3]
    cross_a = bx * cy - by * cx
    cross_b = cx * ay - cy * ax
    cross_c = ax * by - ay * bx
    facing = cross_a + cross_b + cross_c
    scale = 1.0 / facing if facing != 0.0 else 0.0
    weight_a = min(max(cross_a * scale, -SLACK), 1.0 + SLACK)
    weight_b = min(max(cross_b * scale, -SLACK), 1.0 + SLACK)
    weight_c = min(max(cross_c * scale, -SLACK), 1.0 + SLACK)
    total = weight_a + weight_b + weight_c
    if facing == 0.0:
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


@njit(nogil=True, cache=True)
def shade_layer(  # type: ignore[no-untyped-def]
    ids, clip_vertices, triangles, normals, against_normals, depth_range, normal_codes, depth_codes
):
    """Write the codes of `mlo` at covered pixels: normals [H, W, 3] and depth [H, W].

    normals [V, 3] are camera-space and interpolated, then turned to the side from which the surface is seen.
    against_normals [F] is of one frame's faces, repeated in triangles [B·F, 3]; depth_range is (near, far).
    """
    height, width = ids.shape
    near = depth_range[0]
    codes_a_metre = DEPTH_STEPS / (depth_range[1] - near)
    for row in range(height):
        y = (2 * row + 1) / height - 1.0
        for column in range(width):
            number = ids[row, column]
            if number == 0:
                continue
            i, j, k = triangles[number - 1, 0], triangles[number - 1, 1], triangles[number - 1, 2]
            a, b, c = (
                clip_vertex(clip_vertices, i),
                clip_vertex(clip_vertices, j),
                clip_vertex(clip_vertices, k),
            )
            x = (2 * column + 1) / width - 1.0
            u, v, rest, facing = perspective_weights(a, b, c, x, y)
            depth_m = u * a[3] + v * b[3] + rest * c[3]
            code = 1.0 + np.floor((depth_m - near) * codes_a_metre + 0.5)
            depth_codes[row, column] = np.uint16(min(max(code, 1.0), 1.0 + DEPTH_STEPS))
            # In a picture whose rows go down, counter-clockwise (facing > 0) is a surface's back.
            turn = -1.0 if (facing > 0.0) != against_normals[(number - 1) % len(against_normals)] else 1.0
            normal_x = u * normals[i, 0] + v * normals[j, 0] + rest * normals[k, 0]
            normal_y = u * normals[i, 1] + v * normals[j, 1] + rest * normals[k, 1]
            normal_z = u * normals[i, 2] + v * normals[j, 2] + rest * normals[k, 2]
            length = np.sqrt(normal_x * normal_x + normal_y * normal_y + normal_z * normal_z)
            if not length > 0.0:  # opposite normals cancel: as seen head-on
                normal_x, normal_y, normal_z, length, turn = 0.0, 0.0, -1.0, 1.0, 1.0
            scale = turn * NORMAL_STEPS / length
            normal_codes[row, column, 0] = np.uint8(np.floor(normal_x * scale + 0.5) + NORMAL_ZERO)
            normal_codes[row, column, 1] = np.uint8(np.floor(normal_y * scale + 0.5) + NORMAL_ZERO)
            normal_codes[row, column, 2] = np.uint8(np.floor(normal_z * scale + 0.5) + NORMAL_ZERO)
