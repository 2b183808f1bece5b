"""LPIPS (Zhang et al. 2018, version 0.1) of the hand-object area: how far apart two pictures look to AlexNet.

    LPIPS = Σ_l mean_(h, w) w_l · (φ_l(x) / |φ_l(x)| − φ_l(y) / |φ_l(y)|)²

over five layers l of AlexNet with features φ_l and learnt weights w_l ≥ 0. Outside the area the generated
picture is replaced by the true one, and the mean is over the area alone; on a whole picture it is LPIPS as
published. As all figures do, it pools the area of all of a clip's frames.
Letters: n pictures.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from model.metrics_weights import ALEXNET, MetricWeightsConfig, load_or_randomize, to_tensor

SMALLEST = 31  # pixels: AlexNet's second pooling needs that many
TAPS = (1, 4, 7, 9, 11)  # the ReLUs φ_l among AlexNet's layers
MEAN, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of ImageNet's pictures in [-1, 1]
EPSILON = 1e-8
BATCH = 32  # frames at a time


class Lpips(nn.Module):
    """LPIPS through AlexNet; `calibrated` tells whether AlexNet has its public weights."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: MetricWeightsConfig) -> None:
        super().__init__()
        self.features = alexnet_features()
        self.calibrated = load_or_randomize(self, ALEXNET, config)
        self.layer_weights = learnt_weights()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, generated: Tensor, truth: Tensor, area: Tensor) -> Tensor:
        """Each layer's distance and the area it is of, both summed: [5, 2].

        generated, truth: [n, 3, H, W] in [-1, 1]; area: bool [n, 1, H, W]; H, W ≥ 31.
        """
        sums = []
        taps = self._taps(torch.where(area, generated, truth)), self._taps(truth)
        for weights, x, y in zip(self.layer_weights, *taps, strict=True):
            distance = ((x - y) ** 2 * weights.to(x)[:, None, None]).sum(dim=1, keepdim=True)  # [n, 1, h, w]
            share = F.interpolate(area.float(), distance.shape[-2:], mode="area")  # of each feature's cell
            sums.append(torch.stack([(distance * share).sum(), share.sum()]))
        return torch.stack(sums)

    def _taps(self, pictures: Tensor) -> list[Tensor]:
        """The five layers' features [n, c, h, w], of unit length over c."""
        x, taps = (pictures - self.mean) / self.scale, []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in TAPS:
                taps.append(x / (x.square().sum(dim=1, keepdim=True) + EPSILON).sqrt())
        return taps


def masked_lpips(network: Lpips, generated: NDArray, truth: NDArray, area: NDArray) -> float | None:
    """LPIPS of u8 frames [T, H, W, 3] on area [T, H, W]; None where they are too small for AlexNet."""
    if min(truth.shape[1:3]) < SMALLEST:
        return None
    sums = torch.zeros(len(TAPS), 2, device=network.mean.device)
    for start in range(0, len(truth), BATCH):
        part = slice(start, start + BATCH)
        x, y = (to_tensor(torch.tensor(pictures[part])).to(sums) for pictures in (generated, truth))
        sums += network(x, y, torch.tensor(area[part, None], device=sums.device))
    return float((sums[:, 0] / sums[:, 1]).sum())


def alexnet_features() -> nn.Sequential:
    """AlexNet's convolutions up to the last ReLU (Krizhevsky 2014), indexed as in the file of weights."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


def learnt_weights() -> list[Tensor]:
    """The weights w_l [c] that LPIPS' authors learnt for AlexNet; torchmetrics carries their file."""
    import torchmetrics.functional.image.lpips as published  # takes a second

    file = Path(published.__file__).parent / "lpips_models" / "alex.pth"
    heads = torch.load(file, map_location="cpu", weights_only=True)
    return [heads[f"lin{layer}.model.1.weight"].flatten() for layer in range(len(TAPS))]
