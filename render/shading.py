"""What is computed at covered pixels, whatever rasterizer found them: weights, layer codes, textured colour.

Letters: H rows, W columns, V vertices, F faces.  Frame: clip space as in `rasterizers.protocol`.
Loops visit covered pixels only. The kernels stay in one file: numba's cache does not notice
a change in a function that a kernel calls from another one.
"""

import numpy as np
from numba import njit

from render.mlo import DEPTH_STEPS, NORMAL_STEPS, NORMAL_ZERO

SLACK = 1 / 16
OPAQUE = 0.999  # coverage from which on nothing shines through
SHININESS = 32  # exponent of highlights


@njit(nogil=True, cache=True)
def _cross(p, q, x, y):  # type: ignore[no-untyped-def]
    """Return the cross product of p − w·(x, y) and q − w·(x, y) for clip-space p and q."""
    return (p[0] - x * p[3]) * (q[1] - y * q[3]) - (p[1] - y * p[3]) * (q[0] - x * q[3])


@njit(nogil=True, cache=True)
def perspective_weights(a, b, c, x, y):  # type: ignore[no-untyped-def]
    """Return the weights (of a, b, c) and the facing at the point (x, y).

    Facing is positive where the corners are counter-clockwise in x and y, which in a picture whose rows go
    down is the back of a triangle that is counter-clockwise in space.

    The triangle's point that is seen at (x, y) is Σ weight·vertex with Σ weight·(p − w·(x, y)) = 0 in each of
    the two picture axes: the weights are ratios of cross products of p − w·(x, y).
    A pixel on an edge that was snapped can lie a little outside: weights reach SLACK beyond [0, 1], no
    farther, which keeps planes exact and slivers bounded.
    """
    cross_a, cross_b, cross_c = _cross(b, c, x, y), _cross(c, a, x, y), _cross(a, b, x, y)
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
def _seen_normal(normals, corners, weights, turned):  # type: ignore[no-untyped-def]
    """Return the interpolated unit normal, turned where the surface is seen from the other side."""
    i, j, k = corners
    u, v, rest = weights
    x = u * normals[i, 0] + v * normals[j, 0] + rest * normals[k, 0]
    y = u * normals[i, 1] + v * normals[j, 1] + rest * normals[k, 1]
    z = u * normals[i, 2] + v * normals[j, 2] + rest * normals[k, 2]
    length = np.sqrt(x * x + y * y + z * z)
    if not length > 0.0:  # opposite normals cancel: as seen head-on
        return 0.0, 0.0, -1.0
    scale = -1.0 / length if turned else 1.0 / length
    return x * scale, y * scale, z * scale


