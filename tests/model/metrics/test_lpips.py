"""LPIPS: torchmetrics' through the published AlexNet, on whole pictures and on areas; invariants of areas."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchmetrics.functional.image.lpips as peers
from numpy.typing import NDArray
from torch import nn

from model.metrics_lpips import Lpips, masked_lpips
from model.metrics_weights import MetricWeightsConfig
from tests.model.metrics import published

SIZE = 48
EVERYWHERE = np.ones((3, SIZE, SIZE), bool)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Lpips:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path_factory.mktemp("empty")))
        return Lpips(MetricWeightsConfig())


@pytest.fixture(scope="module")
def truth() -> NDArray[np.uint8]:
    coarse = np.random.default_rng(1).integers(0, 256, (3, 6, 6, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype(np.uint8)  # [3, 48, 48, 3]


def noisy(truth: NDArray[np.uint8], deviation: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(2).normal(0.0, deviation, truth.shape)
    return np.clip(truth + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def peer(network: Lpips, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """torchmetrics' LPIPS through AlexNet as published, with the network's weights."""
    with torch.device("meta"):
        features = published.alexnet().features
    features.to_empty(device="cpu").load_state_dict(network.features.state_dict())
    monkeypatch.setattr(peers, "_get_tv_model_features", lambda *_: features)
    return peers._LPIPS(net="alex")


def test_on_whole_pictures_it_is_torchmetrics(
    network: Lpips, peer: nn.Module, truth: NDArray[np.uint8]
) -> None:
    x, y = (torch.from_numpy(p).permute(0, 3, 1, 2) / 127.5 - 1.0 for p in (noisy(truth, 40.0), truth))
    expected = peer(x, y).mean().item()
    assert expected > 0.01
    assert masked_lpips(network, noisy(truth, 40.0), truth, EVERYWHERE) == pytest.approx(expected, rel=1e-5)


def test_on_an_area_it_is_the_mean_over_the_area_of_torchmetrics_maps(
    network: Lpips, peer: nn.Module, truth: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    maps: list[NDArray[np.float32]] = []  # of each layer [T, h, w]

    def keep(distance: torch.Tensor, keep_dim: bool = True) -> torch.Tensor:
        maps.append(distance[:, 0].numpy())
        return distance.mean(dim=(2, 3), keepdim=keep_dim)

    monkeypatch.setattr(peers, "_spatial_average", keep)
    area = np.hypot(*(np.mgrid[:SIZE, :SIZE] - SIZE / 2)) < np.array([8, 15, 22])[:, None, None]  # discs
    generated = noisy(truth, 40.0)
    seen = np.where(area[..., None], generated, truth)
    peer(*(torch.from_numpy(p).permute(0, 3, 1, 2) / 127.5 - 1.0 for p in (seen, truth)))
    expected = 0.0
    for distance in maps:
        share = np.stack([shares(inside, *distance.shape[1:]) for inside in area])
        expected += (distance * share).sum() / share.sum()
    assert len(maps) == 5
    assert expected > 0.01
    assert masked_lpips(network, generated, truth, area) == pytest.approx(expected, rel=1e-5)


def shares(inside: NDArray[np.bool_], height: int, width: int) -> NDArray[np.float64]:
    """How much of what each of height × width cells covers of a picture is inside."""

    def cell(index: int, count: int) -> slice:
        return slice(index * SIZE // count, -(-(index + 1) * SIZE // count))

    return np.array(
        [[inside[cell(row, height), cell(c, width)].mean() for c in range(width)] for row in range(height)]
    )


def test_equal_pictures_are_no_distance_apart_and_more_noise_is_farther(
    network: Lpips, truth: NDArray[np.uint8]
) -> None:
    distances = [masked_lpips(network, noisy(truth, s), truth, EVERYWHERE) for s in (0.0, 20.0, 60.0)]
    assert distances[0] == 0.0
    assert distances == sorted(distances)
    swapped = masked_lpips(network, truth, noisy(truth, 60.0), EVERYWHERE)
    assert swapped == pytest.approx(distances[2], rel=1e-5)


def test_what_lies_outside_the_area_does_not_count(network: Lpips, truth: NDArray[np.uint8]) -> None:
    area = EVERYWHERE.copy()
    area[:, :, SIZE // 2 :] = False
    generated = noisy(truth, 40.0)
    worse_outside = np.where(area[..., None], generated, 0).astype(np.uint8)
    assert masked_lpips(network, worse_outside, truth, area) == masked_lpips(network, generated, truth, area)
    assert masked_lpips(network, np.where(area[..., None], truth, 0).astype(np.uint8), truth, area) == 0.0


def test_frames_are_pooled_however_many_go_through_at_once(
    network: Lpips, truth: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    generated, area = noisy(truth, 40.0), EVERYWHERE.copy()
    area[1, 10:] = False
    together = masked_lpips(network, generated, truth, area)
    monkeypatch.setattr("model.metrics_lpips.BATCH", 2)
    assert masked_lpips(network, generated, truth, area) == pytest.approx(together, rel=1e-5)


def test_pictures_too_small_for_alexnet_have_none(network: Lpips, truth: NDArray[np.uint8]) -> None:
    assert masked_lpips(network, truth[:, :31, :31], truth[:, :31, :31], EVERYWHERE[:, :31, :31]) == 0.0
    assert masked_lpips(network, truth[:, :30], truth[:, :30], EVERYWHERE[:, :30]) is None


def test_the_learnt_weights_are_those_of_its_authors() -> None:
    file = Path(peers.__file__).parent / "lpips_models" / "alex.pth"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest == "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"  # version 0.1
