"""Whole MLO frames: thirteen 512² layers of two hands and a 50 000-triangle object, u8 normals and u16 depth.

Held against pyrender, which draws the same layers, and against just writing arrays of that size.
"""

from pathlib import Path
from statistics import median

import numpy as np

from render.hands.model import default_hands
from render.layers import LayersConfig, RenderedLayers, render_layers
from render.posing import PosedClip
from render.threads import for_each
from tests.bench.harness import Table, ratio, take_turns
from tests.bench.pyrender_peer import PyrenderLayers
from tests.bench.scene import bimanual_clip, front_camera

SIZE = 512
NUM_TRIANGLES = 50_000
NUM_FRAMES = 24
PYRENDER_FRAMES = 2  # it is timed on these, for it takes long
PYRENDER_TAKES = 8.0
NUMBA_TAKES = 2.5


def run(rounds: int, folder: Path) -> list[Table]:
    """Time a clip rendered whole, from its motion to its codes, and its peers."""
    clip, camera, hands = bimanual_clip(NUM_TRIANGLES, NUM_FRAMES), front_camera(SIZE), default_hands()
    config = LayersConfig(size=SIZE, rasterizer="numba")
    rendered = render_layers(clip, camera, hands, config)
    peer = PyrenderLayers(PosedClip(clip, camera, hands), camera, PYRENDER_FRAMES, rendered)
    agreement = _agreement(rendered, *peer.render())
    seconds = take_turns(
        {
            "numba": lambda: render_layers(clip, camera, hands, config),
            "writing": lambda: write_arrays(rendered),
            "writing alone": lambda: write_arrays(rendered, num_threads=1),
            "pyrender": peer.render,
        },
        rounds,
    )
    peer.close()
    labels = {
        "numba": (NUM_FRAMES, "render_layers, numba"),
        "writing": (NUM_FRAMES, "just writing the arrays, as many threads"),
        "writing alone": (NUM_FRAMES, "just writing the arrays, one thread"),
        "pyrender": (PYRENDER_FRAMES, "pyrender, EGL: drawing and reading back"),
    }
    wall, processor = (
        {name: [s / labels[name][0] for s in times] for name, times in kind.items()}
        for kind in (seconds.wall, seconds.processor)
    )
    rows = [
        [
            label,
            f"{1e3 * median(wall[name]):.1f}",
            f"{1e3 * median(processor[name]):.1f}",
            f"{ratio(wall, name, 'numba'):.2f}",
            f"{ratio(processor, name, 'numba'):.2f}",
        ]
        for name, (_, label) in labels.items()
    ]
    covered = (rendered.depth > 0).mean(axis=(0, 2, 3)).sum()
    return [
        Table(
            f"MLO frames: 13 layers, {SIZE}², {len(clip.objects[0].mesh.faces):,} triangles, two hands",
            ("", "wall, ms a frame", "processor, ms a frame", "wall / numba's", "processor / numba's"),
            rows,
            notes=(
                f"aims: pyrender takes at least {PYRENDER_TAKES:.0f} times as long as numba; "
                f"numba at most {NUMBA_TAKES} times as long as writing (a row of {1 / NUMBA_TAKES})",
                f"{rounds} rounds; numba and writing do {NUM_FRAMES} frames, pyrender {PYRENDER_FRAMES}",
                f"layers cover {covered:.0%} of a picture in sum; {agreement}",
            ),
            data={"wall seconds a frame": wall, "processor seconds a frame": processor},
        )
    ]


def write_arrays(rendered: RenderedLayers, num_threads: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Write arrays like a clip's layers into fresh memory, on as many threads as the renderer has if None."""
    normals, depth = np.empty_like(rendered.normals), np.empty_like(rendered.depth)

    def write(frame: int) -> None:
        normals[frame] = rendered.normals[frame]
        depth[frame] = rendered.depth[frame]

    for_each(write, range(len(depth)), num_threads)
    return normals, depth


def _agreement(rendered: RenderedLayers, normals: np.ndarray, depth: np.ndarray) -> str:
    """Say how far the peer draws the same; raise where it does not, for then times mean nothing."""
    mine = rendered.depth[: len(depth)]
    both, either = (mine > 0) & (depth > 0), (mine > 0) | (depth > 0)
    overlap = both.sum() / either.sum()
    step_mm = 1e3 * (rendered.far_m - rendered.near_m) / 65534
    off_mm = float(np.median(np.abs(mine.astype(int) - depth)[both])) * step_mm
    turned = float(np.median(np.abs(rendered.normals[: len(depth)].astype(int) - normals)[both]))
    if overlap < 0.98 or off_mm > 0.1 or turned > 1:
        raise RuntimeError(f"pyrender draws something else: IoU {overlap:.3f}, {off_mm} mm, {turned} codes")
    return f"pyrender covers the same (IoU {overlap:.4f}) at the same depth (median {off_mm:.3f} mm off)"
