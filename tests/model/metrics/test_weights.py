"""Public weights: found where they are, fetched whole or not at all, never replaced in silence."""

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from model.metrics_weights import MetricWeightsConfig, PublicWeights, load_or_randomize, locate
from storage.download import DownloadConfig
from storage.errors import InputError
from tests.objaverse_server import ObjaverseServer, serving

NAME = "tiny-12345678.pth"
PATIENCE = DownloadConfig(attempts=2, backoff_s=0.0, timeout_s=1.0)


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def file_of(module: nn.Module) -> bytes:
    """The module's weights, with a classifier behind them and without counts, as old files are."""
    weights = {key: value for key, value in module.state_dict().items() if "num_batches" not in key}
    buffer = io.BytesIO()
    torch.save({**weights, "fc.weight": torch.zeros(2, 4)}, buffer)
    return buffer.getvalue()


CONTENT = file_of(network())


@pytest.fixture
def server() -> Iterator[ObjaverseServer]:
    with serving({NAME: CONTENT}) as running:
        yield running


@pytest.fixture
def weights(server: ObjaverseServer) -> PublicWeights:
    return PublicWeights("Tiny", (NAME, "other-name.pth"), server.base_url + NAME, digest(CONTENT))


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch hub's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_folder_comes_before_the_cache_and_any_known_name_will_do(
    weights: PublicWeights, hub: Path, tmp_path: Path
) -> None:
    assert locate(weights, MetricWeightsConfig()) is None
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(CONTENT)
    assert locate(weights, MetricWeightsConfig()) == hub / NAME
    config = MetricWeightsConfig(folder=tmp_path)
    assert locate(weights, config) == hub / NAME
    (tmp_path / "other-name.pth").write_bytes(CONTENT)
    assert locate(weights, config) == tmp_path / "other-name.pth"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not point to a directory"):
        MetricWeightsConfig(folder=tmp_path / "wieghts")


def test_what_is_nowhere_is_fetched_once_where_that_is_wanted(
    weights: PublicWeights, server: ObjaverseServer, hub: Path
) -> None:
    config = MetricWeightsConfig(fetch=True, download=PATIENCE)
    assert locate(weights, config) == hub / NAME
    assert (hub / NAME).read_bytes() == CONTENT
    assert locate(weights, config) == hub / NAME
    assert len(server.asked(NAME)) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [("damage", "checksum"), ("truncate", "truncated"), (404, "not-found"), (503, "unavailable")],
)
def test_a_fetch_that_fails_is_an_error_and_leaves_nothing_in_place(
    weights: PublicWeights, server: ObjaverseServer, hub: Path, fault: int | str, code: str
) -> None:
    server.faults[NAME].extend([fault] * 2)
    with pytest.raises(InputError, match=NAME) as error:
        locate(weights, MetricWeightsConfig(fetch=True, download=PATIENCE))
    assert error.value.code == code
    assert not (hub / NAME).exists()


def test_a_server_that_gives_other_bytes_whole_is_found_out(
    weights: PublicWeights, server: ObjaverseServer, hub: Path
) -> None:
    server.files[NAME] = b"somebody else's weights"
    with pytest.raises(InputError, match=f"wanted {weights.sha256}") as error:
        locate(weights, MetricWeightsConfig(fetch=True, download=PATIENCE))
    assert error.value.code == "checksum"
    assert not (hub / NAME).exists()


def test_a_file_with_the_right_name_and_other_bytes_is_an_error(
    weights: PublicWeights, tmp_path: Path
) -> None:
    (tmp_path / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="sha256: found") as error:
        locate(weights, MetricWeightsConfig(folder=tmp_path))
    assert error.value.code == "checksum"


def test_public_weights_are_loaded_and_random_ones_are_always_the_same(
    weights: PublicWeights, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    first, second, loaded = network(), network(), network()
    assert not load_or_randomize(first, weights, MetricWeightsConfig())
    assert not load_or_randomize(second, weights, MetricWeightsConfig())
    assert torch.equal(first[0].weight, second[0].weight)
    (tmp_path / NAME).write_bytes(CONTENT)
    assert load_or_randomize(loaded, weights, MetricWeightsConfig(folder=tmp_path))
    kept = torch.load(io.BytesIO(CONTENT), weights_only=True)
    assert torch.equal(loaded[0].weight, kept["0.weight"])
    assert not torch.equal(loaded[0].weight, first[0].weight)


def test_a_file_without_all_of_a_network_is_an_error(weights: PublicWeights, tmp_path: Path) -> None:
    content = file_of(nn.Sequential(nn.Conv2d(3, 5, 3)))
    (tmp_path / NAME).write_bytes(content)
    other, config = replace(weights, sha256=digest(content)), MetricWeightsConfig(folder=tmp_path)
    with pytest.raises(InputError, match=r"missing 1.bias.*; found 0.bias \[5\], wanted \[4\]") as error:
        load_or_randomize(network(), other, config)
    assert error.value.code == "weights"
