"""Inception v3 (Szegedy et al. 2015) up to its pooled features, as FID's weights of 2015 expect it.

It differs from the published network: averages leave the padding out, and the last block takes the maximum
instead of the average. Names of blocks and branches are those in the file of weights.
Letters: n pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NUM_FEATURES = 2048
INPUT_SIZE = 299  # pixels
BATCH = 16  # pictures at a time

Kernel = int | tuple[int, int]  # rows, columns
Step = tuple[int, Kernel]  # output channels, kernel of a convolution


@dataclass(frozen=True)
class _Branch:
    """Convolutions one after the other; the last may be several side by side."""

    name: str
    steps: tuple[Step, ...]
    fork: tuple[Kernel, ...] = ()  # kernels side by side after the steps, as wide as the last of them
    fork_channels: int = 0
    stride: int = 1  # of the last step
    pool: Literal["", "average", "maximum"] = ""  # of the input

    def units(self) -> Iterator[tuple[str, int, Kernel, int]]:
        """Yield name, output channels, kernel and stride of each convolution, those of the fork last."""
        for number, (channels, kernel) in enumerate(self.steps, 1):
            name = f"{self.name}_{number}" if len(self.steps) + len(self.fork) > 1 else self.name
            yield name, channels, kernel, self.stride if number == len(self.steps) else 1
        for letter, kernel in zip("ab", self.fork, strict=False):
            yield f"{self.name}_{len(self.steps) + 1}{letter}", self.fork_channels, kernel, 1


class _Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU; padded to keep the size unless it strides."""

    def __init__(self, channels: int, out_channels: int, kernel: Kernel, stride: int, padded: bool) -> None:
        super().__init__()
        size = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (size[0] // 2, size[1] // 2) if padded else (0, 0)
        self.conv = nn.Conv2d(channels, out_channels, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Block(nn.Module):
    """Branches side by side, concatenated; a block that halves the size has the pooled input beside them."""

    def __init__(self, channels: int, *branches: _Branch) -> None:
        super().__init__()
        self.branches = branches
        self.halves = any(branch.stride == 2 for branch in branches)
        self.out_channels = channels if self.halves else 0
        for branch in branches:
            inside = channels
            for name, out_channels, kernel, stride in branch.units():
                self.add_module(name, _Convolution(inside, out_channels, kernel, stride, padded=stride == 1))
                inside = inside if name[-1] == "a" else out_channels
            self.out_channels += inside * max(len(branch.fork), 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, c, h, w] → [n, c', h', w']."""
        outputs = [output for branch in self.branches for output in self._run(branch, x)]
        if self.halves:
            outputs.append(F.max_pool2d(x, 3, stride=2))
        return torch.cat(outputs, dim=1)

    def _run(self, branch: _Branch, x: Tensor) -> list[Tensor]:
        if branch.pool == "average":
            x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        elif branch.pool == "maximum":
            x = F.max_pool2d(x, 3, stride=1, padding=1)
        names = [name for name, *_ in branch.units()]
        for name in names[: len(branch.steps)]:
            x = self.get_submodule(name)(x)
        return [self.get_submodule(name)(x) for name in names[len(branch.steps) :]] or [x]


class Inception(nn.Module):
    """Pictures to 2048 features; always in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        for name, channels, out_channels, kernel, stride in (
            ("Conv2d_1a_3x3", 3, 32, 3, 2),
            ("Conv2d_2a_3x3", 32, 32, 3, 1),
            ("Conv2d_2b_3x3", 32, 64, 3, 1),
            ("Conv2d_3b_1x1", 64, 80, 1, 1),
            ("Conv2d_4a_3x3", 80, 192, 3, 1),
        ):
            padded = name == "Conv2d_2b_3x3"
            self.add_module(name, _Convolution(channels, out_channels, kernel, stride, padded))
        channels = 192
        for name, branches in _blocks():
            block = _Block(channels, *branches)
            self.add_module(name, block)
            channels = block.out_channels
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor) -> Tensor:
        """[n, 3, 299, 299] in [-1, 1] → features [n, 2048]."""
        x = pictures
        for name, module in self.named_children():
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                x = F.max_pool2d(x, 3, stride=2)
            x = module(x)
        return x.mean(dim=(2, 3))

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:
        """[n, 3, 299, 299] in [-1, 1] → features [n, 2048], some pictures at a time, on the CPU."""
        device = next(self.parameters()).device
        batches = [self(batch.to(device)).cpu() for batch in pictures.split(BATCH)]
        return torch.cat(batches) if batches else torch.zeros(0, NUM_FEATURES)


def _blocks() -> Iterator[tuple[str, tuple[_Branch, ...]]]:
    """Yield the eleven blocks after the stem."""
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
        yield (
            name,
            (
                _Branch("branch1x1", ((64, 1),)),
                _Branch("branch5x5", ((48, 1), (64, 5))),
                _Branch("branch3x3dbl", ((64, 1), (96, 3), (96, 3))),
                _Branch("branch_pool", ((pooled, 1),), pool="average"),
            ),
        )
    yield (
        "Mixed_6a",
        (
            _Branch("branch3x3", ((384, 3),), stride=2),
            _Branch("branch3x3dbl", ((64, 1), (96, 3), (96, 3)), stride=2),
        ),
    )
    row, column = (1, 7), (7, 1)
    for name, c in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        yield (
            name,
            (
                _Branch("branch1x1", ((192, 1),)),
                _Branch("branch7x7", ((c, 1), (c, row), (192, column))),
                _Branch("branch7x7dbl", ((c, 1), (c, column), (c, row), (c, column), (192, row))),
                _Branch("branch_pool", ((192, 1),), pool="average"),
            ),
        )
    yield (
        "Mixed_7a",
        (
            _Branch("branch3x3", ((192, 1), (320, 3)), stride=2),
            _Branch("branch7x7x3", ((192, 1), (192, row), (192, column), (192, 3)), stride=2),
        ),
    )
    both = ((1, 3), (3, 1))
    pools: tuple[tuple[str, Literal["average", "maximum"]], ...] = (("7b", "average"), ("7c", "maximum"))
    for name, pool in pools:
        yield (
            f"Mixed_{name}",
            (
                _Branch("branch1x1", ((320, 1),)),
                _Branch("branch3x3", ((384, 1),), fork=both, fork_channels=384),
                _Branch("branch3x3dbl", ((448, 1), (384, 3)), fork=both, fork_channels=384),
                _Branch("branch_pool", ((192, 1),), pool=pool),
            ),
        )
