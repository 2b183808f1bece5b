"""Shadows of one directional light: a picture of the scene as the light sees it, and who is nearest to it.

Letters: B frames, V vertices, F faces, S pixels on a side of the light's picture, n fragments.
Light space: clip space of an orthographic view along the light's rays, one scale for all three axes.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Texels by which a surface must be behind another to be in its shadow, else it would shade itself.
BIAS_TEXELS = 4.0


def light_clip_vertices(points: NDArray[np.float32], towards: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return light-space vertices [B, V, 4] of points [B, V, 3]; `towards` [3] is the unit way to a light."""
    if not points.shape[1]:
        return np.zeros((len(points), 0, 4), np.float32)
    side = np.cross(towards, np.eye(3)[np.argmin(np.abs(towards))])
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(towards, side), -towards], axis=1).astype(
        np.float32
    )  # z away from the light
    turned = (points.reshape(-1, 3) @ axes).reshape(points.shape)
    low, high = np.fmin.reduce(turned, axis=1), np.fmax.reduce(turned, axis=1)  # [B, 3], without what is NaN
    reach = np.max(high - low, axis=-1)[:, None, None] / 2 * 1.02
    clip_vertices = np.ones((*points.shape[:2], 4), np.float32)
    clip_vertices[..., :3] = (turned - ((low + high) / 2)[:, None]) / np.maximum(reach, 1e-9)
    return clip_vertices


@njit(nogil=True, cache=True)
def lit_shares(hit, weights, faces, light_vertices, light_image):  # type: ignore[no-untyped-def]
    """Return how much of the light reaches fragments [n]: a smooth mean over 3×3 texels of its picture.

    light_vertices [V, 4] are in light space; light_image [S, S, 4] is what a rasterizer returns of them.
    """
    size = len(light_image)
    bias = BIAS_TEXELS * 2.0 / size
    shares = np.empty(len(hit), np.float32)
    for n in range(len(hit)):
        x = y = z = 0.0
        for corner in range(3):
            vertex = light_vertices[faces[hit[n], corner]]
            x += weights[n, corner] * vertex[0]
            y += weights[n, corner] * vertex[1]
            z += weights[n, corner] * vertex[2]
        column, row = 0.5 * (x + 1.0) * size - 2.0, 0.5 * (y + 1.0) * size - 2.0
        first_column, first_row = int(np.floor(column)), int(np.floor(row))
        right, low = column - first_column, row - first_row
        lit = 0.0
        for i in range(4):
            texel_row = min(max(first_row + i, 0), size - 1)
            row_share = 1.0 - low if i == 0 else (low if i == 3 else 1.0)
            for j in range(4):
                texel = light_image[texel_row, min(max(first_column + j, 0), size - 1)]
                if texel[3] == 0.0 or z <= texel[2] + bias:
                    lit += row_share * (1.0 - right if j == 0 else (right if j == 3 else 1.0))
        shares[n] = lit / 9.0
    return shares
