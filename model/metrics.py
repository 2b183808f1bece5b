"""How close generated frames are to true ones, on the hand-object area alone (paper, Sec. 4.1).

Letters: T frames, H rows, W columns.  Pictures are u8 sRGB; the area is the union of the layers, dilated.
A figure belongs to a clip: its pixels are pooled over all frames, so that no single frame decides.
"""

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

PEAK = 255.0


def masked_psnr(generated: NDArray[np.uint8], truth: NDArray[np.uint8], area: NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio in dB of [T, H, W, 3] on area [T, H, W]; infinite where both are equal."""
    _check(generated, truth, area)
    difference = generated[area].astype(np.float64) - truth[area]  # [n, 3]
    mean_square = float(np.mean(difference**2))
    return float("inf") if mean_square == 0.0 else 10.0 * float(np.log10(PEAK**2 / mean_square))


def masked_ssim(generated: NDArray[np.uint8], truth: NDArray[np.uint8], area: NDArray[np.bool_]) -> float:
    """Mean over area [T, H, W] of the structural-similarity map of [T, H, W, 3] (Wang et al. 2004)."""
    _check(generated, truth, area)
    total = 0.0
    for frame, true_frame, inside in zip(generated, truth, area, strict=True):
        if inside.any():
            _, similarity = structural_similarity(
                frame,
                true_frame,
                channel_axis=-1,
                data_range=PEAK,
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                full=True,
            )
            total += float(similarity[inside].mean(axis=-1).sum())
    return total / int(area.sum())


def flicker_error(generated: NDArray[np.uint8], truth: NDArray[np.uint8], area: NDArray[np.bool_]) -> float:
    """Mean absolute error in 1/255 of the frame-to-frame change of [T ≥ 2, H, W, 3], on area [T, H, W].

    0: what moves, moves as it should and what stands still does not shimmer. A constant error costs nothing.
    """
    _check(generated, truth, area)
    if len(truth) < 2:
        raise ValueError("flicker needs two frames: the clip has one")
    change = np.diff(generated.astype(np.int16), axis=0)  # [T-1, H, W, 3]
    true_change = np.diff(truth.astype(np.int16), axis=0)
    return float(np.abs(change - true_change)[area[1:] | area[:-1]].mean())


def _check(generated: NDArray[np.uint8], truth: NDArray[np.uint8], area: NDArray[np.bool_]) -> None:
    if generated.shape != truth.shape or area.shape != truth.shape[:-1]:
        raise ValueError(
            f"generated {generated.shape}, truth {truth.shape} and area {area.shape} do not match"
        )
    if not area.any():
        raise ValueError("the hand-object area is empty")
