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
def _crosses(a, b, c, x, y):  # type: ignore[no-untyped-def]
    """Return the cross products of p − w·(x, y) opposite to a, b and c."""
    ax, ay = a[0] - x * a[3], a[1] - y * a[3]
    bx, by = b[0] - x * b[3], b[1] - y * b[3]
    cx, cy = c[0] - x * c[3], c[1] - y * c[3]
    return bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx


@njit(nogil=True, cache=True)
def perspective_weights(a, b, c, x, y):  # type: ignore[no-untyped-def]
    """Return the weights (of a, b, c) and the facing (> 0: counter-clockwise in x, y) at the point (x, y).

    The triangle's point that is seen at (x, y) is Σ weight·vertex with Σ weight·(p − w·(x, y)) = 0 in each of
    the two picture axes: the weights are ratios of cross products of p − w·(x, y).
    A pixel on an edge that was snapped can lie a little outside: weights reach SLACK beyond [0, 1], no
    farther, which keeps planes exact and slivers bounded.
    """
    cross_a, cross_b, cross_c = _crosses(a, b, c, x, y)
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
def _seen_normal(normals, i, j, k, weights, facing, against_normals):  # type: ignore[no-untyped-def]
    """Return the interpolated unit normal, turned to the side from which the surface is seen."""
    u, v, rest = weights
    x = u * normals[i, 0] + v * normals[j, 0] + rest * normals[k, 0]
    y = u * normals[i, 1] + v * normals[j, 1] + rest * normals[k, 1]
    z = u * normals[i, 2] + v * normals[j, 2] + rest * normals[k, 2]
    length = np.sqrt(x * x + y * y + z * z)
    if not length > 0.0:  # opposite normals cancel: as seen head-on
        return 0.0, 0.0, -1.0
    # In a picture whose rows go down, counter-clockwise (facing > 0) is a surface's back.
    scale = -1.0 / length if (facing > 0.0) != against_normals else 1.0 / length
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
            normal = _seen_normal(normals, i, j, k, (u, v, rest), facing, against_normals[face])
            normal_codes[row, column, 0] = np.uint8(np.floor(normal[0] * NORMAL_STEPS + 0.5) + NORMAL_ZERO)
            normal_codes[row, column, 1] = np.uint8(np.floor(normal[1] * NORMAL_STEPS + 0.5) + NORMAL_ZERO)
            normal_codes[row, column, 2] = np.uint8(np.floor(normal[2] * NORMAL_STEPS + 0.5) + NORMAL_ZERO)


@njit(nogil=True, cache=True)
def _wrap(coordinate, mode):  # type: ignore[no-untyped-def]
    """Bring a texture coordinate into [0, 1]; modes are repeat, clamp and mirror."""
    if not np.isfinite(coordinate):
        return 0.0
    if mode == 0:
        return coordinate - np.floor(coordinate)
    if mode == 1:
        return min(max(coordinate, 0.0), 1.0)
    folded = coordinate - 2.0 * np.floor(0.5 * coordinate)
    return 2.0 - folded if folded > 1.0 else folded


@njit(nogil=True, cache=True)
def _texel(atlas, texture, level, column, row):  # type: ignore[no-untyped-def]
    """Return one texel as linear (r, g, b, alpha); neighbours beyond the border wrap or are held."""
    first, width, height = atlas.levels[texture, level]
    if atlas.wraps[texture, 0] == 0:
        column %= width
    if atlas.wraps[texture, 1] == 0:
        row %= height
    column, row = min(max(column, 0), width - 1), min(max(row, 0), height - 1)
    t = first + row * width + column
    r, g, b = atlas.texels[t, 0], atlas.texels[t, 1], atlas.texels[t, 2]
    return atlas.linear[r], atlas.linear[g], atlas.linear[b], atlas.texels[t, 3] / np.float32(255.0)


@njit(nogil=True, cache=True)
def _sample_level(atlas, texture, level, u, v, nearest):  # type: ignore[no-untyped-def]
    """Return a bilinear (or nearest) sample of one mip level at wrapped (u, v)."""
    shrink = 1.0 / (1 << level)
    x = u * atlas.levels[texture, 0, 1] * shrink
    y = v * atlas.levels[texture, 0, 2] * shrink
    if nearest:
        return _texel(atlas, texture, level, int(np.floor(x)), int(np.floor(y)))
    column, row = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    right, down = np.float32(x - 0.5 - column), np.float32(y - 0.5 - row)
    top = _mix(
        _texel(atlas, texture, level, column, row), _texel(atlas, texture, level, column + 1, row), right
    )
    bottom = _mix(
        _texel(atlas, texture, level, column, row + 1),
        _texel(atlas, texture, level, column + 1, row + 1),
        right,
    )
    return _mix(top, bottom, down)


