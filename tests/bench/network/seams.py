"""What windows leave to be seen of themselves in a clip of 240 frames (Sec. 3.3 generates 24)."""

import torch

from model.windows import WindowConfig, windows
from tests.bench.harness import Table
from tests.model.analytic_video import sample_process, seam_ratio

FRAMES, PIXELS = 240, 200


def table() -> Table:
    """Temporal difference at window borders against elsewhere, with and without overlap."""
    noise = torch.randn(FRAMES, PIXELS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    blended = WindowConfig()
    starts = {start for start, _ in windows(FRAMES, 0, blended)}
    apart = torch.cat([sample_process(part, blended) for part in noise.split(blended.length)])
    found = {
        f"windows of {blended.length}, {blended.overlap} of them shared": seam_ratio(
            sample_process(noise, blended), starts
        ),
        "windows side by side": seam_ratio(apart, set(range(0, FRAMES, blended.length))),
    }
    return Table(
        f"Seams in a clip of {FRAMES} frames",
        ("cut into", "temporal difference at borders, of that elsewhere"),
        [[name, f"{ratio:.2f}"] for name, ratio in found.items()],
        notes=("the best denoiser of each window, in closed form, on a process whose truth is known",),
        data=found,
    )
