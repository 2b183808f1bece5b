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
def clip_vertex(clip_vertices, v):  # type: ignore[no-untyped-def]
    """Return a vertex of clip_vertices [V, 4] as four float64."""
    return (
        np.float64(clip_vertices[v, 0]),
        np.float64(clip_vertices[v, 1]),
        np.float64(clip_vertices[v, 2]),
        np.float64(clip_vertices[v, 3]),
    )


@njit(nogil=True, cache=True)
def _plane(p, q):  # type: ignore[no-untyped-def]
    """Return (at the centre, per x, per y) of the cross product of p − w·(x, y) and q − w·(x, y).

    For clip-space p and q it is linear in x and y: the terms in x·y cancel.
    """
    return p[0] * q[1] - p[1] * q[0], p[1] * q[3] - p[3] * q[1], p[3] * q[0] - p[0] * q[3]


@njit(nogil=True, cache=True)
def _planes(clip_vertices, i, j, k):  # type: ignore[no-untyped-def]
    """Return the planes of the cross products that belong to the corners of triangle (i, j, k)."""
    a, b, c = clip_vertex(clip_vertices, i), clip_vertex(clip_vertices, j), clip_vertex(clip_vertices, k)
    return _plane(b, c), _plane(c, a), _plane(a, b)


@njit(nogil=True, cache=True)
def _clamped(weight):  # type: ignore[no-untyped-def]
    return min(max(weight, -SLACK), 1.0 + SLACK)


@njit(nogil=True, cache=True, error_model="numpy")
def perspective_weights(planes, x, y):  # type: ignore[no-untyped-def]
    """Return the weights of a triangle's corners and its facing at the point (x, y); planes as of `_planes`.

    Facing is positive where the corners are counter-clockwise in x and y, which in a picture whose rows go
    down is the back of a triangle that is counter-clockwise in space.

    The triangle's point that is seen at (x, y) is Σ weight·vertex with Σ weight·(p − w·(x, y)) = 0 in each of
    the two picture axes: the weights are ratios of cross products of p − w·(x, y).
    A pixel on an edge that was snapped can lie a little outside: weights reach SLACK beyond [0, 1], no
    farther, which keeps planes exact and slivers bounded.
    """
    of_a, of_b, of_c = planes
    cross_a = of_a[0] + x * of_a[1] + y * of_a[2]
    cross_b = of_b[0] + x * of_b[1] + y * of_b[2]
    cross_c = of_c[0] + x * of_c[1] + y * of_c[2]
    facing = cross_a + cross_b + cross_c
    if facing == 0.0:
        return 1.0, 0.0, 0.0, facing
    scale = 1.0 / facing
    weight_a, weight_b, weight_c = cross_a * scale, cross_b * scale, cross_c * scale
    if min(weight_a, weight_b, weight_c) < -SLACK or max(weight_a, weight_b, weight_c) > 1.0 + SLACK:
        weight_a, weight_b, weight_c = _clamped(weight_a), _clamped(weight_b), _clamped(weight_c)
        per_total = 1.0 / (weight_a + weight_b + weight_c)
        return weight_a * per_total, weight_b * per_total, weight_c * per_total, facing
    return weight_a, weight_b, weight_c, facing


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
            i, j, k = triangles[number - 1]
            planes = _planes(clip_vertices, i, j, k)
            u, v, rest, _ = perspective_weights(planes, (2 * column + 1) / width - 1.0, y)
            z = u * clip_vertices[i, 2] + v * clip_vertices[j, 2] + rest * clip_vertices[k, 2]
            w = u * clip_vertices[i, 3] + v * clip_vertices[j, 3] + rest * clip_vertices[k, 3]
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
def _is_empty(row):  # type: ignore[no-untyped-def]
    """Return whether a row of ids [W] is all 0, in a loop that compiles to vector instructions."""
    any_bits = 0
    for column in range(len(row)):
        any_bits |= row[column]
    return any_bits == 0


@njit(nogil=True, cache=True)
def _normal_code(component):  # type: ignore[no-untyped-def]
    return np.uint8(np.floor(component * NORMAL_STEPS + 0.5) + NORMAL_ZERO)


@njit(nogil=True, cache=True, error_model="numpy")
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
    number = 0
    for row in range(height):
        if _is_empty(ids[row]):
            continue
        y = (2 * row + 1) / height - 1.0
        for column in range(width):
            if ids[row, column] == 0:
                continue
            if ids[row, column] != number:  # else it is the triangle of the pixel before
                number = ids[row, column]
                face = number - 1 - first_face
                i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
                planes = _planes(clip_vertices, i, j, k)
            u, v, rest, facing = perspective_weights(planes, (2 * column + 1) / width - 1.0, y)
            depth_m = u * clip_vertices[i, 3] + v * clip_vertices[j, 3] + rest * clip_vertices[k, 3]
            code = 1.0 + np.floor((depth_m - near) * codes_a_metre + 0.5)
            depth_codes[row, column] = np.uint16(min(max(code, 1.0), 1.0 + DEPTH_STEPS))
            normal = _seen_normal(normals, (i, j, k), (u, v, rest), (facing > 0.0) != against_normals[face])
            normal_codes[row, column, 0] = _normal_code(normal[0])
            normal_codes[row, column, 1] = _normal_code(normal[1])
            normal_codes[row, column, 2] = _normal_code(normal[2])


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
            planes = _planes(clip_vertices, faces[face, 0], faces[face, 1], faces[face, 2])
            u, v, rest, facing = perspective_weights(planes, (2 * column + 1) / width - 1.0, y)
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
        of_a, of_b, of_c = _planes(clip_vertices, i, j, k)
        x = (2 * pixels[n, 1] + 1) / resolution[1] - 1.0
        y = (2 * pixels[n, 0] + 1) / resolution[0] - 1.0
        facing = (
            of_a[0]
            + of_b[0]
            + of_c[0]
            + x * (of_a[1] + of_b[1] + of_c[1])
            + y * (of_a[2] + of_b[2] + of_c[2])
        )
        column_scale, row_scale = 2.0 / resolution[1], 2.0 / resolution[0]
        if facing != 0.0:
            column_scale, row_scale = column_scale / facing, row_scale / facing
        for axis in range(2):
            at_a, at_b, at_c = uvs[i, axis], uvs[j, axis], uvs[k, axis]
            value = weights[n, 0] * at_a + weights[n, 1] * at_b + weights[n, 2] * at_c
            coordinates[n, axis] = value
            coordinates[n, 2 + axis] = column_scale * (
                (at_a - value) * of_a[1] + (at_b - value) * of_b[1] + (at_c - value) * of_c[1]
            )
            coordinates[n, 4 + axis] = row_scale * (
                (at_a - value) * of_a[2] + (at_b - value) * of_b[2] + (at_c - value) * of_c[2]
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