@njit(nogil=True, cache=True)
def _mix(a, b, share):  # type: ignore[no-untyped-def]
    return (
        a[0] + share * (b[0] - a[0]),
        a[1] + share * (b[1] - a[1]),
        a[2] + share * (b[2] - a[2]),
        a[3] + share * (b[3] - a[3]),
    )


@njit(nogil=True, cache=True)
def sample_texture(atlas, texture, uv, right, down):  # type: ignore[no-untyped-def]
    """Return linear (r, g, b, alpha) at uv, trilinear over mip levels.

    right and down are the change of uv from one pixel to the next.
    """
    width, height = atlas.levels[texture, 0, 1], atlas.levels[texture, 0, 2]
    across = (right[0] * width) ** 2 + (right[1] * height) ** 2
    along = (down[0] * width) ** 2 + (down[1] * height) ** 2
    footprint2 = max(across, along)  # of a pixel, in texels, squared
    u, v = _wrap(uv[0], atlas.wraps[texture, 0]), _wrap(uv[1], atlas.wraps[texture, 1])
    if not footprint2 > 1.0:
        return _sample_level(atlas, texture, 0, u, v, atlas.nearest[texture])
    last = atlas.num_levels[texture] - 1
    depth = min(0.5 * np.log2(footprint2), float(last))
    level = int(depth)
    finer = _sample_level(atlas, texture, level, u, v, False)
    if level == last:
        return finer
    coarser = _sample_level(atlas, texture, level + 1, u, v, False)
    return _mix(finer, coarser, np.float32(depth - level))


@njit(nogil=True, cache=True)
def _uv_at(corners, x, y, uvs, vertices):  # type: ignore[no-untyped-def]
    """Return the texture coordinate of the triangle's plane at (x, y), be it inside or beyond its edges."""
    cross_a, cross_b, cross_c = _crosses(corners[0], corners[1], corners[2], x, y)
    facing = cross_a + cross_b + cross_c
    i, j, k = vertices
    if facing == 0.0:
        return np.float64(uvs[i, 0]), np.float64(uvs[i, 1])
    return (
        (cross_a * uvs[i, 0] + cross_b * uvs[j, 0] + cross_c * uvs[k, 0]) / facing,
        (cross_a * uvs[i, 1] + cross_b * uvs[j, 1] + cross_c * uvs[k, 1]) / facing,
    )


@njit(nogil=True, cache=True)
def _textured(atlas, texture, uvs, vertices, corners, weights, pixel):  # type: ignore[no-untyped-def]
    """Return linear (r, g, b, alpha) of a texture at a pixel (x, y, width, height); white without one."""
    if texture < 0:
        return np.float32(1), np.float32(1), np.float32(1), np.float32(1)
    i, j, k = vertices
    u, v, rest = weights
    uv = (
        u * uvs[i, 0] + v * uvs[j, 0] + rest * uvs[k, 0],
        u * uvs[i, 1] + v * uvs[j, 1] + rest * uvs[k, 1],
    )
    here = _uv_at(corners, pixel[0], pixel[1], uvs, vertices)
    right = _uv_at(corners, pixel[0] + pixel[2], pixel[1], uvs, vertices)
    down = _uv_at(corners, pixel[0], pixel[1] + pixel[3], uvs, vertices)
    return sample_texture(
        atlas, texture, uv, (right[0] - here[0], right[1] - here[1]), (down[0] - here[0], down[1] - here[1])
    )


@njit(nogil=True, cache=True)
def _light(normal, albedo, lights):  # type: ignore[no-untyped-def]
    """Return the light that a surface of this unit normal and albedo sends to the viewer."""
    up = 0.5 + 0.5 * (normal[0] * lights.up[0] + normal[1] * lights.up[1] + normal[2] * lights.up[2])
    red = albedo[0] * (lights.ground[0] + up * (lights.sky[0] - lights.ground[0]))
    green = albedo[1] * (lights.ground[1] + up * (lights.sky[1] - lights.ground[1]))
    blue = albedo[2] * (lights.ground[2] + up * (lights.sky[2] - lights.ground[2]))
    for n in range(len(lights.towards)):
        towards, halfway, color = lights.towards[n], lights.halfway[n], lights.colors[n]
        lambert = normal[0] * towards[0] + normal[1] * towards[1] + normal[2] * towards[2]
        if lambert <= 0.0:
            continue
        gloss = max(normal[0] * halfway[0] + normal[1] * halfway[1] + normal[2] * halfway[2], 0.0)
        highlight = lights.specular * gloss**SHININESS
        red += color[0] * (albedo[0] * lambert + highlight)
        green += color[1] * (albedo[1] * lambert + highlight)
        blue += color[2] * (albedo[2] * lambert + highlight)
    return red, green, blue


