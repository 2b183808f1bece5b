"""FID: torchmetrics' on the same crops, Gaussians in closed form, Keras' network, Pillow's crops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.linalg import sqrtm
from skimage.measure import regionprops
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from model.figures import Metrics, MetricsConfig
from model.metrics_fid import GREY, area_crops, frechet_distance
from model.metrics_inception import Inception
from model.metrics_weights import randomize
from tests.model.metrics import published


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


class Colours(nn.Module):
    """Mean colours of 5 × 5 parts of each picture: more features than there are pictures."""

    num_features = 75

    def forward(self, pictures: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(pictures.double(), 5).flatten(1)

    features = forward


def test_fid_of_clips_is_torchmetrics_on_the_crops_of_all_their_frames() -> None:
    metrics, peer = Metrics(MetricsConfig()), FrechetInceptionDistance(feature=Colours())
    peer.set_dtype(torch.float64)
    metrics.__dict__["_inception"] = Colours()
    for seed in range(2):
        frames, area = clip(seed)
        generated = (frames * np.float32(0.7)).astype(np.uint8)
        metrics.add_to_fid(generated, frames, area)
        peer.update(area_crops(generated, area), real=False)
        peer.update(area_crops(frames, area), real=True)
    summary = metrics.summarize([])
    assert summary["fid_pictures"] == 12
    assert summary["fid"] > 1.0
    assert summary["fid"] == pytest.approx(peer.compute().item(), rel=1e-4)


def clip(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Six frames [T, 40, 60, 3] of coarse noise, with two discs [T, 40, 60] that move."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (6, 8, 12, 3)).repeat(5, axis=1).repeat(5, axis=2).astype(np.uint8)
    rows, columns = np.mgrid[:40, :60]
    centres = rng.uniform(8, 32, (6, 2, 2))
    discs = [[np.hypot(rows - r, columns - 1.5 * c) < 7 for r, c in pair] for pair in centres]
    return frames, np.any(discs, axis=1)


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


def test_the_network_is_keras_with_a_last_maximum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras' averages leave the padding out, as TensorFlow's do; its last block averages, as published."""
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    import keras  # takes seconds

    def made_as(layer: keras.Layer) -> int:
        """Keras numbers layers of a kind, in whose order it makes those of the published one."""
        tail = layer.name.split("_")[-1]
        return int(tail) if tail.isdigit() else 0

    def changed(layer: keras.Layer) -> keras.Layer:
        settings = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            return type(layer).from_config({**settings, "scale": True})
        if layer is averages[-1]:
            return keras.layers.MaxPooling2D.from_config(settings)
        return type(layer).from_config(settings)

    built = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg")
    averages = [layer for layer in built.layers if isinstance(layer, keras.layers.AveragePooling2D)]
    peer = keras.models.clone_model(built, clone_function=changed)
    weights = published.random_weights(published.inception_shapes())
    units = [line.split()[0] for line in published.INCEPTION_UNITS.strip().splitlines()]
    convolutions, norms = (
        sorted((layer for layer in peer.layers if isinstance(layer, kind)), key=made_as)
        for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization)
    )
    for unit, convolution, norm in zip(units, convolutions, norms, strict=True):
        convolution.set_weights([weights[f"{unit}.conv.weight"].permute(2, 3, 1, 0).numpy()])
        parts = ("weight", "bias", "running_mean", "running_var")
        norm.set_weights([weights[f"{unit}.bn.{part}"].numpy() for part in parts])

    network = Inception()
    network.load_state_dict({name: weights[name] for name in network.state_dict()})
    pictures = area_crops(*clip(0))[:2]
    features = network.features(pictures)
    with torch.no_grad():
        expected = peer(pictures.permute(0, 2, 3, 1))
    assert features.std() > 0.01
    assert features.numpy() == pytest.approx(
        expected.numpy(), rel=1e-3, abs=1e-4 * expected.abs().max().item()
    )


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


def test_a_crop_of_scattered_parts_is_resized_as_by_pillow() -> None:
    frames, area = clip(3)
    for crop, frame, inside in zip(area_crops(frames, area), frames, area, strict=True):
        (region,) = regionprops(inside.astype(np.uint8))
        top, left, bottom, right = region.bbox
        cut = np.where(inside[..., None], frame, GREY)[top:bottom, left:right].astype(np.uint8)
        rows, columns = (max(cut.shape[:2]) - length for length in cut.shape[:2])
        sides = ((rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0))
        square = Image.fromarray(np.pad(cut, sides, constant_values=GREY))
        expected = np.asarray(square.resize((299, 299), Image.Resampling.BILINEAR))
        np.testing.assert_allclose((crop.permute(1, 2, 0) + 1.0) * 127.5, expected, atol=1.0)
