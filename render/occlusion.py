"""Which finger surfaces are hidden, and by what, measured on the occlusion structure (paper, Sec. 3.1.1).

Every layer shows its part whole, so a finger is hidden where another layer is nearer. Nearness is the
confidence map D: higher is nearer, 0 is empty.
Letters: T frames, L = 13 stored layers (object, six of the left hand, six of the right), H rows, W columns.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from render.scene import HAND_LAYERS, SIDES, STORED_LAYERS, Layer

HIDERS = ("fingers", "palm", "object", "other_hand")  # the first two of the same hand


def digit_layers(side: str) -> list[int]:
    """Return where a hand's thumb and fingers stand among the stored layers."""
    digits = [layer for layer in HAND_LAYERS if layer is not Layer.PALM]
    return [STORED_LAYERS.index(f"{side}_{layer.name.lower()}") for layer in digits]


def hidden_fingers(confidence: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return the pixels [T, H, W] where a finger lies behind what is visible; D is [T, L, H, W]."""
    nearest = confidence.max(axis=1)
    hidden = np.zeros(nearest.shape, np.bool_)
    for layer in (layer for side in SIDES for layer in digit_layers(side)):
        hidden |= (confidence[:, layer] > 0) & (confidence[:, layer] < nearest)
    return hidden


def visible_object(confidence: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return the pixels [T, H, W] where the object is nearest; D is [T, L, H, W]."""
    nearest, layer = confidence.max(axis=1), confidence.argmax(axis=1)
    return (nearest > 0) & (layer == STORED_LAYERS.index("object"))


def count_hidden(confidence: NDArray[np.floating]) -> dict[str, int]:
    """Count finger pixels of all frames of D [T, L, H, W], and those among them that each hider hides.

    A pixel counts once for each finger layer that covers it, and goes to the nearest layer there. Counts of
    several clips may be added up; see `hidden_shares`.
    """
    nearest_layer = confidence.argmax(axis=1)  # [T, H, W]
    nearest = confidence.max(axis=1)
    counts = dict.fromkeys(("pixels", *HIDERS), 0)
    for side in SIDES:
        hider_of_layer = _hiders(side)
        for layer in digit_layers(side):
            covered = confidence[:, layer] > 0
            behind = covered & (confidence[:, layer] < nearest)
            hiders = np.bincount(hider_of_layer[nearest_layer[behind]], minlength=len(HIDERS))
            counts["pixels"] += int(covered.sum())
            for name, count in zip(HIDERS, hiders, strict=True):
                counts[name] += int(count)
    return counts


def hidden_shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Return the share of finger pixels that is hidden, in all and by each hider; zeros without a finger."""
    pixels = max(counts["pixels"], 1)
    shares = {f"by_{name}": counts[name] / pixels for name in HIDERS}
    return {"hidden": sum(shares.values()), **shares}


def _hiders(side: str) -> NDArray[np.int64]:
    """Return what each stored layer [L] is to the fingers of one hand, as a position in HIDERS."""
    hiders = np.full(len(STORED_LAYERS), HIDERS.index("other_hand"))
    hiders[STORED_LAYERS.index("object")] = HIDERS.index("object")
    hiders[STORED_LAYERS.index(f"{side}_palm")] = HIDERS.index("palm")
    hiders[digit_layers(side)] = HIDERS.index("fingers")
    return hiders