@njit(nogil=True, cache=True)
def shade_layer(  # type: ignore[no-untyped-def]
    ids, first_face, clip_vertices, normals, faces, against_normals, depth_range, normal_codes, depth_codes
):
    """Write the codes of `mlo` at covered pixels: normals [H, W, 3] and depth [H, W].

    ids [H, W] are triangle numbers + 1, from first_face on those of faces [F, 3]; clip_vertices [V, 4] and
    camera-space normals [V, 3] are of one frame; depth_range is (near, far).
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
            face = number - 1 - first_face
            i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
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
            normal = _seen_normal(normals, (i, j, k), (u, v, rest), (facing > 0.0) != against_normals[face])
            normal_codes[row, column, 0] = np.uint8(np.floor(normal[0] * NORMAL_STEPS + 0.5) + NORMAL_ZERO)
            normal_codes[row, column, 1] = np.uint8(np.floor(normal[1] * NORMAL_STEPS + 0.5) + NORMAL_ZERO)
            normal_codes[row, column, 2] = np.uint8(np.floor(normal[2] * NORMAL_STEPS + 0.5) + NORMAL_ZERO)


@njit(nogil=True, cache=True)
def find_fragments(ids, first_face, clip_vertices, faces, canvas):  # type: ignore[no-untyped-def]
    """Return n fragments: pixels covered in ids [H, W] and not yet opaque in canvas [H, W, 4].

    pixels [n, 2] (row, column), faces hit [n], weights [n, 3] and backs [n], whether the back is seen.
    """
    height, width = ids.shape
    count = 0
    for row in range(height):
        for column in range(width):
            count += ids[row, column] > 0 and canvas[row, column, 3] < OPAQUE
    pixels, hit = np.empty((count, 2), np.int32), np.empty(count, np.int32)
    weights, backs = np.empty((count, 3), np.float32), np.empty(count, np.bool_)
    n = 0
    for row in range(height):
        y = (2 * row + 1) / height - 1.0
        for column in range(width):
            number = ids[row, column]
            if number == 0 or canvas[row, column, 3] >= OPAQUE:
                continue
            face = number - 1 - first_face
            a = clip_vertex(clip_vertices, faces[face, 0])
            b = clip_vertex(clip_vertices, faces[face, 1])
            c = clip_vertex(clip_vertices, faces[face, 2])
            u, v, rest, facing = perspective_weights(a, b, c, (2 * column + 1) / width - 1.0, y)
            pixels[n, 0], pixels[n, 1], hit[n] = row, column, face
            weights[n, 0], weights[n, 1], weights[n, 2] = u, v, rest
            backs[n] = facing > 0.0
            n += 1
    return pixels, hit, weights, backs


@njit(nogil=True, cache=True)
def texture_coordinates(pixels, hit, weights, clip_vertices, faces, uvs, resolution):  # type: ignore[no-untyped-def]
    """Return (u, v) and its change to the next column and row, [n, 6], at fragments of a picture (H, W).

    A weight is w_i = c_i / Σ c, where each cross product c_i is linear in x and y; its slopes follow.
    """
    coordinates = np.empty((len(hit), 6), np.float32)
    for n in range(len(hit)):
        i, j, k = faces[hit[n], 0], faces[hit[n], 1], faces[hit[n], 2]
        a, b, c = clip_vertex(clip_vertices, i), clip_vertex(clip_vertices, j), clip_vertex(clip_vertices, k)
        x = (2 * pixels[n, 1] + 1) / resolution[1] - 1.0
        y = (2 * pixels[n, 0] + 1) / resolution[0] - 1.0
        facing = _cross(b, c, x, y) + _cross(c, a, x, y) + _cross(a, b, x, y)
        column_scale, row_scale = 2.0 / resolution[1], 2.0 / resolution[0]
        if facing != 0.0:
            column_scale, row_scale = column_scale / facing, row_scale / facing
        for axis in range(2):
            at_a, at_b, at_c = uvs[i, axis], uvs[j, axis], uvs[k, axis]
            value = weights[n, 0] * at_a + weights[n, 1] * at_b + weights[n, 2] * at_c
            coordinates[n, axis] = value
            coordinates[n, 2 + axis] = column_scale * (
                (at_a - value) * (b[1] * c[3] - b[3] * c[1])
                + (at_b - value) * (c[1] * a[3] - c[3] * a[1])
                + (at_c - value) * (a[1] * b[3] - a[3] * b[1])
            )
            coordinates[n, 4 + axis] = row_scale * (
                (at_a - value) * (b[3] * c[0] - b[0] * c[3])
                + (at_b - value) * (c[3] * a[0] - c[0] * a[3])
                + (at_c - value) * (a[3] * b[0] - a[0] * b[3])
            )
    return coordinates


@njit(nogil=True, cache=True)
def multiply_vertex_colors(hit, weights, faces, colors, rgba):  # type: ignore[no-untyped-def]
    """Multiply rgba [n, 4] by the interpolated vertex colours [V, 4]."""
    for n in range(len(hit)):
        i, j, k = faces[hit[n], 0], faces[hit[n], 1], faces[hit[n], 2]
        for channel in range(4):
            rgba[n, channel] *= (
                weights[n, 0] * colors[i, channel]
                + weights[n, 1] * colors[j, channel]
                + weights[n, 2] * colors[k, channel]
            )


@njit(nogil=True, cache=True)
def fragment_normals(hit, weights, backs, faces, normals, against_normals):  # type: ignore[no-untyped-def]
    """Return the unit normals [n, 3] of fragments, turned to the side from which they are seen."""
    seen = np.empty((len(hit), 3), np.float32)
    for n in range(len(hit)):
        face = hit[n]
        seen[n] = _seen_normal(
            normals,
            (faces[face, 0], faces[face, 1], faces[face, 2]),
            (weights[n, 0], weights[n, 1], weights[n, 2]),
            backs[n] != against_normals[face],
        )
    return seen


@njit(nogil=True, cache=True)
def light_fragments(  # type: ignore[no-untyped-def]
    rgba, normals, lit, sky, ground, up, towards, halfway, colors, specular
):
    """Turn base colours rgba [n, 4] into the light that reaches the viewer, see `lighting.Lights`.

    normals [n, 3]; lit [n] is how much of the first directional light arrives.
    """
    for n in range(len(rgba)):
        normal = normals[n, 0], normals[n, 1], normals[n, 2]
        upward = 0.5 + 0.5 * _dot(normal, up)
        red = rgba[n, 0] * (ground[0] + upward * (sky[0] - ground[0]))
        green = rgba[n, 1] * (ground[1] + upward * (sky[1] - ground[1]))
        blue = rgba[n, 2] * (ground[2] + upward * (sky[2] - ground[2]))
        for k in range(len(towards)):
            lambert = _dot(normal, towards[k])
            if lambert > 0.0:
                arriving = lit[n] if k == 0 else 1.0
                highlight = specular * max(_dot(normal, halfway[k]), 0.0) ** SHININESS
                red += arriving * colors[k, 0] * (rgba[n, 0] * lambert + highlight)
                green += arriving * colors[k, 1] * (rgba[n, 1] * lambert + highlight)
                blue += arriving * colors[k, 2] * (rgba[n, 2] * lambert + highlight)
        rgba[n, 0], rgba[n, 1], rgba[n, 2] = red, green, blue


@njit(nogil=True, cache=True)
def _dot(normal, direction):  # type: ignore[no-untyped-def]
    return normal[0] * direction[0] + normal[1] * direction[1] + normal[2] * direction[2]


@njit(nogil=True, cache=True)
def put_behind(pixels, rgba, canvas):  # type: ignore[no-untyped-def]
    """Put fragments behind what canvas [H, W, 4] (linear colour × coverage, coverage) holds.

    Return how many let through what is behind them.
    """
    see_through = 0
    for n in range(len(pixels)):
        row, column = pixels[n]
        share = min(max(rgba[n, 3], 0.0), 1.0) * (1.0 - canvas[row, column, 3])
        for channel in range(3):
            canvas[row, column, channel] += share * min(rgba[n, channel], 1.0)
        canvas[row, column, 3] += share
        see_through += canvas[row, column, 3] < OPAQUE
    return see_through
