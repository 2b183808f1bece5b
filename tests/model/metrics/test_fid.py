"""FID: torchmetrics' on the same features, Gaussians in closed form, torch-fidelity's network, crops."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from model.metrics_fid import GREY, area_crops, frechet_distance
from model.metrics_inception import Inception
from model.metrics_weights import randomize


class SixFeatures(nn.Module):
    """Means of both halves of each colour."""

    num_features = 6

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.double().unflatten(-1, (2, -1)).mean(dim=(2, 4)).flatten(1) / 255.0


@pytest.fixture
def pictures() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    levels = rng.integers(40, 200, (2, 40, 3, 1, 2))
    noise = rng.integers(0, 50, (2, 40, 3, 8, 8))
    x, y = (levels.repeat(4, axis=-1) + noise).astype(np.uint8)
    return x, (y * 0.8).astype(np.uint8)[:30]


def test_the_distance_of_two_sets_is_torchmetrics(pictures: tuple[NDArray[np.uint8], ...]) -> None:
    peer = FrechetInceptionDistance(feature=SixFeatures()).set_dtype(torch.float64)
    x, y = (torch.from_numpy(part) for part in pictures)
    peer.update(x, real=False)
    peer.update(y, real=True)
    features = SixFeatures()
    found = frechet_distance(features(x).numpy(), features(y).numpy())
    assert found > 1e-3
    assert found == pytest.approx(peer.compute().item(), rel=1e-6)


@pytest.mark.parametrize("counts", [(200, 50), (12, 9)])  # more and fewer pictures than features
def test_the_distance_of_gaussians_is_its_formula(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(counts[0], 20)) @ rng.normal(size=(20, 20))
    y = rng.normal(size=(counts[1], 20)) + 1.0
    means = x.mean(axis=0) - y.mean(axis=0)
    a, b = (np.cov(part, rowvar=False) for part in (x, y))
    eye = 1e-9 * np.eye(20)  # sqrtm wants no singular matrix
    expected = means @ means + np.trace(a + b - 2 * sqrtm((a + eye) @ (b + eye)).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y))


def test_equal_sets_are_no_distance_apart_in_any_order_and_a_shift_is_its_square() -> None:
    x = np.random.default_rng(2).normal(size=(9, 30)).astype(np.float32)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(x + 2, x) == pytest.approx(30 * 4, rel=1e-5)
    with pytest.raises(ValueError, match="a covariance needs two"):
        frechet_distance(x[:1], x)


def test_the_network_is_torch_fidelity_s() -> None:
    """What torch-fidelity 0.4.0's FeatureExtractorInceptionV3 gives with these weights and this picture."""
    network = Inception()
    randomize(network, seed=0)
    values = np.random.default_rng(5).integers(0, 256, (1, 299, 299, 3), dtype=np.uint8)
    (features,) = network.features(torch.from_numpy(values).permute(0, 3, 1, 2) / 127.5 - 1.0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_785_568
    assert features.shape == (2048,)
    assert features.mean().item() == pytest.approx(0.278497, rel=1e-4)
    assert features.std().item() == pytest.approx(0.367424, rel=1e-4)
    chosen = features[[0, 1, 2, 3, 500, 1000, 1500, 2047]].tolist()
    expected = [0.038530, 0.865407, 0.070184, 0.422973, 0.0, 0.0, 0.003360, 0.712578]
    assert chosen == pytest.approx(expected, abs=1e-5)


def test_a_crop_is_the_square_about_the_area_with_all_else_grey() -> None:
    frames = np.zeros((3, 20, 30, 3), np.uint8)
    area = np.zeros((3, 20, 30), bool)
    area[0, 5:15, 10:15] = True  # twice as high as wide: grey on both sides
    frames[0, 5:15, 10:15] = 255
    area[2, 4:8, 4:8] = True
    frames[2] = 255
    frames[2, 4:8, 4:8] = 0
    first, third = area_crops(frames, area)  # the second has no area
    assert first.shape == (3, 299, 299)
    assert (first[:, :, 110:190] == 1.0).all()
    assert first[:, :, :40].numpy() == pytest.approx(GREY / 127.5 - 1.0, abs=1e-6)
    assert (third == -1.0).all()
    assert len(area_crops(frames, np.zeros_like(area))) == 0
