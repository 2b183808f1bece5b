"""Muon (Jordan 2024), with its iterations in float32 on a CPU.

The library iterates in bfloat16, which a processor without instructions for it emulates: ten times as slow on
AVX2 (`tiny_fine`: 3.0 s a step instead of 0.37 s), more than a small model's forward and backward pass.
"""

from typing import Any

import pytorch_optimizer
import torch
from pytorch_optimizer.optimizer.utils.matrix import zero_power_via_newton_schulz_5
from torch import Tensor


class Muon(pytorch_optimizer.Muon):
    """The library's optimizer; on a GPU it is that to the letter."""

    @staticmethod
    def _orthogonalize(group: dict[str, Any], updates: list[Tensor]) -> list[Tensor]:
        """Return each update [n, …] as the nearest matrix [n, m] with orthonormal rows or columns, about."""
        if updates[0].device.type != "cpu":
            return pytorch_optimizer.Muon._orthogonalize(group, updates)
        return [
            zero_power_via_newton_schulz_5(
                update.flatten(1), group["ns_steps"], weights=group["ns_coeffs"], dtype=torch.float32
            )
            for update in updates
        ]