@njit(nogil=True, cache=True)
def shade_textured(  # type: ignore[no-untyped-def]
    ids, first_face, clip_vertices, normals, surfaces, lights, canvas
):
    """Put fragments behind what canvas [H, W, 4] (linear colour × coverage, coverage) holds.

    ids [H, W] are triangle numbers + 1, from first_face on those of surfaces.faces; clip_vertices [V, 4] and
    camera-space normals [V, 3] are of one frame. Returns how many fragments let through what is behind them.
    """
    height, width = ids.shape
    see_through = 0
    for row in range(height):
        y = (2 * row + 1) / height - 1.0
        for column in range(width):
            number = ids[row, column]
            if number == 0 or canvas[row, column, 3] >= OPAQUE:
                continue
            pixel = (2 * column + 1) / width - 1.0, y, 2.0 / width, 2.0 / height
            red, green, blue, alpha = _fragment(
                number - 1 - first_face, pixel, clip_vertices, normals, surfaces, lights
            )
            share = alpha * (1.0 - canvas[row, column, 3])
            canvas[row, column, 0] += share * min(red, 1.0)
            canvas[row, column, 1] += share * min(green, 1.0)
            canvas[row, column, 2] += share * min(blue, 1.0)
            canvas[row, column, 3] += share
            see_through += canvas[row, column, 3] < OPAQUE
    return see_through


@njit(nogil=True, cache=True)
def _fragment(face, pixel, clip_vertices, normals, surfaces, lights):  # type: ignore[no-untyped-def]
    """Return the colour (linear r, g, b) and alpha of a face at a pixel (x, y, width, height)."""
    i, j, k = vertices = surfaces.faces[face, 0], surfaces.faces[face, 1], surfaces.faces[face, 2]
    corners = clip_vertex(clip_vertices, i), clip_vertex(clip_vertices, j), clip_vertex(clip_vertices, k)
    u, v, rest, facing = perspective_weights(corners[0], corners[1], corners[2], pixel[0], pixel[1])
    weights = u, v, rest
    material = surfaces.material_ids[face]
    if facing > 0.0 and not surfaces.double_sided[material]:
        return 0.0, 0.0, 0.0, 0.0
    base = _textured(
        surfaces.atlas, surfaces.textures[material, 0], surfaces.uvs, vertices, corners, weights, pixel
    )
    factor, colors = surfaces.factors[material], surfaces.colors
    red = base[0] * factor[0] * (u * colors[i, 0] + v * colors[j, 0] + rest * colors[k, 0])
    green = base[1] * factor[1] * (u * colors[i, 1] + v * colors[j, 1] + rest * colors[k, 1])
    blue = base[2] * factor[2] * (u * colors[i, 2] + v * colors[j, 2] + rest * colors[k, 2])
    alpha = base[3] * factor[3] * (u * colors[i, 3] + v * colors[j, 3] + rest * colors[k, 3])
    if surfaces.alpha_modes[material] == 0:
        alpha = 1.0
    elif surfaces.alpha_modes[material] == 1:
        alpha = 1.0 if alpha >= surfaces.alpha_cutoffs[material] else 0.0
    if not alpha > 0.0:
        return 0.0, 0.0, 0.0, 0.0
    if not surfaces.unlit[material]:
        normal = _seen_normal(normals, i, j, k, weights, facing, surfaces.against_normals[face])
        red, green, blue = _light(normal, (red, green, blue), lights)
    glow = surfaces.emissive_factors[material]
    if glow[0] + glow[1] + glow[2] > 0.0:
        texture = surfaces.textures[material, 1]
        emitted = _textured(surfaces.atlas, texture, surfaces.emissive_uvs, vertices, corners, weights, pixel)
        red, green, blue = (
            red + glow[0] * emitted[0],
            green + glow[1] * emitted[1],
            blue + glow[2] * emitted[2],
        )
    return red, green, blue, min(alpha, 1.0)
