"""Public weights of the networks that metrics look through: found, fetched with a checksum, or random.

A network whose weights are not there gets seeded random ones. What it measures is zero for equal pictures and
grows with their difference, but is on no published scale: it is called uncalibrated wherever it stands.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, DirectoryPath
from torch import Tensor, nn

from model.weights import check_names, read_file
from storage.digests import digest_file
from storage.download import DownloadConfig, Downloader
from storage.errors import InputError

RANDOM_SEED = 0


class MetricWeightsConfig(BaseModel, frozen=True, extra="forbid"):
    """Where public weights are looked for."""

    folder: DirectoryPath | None = None
    """Folder of the files as published; torch hub's cache is looked through after it."""
    fetch: bool = False
    """Fetch what neither has into torch hub's cache."""
    download: DownloadConfig = DownloadConfig()
    """How patiently."""


@dataclass(frozen=True)
class PublicWeights:
    """A file of weights as its authors publish it."""

    name: str
    files: tuple[str, ...]  # names that the same bytes go by; the first is fetched
    url: str
    sha256: str


ALEXNET = PublicWeights(
    name="AlexNet",
    files=("alexnet-owt-7be5be79.pth",),
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
)
INCEPTION = PublicWeights(
    name="Inception v3",
    files=("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)


def locate(weights: PublicWeights, config: MetricWeightsConfig) -> Path | None:
    """Return the file of some weights, fetched if the config says so; None where it is nowhere.

    Raises InputError: "checksum" for a file of that name with other bytes, a download's codes if it fails.
    """
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    folders = [cache] if config.folder is None else [config.folder, cache]
    for path in (folder / file for folder in folders for file in weights.files):
        if path.is_file():
            _check(path, weights)
            return path
    if not config.fetch:
        return None
    target = cache / weights.files[0]
    Downloader(config.download).fetch(weights.url, target, lambda path: _check(path, weights))
    return target


def load_or_randomize(network: nn.Module, weights: PublicWeights, config: MetricWeightsConfig) -> bool:
    """Fill a network with its public weights, or with random ones; return whether they are the public ones.

    The file may hold more than the network has (a classifier), not less. InputError: see `locate`; "weights".
    """
    path = locate(weights, config)
    if path is None:
        randomize(network, RANDOM_SEED)
        return False
    # BatchNorm's count of training steps is in some files only, and means nothing here.
    wanted = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    given = {key: value for key, value in read_file(path).items() if key in wanted}
    check_names(str(path), given, wanted)
    network.load_state_dict(given, strict=False)
    return True


def randomize(network: nn.Module, seed: int) -> None:
    """Draw each convolution so that it keeps the size of what it is given (He et al. 2015)."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _check(path: Path, weights: PublicWeights) -> None:
    found = digest_file(path)
    if found != weights.sha256:
        raise InputError.mismatch(path, "sha256", found=found, wanted=weights.sha256, code="checksum")


def to_tensor(pictures: Tensor) -> Tensor:
    """U8 pictures [n, H, W, 3] → f32 [n, 3, H, W] in [-1, 1]."""
    return pictures.movedim(-1, 1).float() / 127.5 - 1.0
