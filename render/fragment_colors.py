"""Colours of fragments: vertex colours, light, and what lies behind what.

Letters: n fragments, H rows, W columns, V vertices, F faces.  Colours are linear RGB.
"""

from numba import njit

from render.shading import OPAQUE

SHININESS = 32  # exponent of highlights


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
