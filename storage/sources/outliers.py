"""Which parts of a scene belong together, and which are strays far away from them.

A stray (a forgotten copy, an exporter's slip) would make the object a speck in its own bounding box.
Letters: N parts.
"""

import numpy as np
from numpy.typing import NDArray

GAP = 20.0  # times the larger of two boxes' diagonals: farther apart, they are not one object


def main_cluster(
    lows: NDArray[np.float64], highs: NDArray[np.float64], triangles: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which parts [N] make up the cluster with the most triangles, of those with the boxes [N, 3].

    A cluster grows from its largest part by every part no farther from its box than GAP diagonals. Of two
    equally large ones the one with the earlier largest part is the main one.
    """
    best = np.zeros(len(lows), np.bool_)
    remaining = np.ones(len(lows), np.bool_)
    while triangles[remaining].sum() > triangles[best].sum():
        seed = int(np.argmax(np.where(remaining, triangles, -1)))
        cluster = _grown(seed, lows, highs, remaining)
        if triangles[cluster].sum() > triangles[best].sum():
            best = cluster
        remaining &= ~cluster
    return best


def _grown(
    seed: int, lows: NDArray[np.float64], highs: NDArray[np.float64], among: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    diagonals = np.linalg.norm(highs - lows, axis=1)
    low, high = lows[seed], highs[seed]
    cluster = np.zeros(len(lows), np.bool_)
    cluster[seed] = True
    while True:
        gaps = np.linalg.norm(np.maximum(np.maximum(lows - high, low - highs), 0.0), axis=1)
        reached = among & (gaps <= GAP * np.maximum(diagonals, np.linalg.norm(high - low)))
        if (reached == cluster).all():
            return cluster
        cluster = cluster | reached
        low, high = lows[cluster].min(axis=0), highs[cluster].max(axis=0)
