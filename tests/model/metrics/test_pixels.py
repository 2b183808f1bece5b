"""The figures of the hand-object area: against other implementations, and closed forms."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio
from torchmetrics.functional import mean_absolute_error
from torchmetrics.functional.image import structural_similarity_index_measure

from model.metrics import flicker_error, masked_psnr, masked_ssim


@pytest.fixture
def truth() -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (3, 8, 8, 3))
    return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)  # [3, 32, 32, 3]


@pytest.fixture
def noisy(truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(2).normal(0.0, 20.0, truth.shape)
    return np.clip(truth + noise, 0, 255).astype(np.uint8)


EVERYWHERE = np.ones((3, 32, 32), dtype=bool)
ROWS, COLUMNS = np.mgrid[:32, :32]
# Another part of each frame, the first two up to the border: a disc, what is left of a line, a thin ring.
AREA = np.stack(
    [
        np.hypot(ROWS - 4, COLUMNS - 9) < 11,
        3 * ROWS + COLUMNS < 40,
        abs(np.hypot(ROWS - 15, COLUMNS - 17) - 12) < 1,
    ]
)


def test_psnr_on_an_area_is_that_of_skimage_on_its_pixels(
    noisy: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> None:
    expected = peak_signal_noise_ratio(truth[AREA], noisy[AREA], data_range=255)
    assert masked_psnr(noisy, truth, AREA) == pytest.approx(expected)


def test_ssim_on_an_area_is_the_mean_over_it_of_torchmetrics_map(
    noisy: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> None:
    """torchmetrics mirrors pictures about the middle of their outermost pixels, skimage about their edge."""
    margin = 11
    wider = ((0, 0), (margin, margin), (margin, margin), (0, 0))
    mirrored = (np.pad(pictures, wider, mode="symmetric") for pictures in (noisy, truth))
    _, similarity = structural_similarity_index_measure(
        *(torch.from_numpy(pictures).permute(0, 3, 1, 2).double() for pictures in mirrored),
        data_range=255.0,
        return_full_image=True,
        reduction="none",
    )
    inner = similarity.mean(dim=1).numpy()[:, margin:-margin, margin:-margin]  # [T, H, W]
    assert masked_ssim(noisy, truth, AREA) == pytest.approx(inner[AREA].mean(), abs=1e-6)
    assert masked_ssim(noisy, truth, EVERYWHERE) == pytest.approx(inner.mean(), abs=1e-6)


def test_flicker_on_an_area_is_torchmetrics_error_of_the_changes_where_it_is_or_was(
    noisy: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> None:
    changes = []
    for pictures in (noisy, truth):
        before, after = (torch.from_numpy(pictures[part]).double() for part in (slice(2), slice(1, 3)))
        touched = torch.from_numpy(np.logical_or(AREA[:2], AREA[1:]))
        changes.append((after - before)[touched])
    expected = mean_absolute_error(*changes).item()
    assert flicker_error(noisy, truth, AREA) == pytest.approx(expected)


def test_psnr_on_the_whole_picture_is_that_of_skimage(
    noisy: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> None:
    assert masked_psnr(noisy, truth, EVERYWHERE) == pytest.approx(peak_signal_noise_ratio(truth, noisy))


def test_psnr_of_a_constant_error_is_its_closed_form() -> None:
    truth = np.zeros((1, 4, 4, 3), np.uint8)
    assert masked_psnr(truth + 1, truth, np.ones((1, 4, 4), bool)) == pytest.approx(20 * np.log10(255))


def test_errors_outside_the_area_do_not_count(noisy: NDArray[np.uint8], truth: NDArray[np.uint8]) -> None:
    left = EVERYWHERE.copy()
    left[:, :, 16:] = False
    worse_outside = noisy.copy()
    worse_outside[:, :, 16:] = 0
    assert masked_psnr(worse_outside, truth, left) == masked_psnr(noisy, truth, left)
    assert flicker_error(worse_outside, truth, left) == flicker_error(noisy, truth, left)
    deep_inside = EVERYWHERE.copy()
    deep_inside[:, :, 11:] = False  # the SSIM window reaches five pixels
    assert masked_ssim(worse_outside, truth, deep_inside) == pytest.approx(
        masked_ssim(noisy, truth, deep_inside)
    )


def test_a_perfect_clip_has_perfect_figures(truth: NDArray[np.uint8]) -> None:
    assert masked_psnr(truth, truth, EVERYWHERE) == float("inf")
    assert masked_ssim(truth, truth, EVERYWHERE) == pytest.approx(1.0)
    assert flicker_error(truth, truth, EVERYWHERE) == 0.0


def test_flicker_ignores_a_constant_offset_and_counts_shimmer() -> None:
    truth = np.full((3, 8, 8, 3), 100, np.uint8)
    area = np.ones((3, 8, 8), bool)
    shimmering = truth.copy()
    shimmering[1] += 6
    assert flicker_error(truth + 9, truth, area) == 0.0
    assert flicker_error(shimmering, truth, area) == 6.0


def test_an_empty_area_and_a_wrong_shape_are_errors(truth: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="area is empty"):
        masked_psnr(truth, truth, np.zeros_like(EVERYWHERE))
    with pytest.raises(ValueError, match="do not match"):
        masked_ssim(truth[:, :16], truth, EVERYWHERE)
    with pytest.raises(ValueError, match="two frames"):
        flicker_error(truth[:1], truth[:1], EVERYWHERE[:1])
