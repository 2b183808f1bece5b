"""What is computed at covered pixels, whatever rasterizer found them: weights, layer codes, fragments.

Letters: B frames, L layers, H rows, W columns, V vertices, F faces, P pixels.  Frame: clip space as in
`rasterizers.protocol`.
Loops visit covered pixels only. The kernels stay in one file: numba's cache does not notice
a change in a function that a kernel calls from another one.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from render.mlo import DEPTH_STEPS, NORMAL_STEPS, NORMAL_ZERO

SLACK = 1 / 16
OPAQUE = 0.999  # coverage from which on nothing shines through


class PosedLayers(NamedTuple):
    """Some frames of surfaces of which each layer is a range of faces, the same in every frame."""

    clip_vertices: NDArray[np.float32]  # [B, V, 4]
    normals: NDArray[np.float32]  # [B, V, 3] camera space
    faces: NDArray[np.int32]  # [F, 3]
    against_normals: NDArray[np.bool_]  # [F] winding and vertex normals point to opposite sides
    ranges: NDArray[np.int32]  # [L, 2] first face and how many


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


@njit(nogil=True, cache=True, error_model="numpy")
def _normal_code(steps):  # type: ignore[no-untyped-def]
    """Return the code of a component, -NORMAL_STEPS … NORMAL_STEPS, rounded."""
    return np.uint8(np.int32(steps + (NORMAL_ZERO + 0.5)))


@njit(nogil=True, cache=True)
def _depth_code(depth_m, near, codes_a_metre):  # type: ignore[no-untyped-def]
    code = np.floor((depth_m - near) * codes_a_metre + 1.5)
    return np.uint16(min(max(code, 1.0), 1.0 + DEPTH_STEPS))


@njit(nogil=True, cache=True)
def _within_slack(cross_a, cross_b, cross_c):  # type: ignore[no-untyped-def]
    """Return whether weights, which are as these cross products, need no clamp; without a branch."""
    facing = cross_a + cross_b + cross_c
    sign = 1.0 if facing > 0.0 else -1.0
    least, most = -SLACK * sign * facing, (1.0 + SLACK) * sign * facing
    above = (sign * cross_a >= least) & (sign * cross_b >= least) & (sign * cross_c >= least)
    below = (sign * cross_a <= most) & (sign * cross_b <= most) & (sign * cross_c <= most)
    return above & below & (facing != 0.0)


@njit(nogil=True, cache=True)
def _mixed(cross, per_x, normals, corners, axis):  # type: ignore[no-untyped-def]
    """Return (at x = 0, per x) of a component of the interpolated normal times the facing."""
    at_a = np.float64(normals[corners[0], axis])
    at_b = np.float64(normals[corners[1], axis])
    at_c = np.float64(normals[corners[2], axis])
    return (
        cross[0] * at_a + cross[1] * at_b + cross[2] * at_c,
        per_x[0] * at_a + per_x[1] * at_b + per_x[2] * at_c,
    )


@njit(nogil=True, cache=True, error_model="numpy")
def shade_layer(  # type: ignore[no-untyped-def]
    ids, box, clip_vertices, normals, faces, against_normals, depth_range, normal_codes, depth_codes
):
    """Write the codes of `mlo` at covered pixels: normals [H, W, 3] and depth [H, W].

    ids [H, W] are numbers + 1 of faces [F, 3]; only those in the box (first row, last + 1, first column,
    last + 1) are looked at. clip_vertices [V, 4] and camera-space normals [V, 3] are of one frame;
    depth_range is (near, far).
    """
    height, width = ids.shape
    scale = depth_range[0], DEPTH_STEPS / (depth_range[1] - depth_range[0])
    left_out = np.zeros(height, np.bool_)  # rows that have slivers
    for row in range(box[0], box[1]):
        y = (2 * row + 1) / height - 1.0
        line, row_normals, row_depth = (
            ids[row],
            normal_codes[row],
            depth_codes[row],
        )  # a view a run would be slow
        stop = box[2]
        while stop < box[3]:
            column, number = stop, line[stop]
            stop += 1
            while stop < box[3] and line[stop] == number:
                stop += 1
            if number == 0:
                continue
            face = np.uint64(number - 1)
            corners = np.uint64(faces[face, 0]), np.uint64(faces[face, 1]), np.uint64(faces[face, 2])
            run = column, stop, width, y
            left_out[row] |= not _shade_run(
                run, clip_vertices, normals, corners, against_normals[face], scale, row_normals, row_depth
            )
    for row in np.flatnonzero(left_out):
        for column in range(box[2], box[3]):
            if ids[row, column] > 0 and depth_codes[row, column] == 0:
                _shade_pixel(
                    row,
                    column,
                    ids,
                    clip_vertices,
                    normals,
                    faces,
                    against_normals,
                    scale,
                    normal_codes,
                    depth_codes,
                )


@njit(nogil=True, cache=True, error_model="numpy", inline="always")  # a call with so many arrays is slow
def _shade_run(run, clip_vertices, normals, corners, against, scale, normal_codes, depth_codes):  # type: ignore[no-untyped-def]
    """Shade the run (first column, last + 1, of how many, y) of one triangle in one row.

    Return whether that was done: not where weights must be clamped, which shows at the ends of the run.
    Depth is Σ cross·w / Σ cross, whose numerator does not change along the row; the normal's direction is
    Σ cross·normal, linear along it.
    """
    first, stop, width, y = run
    ax, ay, _, aw = clip_vertex(clip_vertices, corners[0])
    bx, by, _, bw = clip_vertex(clip_vertices, corners[1])
    cx, cy, _, cw = clip_vertex(clip_vertices, corners[2])
    ay, by, cy = ay - aw * y, by - bw * y, cy - cw * y
    cross = bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx
    per_x = by * cw - bw * cy, cy * aw - cw * ay, ay * bw - aw * by
    facing, facing_x = cross[0] + cross[1] + cross[2], per_x[0] + per_x[1] + per_x[2]
    x_first, step = 1.0 / width - 1.0, 2.0 / width
    x, x_end = x_first + step * first, x_first + step * (stop - 1)
    if not (
        _within_slack(cross[0] + per_x[0] * x, cross[1] + per_x[1] * x, cross[2] + per_x[2] * x)
        & _within_slack(cross[0] + per_x[0] * x_end, cross[1] + per_x[1] * x_end, cross[2] + per_x[2] * x_end)
        & ((facing + facing_x * x > 0.0) == (facing + facing_x * x_end > 0.0))
    ):
        return False
    weighted_depth = cross[0] * aw + cross[1] * bw + cross[2] * cw
    normal_x, normal_x_x = _mixed(cross, per_x, normals, corners, 0)
    normal_y, normal_y_x = _mixed(cross, per_x, normals, corners, 1)
    normal_z, normal_z_x = _mixed(cross, per_x, normals, corners, 2)
    steps = float(NORMAL_STEPS) if against else -float(NORMAL_STEPS)
    for column in range(first, stop):
        x = x_first + step * column
        depth_codes[column] = _depth_code(weighted_depth / (facing + facing_x * x), scale[0], scale[1])
        seen_x, seen_y, seen_z = (
            normal_x + normal_x_x * x,
            normal_y + normal_y_x * x,
            normal_z + normal_z_x * x,
        )
        length2 = seen_x * seen_x + seen_y * seen_y + seen_z * seen_z
        if length2 == 0.0:  # opposite normals cancel: as seen head-on
            seen_z, length2 = -steps, steps * steps
        per_length = steps / np.sqrt(length2)
        normal_codes[column, 0] = _normal_code(seen_x * per_length)
        normal_codes[column, 1] = _normal_code(seen_y * per_length)
        normal_codes[column, 2] = _normal_code(seen_z * per_length)
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _shade_pixel(  # type: ignore[no-untyped-def]
    row, column, ids, clip_vertices, normals, faces, against_normals, scale, normal_codes, depth_codes
):
    """Shade a pixel by clamped weights."""
    height, width = ids.shape
    face = ids[row, column] - 1
    i, j, k = faces[face, 0], faces[face, 1], faces[face, 2]
    x, y = (2 * column + 1) / width - 1.0, (2 * row + 1) / height - 1.0
    u, v, rest, facing = perspective_weights(_planes(clip_vertices, i, j, k), x, y)
    depth_m = u * clip_vertices[i, 3] + v * clip_vertices[j, 3] + rest * clip_vertices[k, 3]
    depth_codes[row, column] = _depth_code(depth_m, scale[0], scale[1])
    normal = _seen_normal(normals, (i, j, k), (u, v, rest), (facing > 0.0) != against_normals[face])
    for axis in range(3):
        normal_codes[row, column, axis] = _normal_code(NORMAL_STEPS * normal[axis])


@njit(nogil=True, cache=True)
def scatter_codes(places, normals, depth, images, normal_codes, depth_codes):  # type: ignore[no-untyped-def]
    """Put codes [P] and [P, 3] into all images' normals [N, H·W, 3] and depth [N, H·W].

    places [P] count the pixels of some images, whose numbers are images [n].
    """
    num_pixels = depth_codes.shape[1]
    for p in range(len(places)):
        image, pixel = images[places[p] // num_pixels], places[p] % num_pixels
        depth_codes[image, pixel] = depth[p]
        for axis in range(3):
            normal_codes[image, pixel, axis] = normals[p, axis]


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
    n, face = 0, -1
    for row in range(height):
        y = (2 * row + 1) / height - 1.0
        for column in range(width):
            if ids[row, column] == 0 or canvas[row, column, 3] >= OPAQUE:
                continue
            if ids[row, column] - 1 - first_face != face:  # else it is the triangle of the fragment before
                face = ids[row, column] - 1 - first_face
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
