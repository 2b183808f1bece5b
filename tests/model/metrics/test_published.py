"""Public weights in their published format: found, fetched and loaded whole, or an error that says why."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.figures import Metrics, MetricsConfig
from model.metrics_inception import Inception
from model.metrics_lpips import Lpips
from model.metrics_weights import ALEXNET, INCEPTION, MetricWeightsConfig, PublicWeights
from storage.download import DownloadConfig
from storage.errors import InputError
from tests.model.metrics import published
from tests.objaverse_server import ObjaverseServer, serving

SHAPES = {"lpips": published.ALEXNET, "fid": published.inception_shapes()}
CONSTANTS = {"lpips": ALEXNET, "fid": INCEPTION}
BYTES = {"lpips": 244_408_911, "fid": 95_628_359}
UNUSED = {"lpips": 6, "fid": 94 + 2}  # the classifier; counts of steps
PATIENCE = DownloadConfig(attempts=2, backoff_s=0.0, timeout_s=5.0)


class Public(NamedTuple):
    """A file in the published format with random values, and the constant that leads to it."""

    figure: str
    weights: PublicWeights
    content: bytes
    tensors: dict[str, Tensor]


@pytest.fixture(scope="module", params=["lpips", "fid"])
def public(request: pytest.FixtureRequest) -> Public:
    tensors = published.random_weights(SHAPES[request.param])
    content = published.saved(tensors, archive=request.param == "lpips")
    sha256 = hashlib.sha256(content).hexdigest()
    return Public(request.param, replace(CONSTANTS[request.param], sha256=sha256), content, tensors)


@pytest.fixture
def server(public: Public) -> Iterator[ObjaverseServer]:
    with serving({public.weights.files[0]: public.content}) as running:
        yield running


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch hub's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def expect(monkeypatch: pytest.MonkeyPatch, figure: str, weights: PublicWeights) -> None:
    """Have a figure look for this file instead of the public one."""
    for place in (
        ("metrics_lpips.ALEXNET", "figures.ALEXNET") if figure == "lpips" else ("figures.INCEPTION",)
    ):
        monkeypatch.setattr(f"model.{place}", weights)


def network_of(figure: str, config: MetricWeightsConfig) -> tuple[nn.Module, Metrics]:
    """What a figure looks through, and the measure that it is for."""
    metrics = Metrics(MetricsConfig(weights=config))
    return metrics._lpips if figure == "lpips" else metrics._inception, metrics


@pytest.mark.parametrize("place", ["folder", "hub", "server"])
def test_a_file_as_published_is_loaded_whole_wherever_it_is(
    public: Public,
    server: ObjaverseServer,
    hub: Path,
    tmp_path: Path,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = public.weights.files[0]
    expect(monkeypatch, public.figure, replace(public.weights, url=server.base_url + file))
    config = MetricWeightsConfig(fetch=place == "server", download=PATIENCE)
    if place == "folder":
        (tmp_path / file).write_bytes(public.content)
        config = MetricWeightsConfig(folder=tmp_path)
    elif place == "hub":
        (hub / file).write_bytes(public.content)
    network, metrics = network_of(public.figure, config)
    assert metrics.calibrated[public.figure]
    assert public.figure not in metrics.notes
    loaded = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    assert all(torch.equal(value, public.tensors[name]) for name, value in loaded.items())
    assert len(loaded) == len(public.tensors) - UNUSED[public.figure]
    assert len(server.asked(file)) == (place == "server")


@pytest.mark.parametrize("where", ["folder", "hub", "server"])
def test_a_file_in_the_format_with_other_values_is_an_error_and_never_replaced(
    public: Public,
    server: ObjaverseServer,
    hub: Path,
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, genuine = public.weights.files[0], CONSTANTS[public.figure]
    expect(monkeypatch, public.figure, replace(genuine, url=server.base_url + file))
    config = MetricWeightsConfig(fetch=True, folder=tmp_path, download=PATIENCE)
    if where != "server":
        ((tmp_path if where == "folder" else hub) / file).write_bytes(public.content)
    metrics = Metrics(MetricsConfig(weights=config))
    frames, area = np.zeros((1, 40, 40, 3), np.uint8), np.ones((1, 40, 40), bool)
    measure = metrics.compare if public.figure == "lpips" else metrics.add_to_fid
    with pytest.raises(InputError, match=f"found {public.weights.sha256}, wanted {genuine.sha256}") as error:
        measure(frames, frames, area)
    assert error.value.code == "checksum"
    assert (hub / file).exists() == (where == "hub")


@pytest.mark.parametrize(
    ("figure", "name"),
    [
        ("lpips", "features.0.weight"),
        ("lpips", "features.8.bias"),
        ("fid", "Conv2d_2b_3x3.bn.running_var"),
        ("fid", "Mixed_6c.branch7x7dbl_3.conv.weight"),
        ("fid", "Mixed_7c.branch3x3dbl_3b.bn.bias"),
    ],
)
@pytest.mark.parametrize("wrong", ["missing", "found"])
def test_a_tensor_that_is_missing_or_of_another_shape_is_named(
    figure: str, name: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {key: torch.zeros(()).expand(shape) for key, shape in SHAPES[figure].items()}
    shape = list(tensors.pop(name).shape)
    if wrong == "found":
        tensors[name] = torch.zeros(()).expand(*shape[:-1], shape[-1] + 1)
    content = published.saved(tensors, archive=figure == "lpips")
    weights = replace(CONSTANTS[figure], sha256=hashlib.sha256(content).hexdigest())
    (tmp_path / weights.files[0]).write_bytes(content)
    expect(monkeypatch, figure, weights)
    said = {
        "missing": f"{weights.files[0]}: missing {name}",
        "found": f"{weights.files[0]}: found {name} {[*shape[:-1], shape[-1] + 1]}, wanted {shape}",
    }
    with pytest.raises(InputError) as error:
        network_of(figure, MetricWeightsConfig(folder=tmp_path))
    assert str(error.value).endswith(said[wrong])
    assert error.value.code == "weights"


def test_the_networks_have_the_published_names_and_shapes_but_those_of_classifiers() -> None:
    for figure, network in (("lpips", Lpips(MetricWeightsConfig())), ("fid", Inception())):
        own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        left = {name: shape for name, shape in SHAPES[figure].items() if name not in own}
        assert SHAPES[figure] == own | left
        assert all(name.startswith(("classifier.", "fc.")) for name in left)


def test_alexnet_with_the_published_shapes_takes_pictures_of_224() -> None:
    with torch.device("meta"):
        network = published.alexnet()
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == published.ALEXNET


@pytest.mark.parametrize("figure", ["lpips", "fid"])
def test_the_tables_account_for_the_bytes_of_the_files_and_file_names_for_their_checksums(
    figure: str,
) -> None:
    numbers = sum(int(np.prod(shape)) for shape in SHAPES[figure].values())
    assert 0 < BYTES[figure] - 4 * numbers < 200 * len(SHAPES[figure]) + 3000  # names, shapes, 64-bit counts
    weights = CONSTANTS[figure]
    assert len(weights.sha256) == 64
    assert all(file.endswith(f"-{weights.sha256[:8]}.pth") for file in weights.files)
    assert weights.url.endswith(f"/{weights.files[0]}")
