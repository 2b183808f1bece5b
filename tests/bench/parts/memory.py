"""Memory over 10 000 frames, rendered clip by clip: what stays behind of each."""

from pathlib import Path

import numpy as np

from render.hands.model import default_hands
from render.layers import LayersConfig, render_layers
from tests.bench.harness import Table
from tests.bench.scene import bimanual_clip, front_camera

NUM_FRAMES = 10_000
CLIP_FRAMES = 100
SIZE = 64
BYTES_A_FRAME = 100  # a megabyte over all frames


def resident_bytes() -> int:
    """Return the memory that this process holds (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def run(rounds: int, folder: Path) -> list[Table]:
    """Render clips one after the other and fit a line through the memory that is held after each."""
    clip, camera, hands = bimanual_clip(2_000, CLIP_FRAMES), front_camera(SIZE), default_hands()
    config = LayersConfig(size=SIZE, rasterizer="numba")
    held = []
    for _ in range(NUM_FRAMES // CLIP_FRAMES):
        render_layers(clip, camera, hands, config)
        held.append(resident_bytes())
    settled = held[len(held) // 10 :]  # the first clips fill caches
    slope = float(np.polyfit(CLIP_FRAMES * np.arange(len(settled)), settled, 1)[0])
    return [
        Table(
            f"Memory over {NUM_FRAMES:,} frames",
            ("held after a tenth", "held at the end", "slope"),
            [
                [
                    f"{settled[0] / 2**20:.1f} MiB",
                    f"{settled[-1] / 2**20:.1f} MiB",
                    f"{slope:+.1f} bytes a frame",
                ]
            ],
            notes=(
                f"clips of {CLIP_FRAMES} frames at {SIZE}²; aim: less than {BYTES_A_FRAME} bytes a frame",
            ),
            data={"resident bytes": held, "bytes a frame": slope},
        )
    ]
