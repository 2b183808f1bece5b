"""Whole MLO frames: thirteen 512² layers of two hands and a 50 000-triangle object, u8 normals and u16 depth.

Held against pyrender, which draws the same layers, and against just writing arrays of that size.
"""

from pathlib import Path

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
FASTER_THAN_PYRENDER = 8.0
SLOWER_THAN_WRITING = 2.5


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
            "pyrender": peer.render,
        },
        rounds,
    )
    peer.close()
    frames = {"numba": NUM_FRAMES, "writing": NUM_FRAMES, "pyrender": PYRENDER_FRAMES}
    per_frame = {name: [s / frames[name] for s in times] for name, times in seconds.items()}
    rows = [
        [
            label,
            f"{1e3 * float(np.median(per_frame[name])):.1f}",
            f"{ratio(per_frame, name, 'numba'):.2f}",
        ]
        for name, label in {
            "numba": "render_layers, numba",
            "writing": "just writing the arrays",
            "pyrender": "pyrender, EGL (drawing and reading back)",
        }.items()
    ]
    faster, slower = ratio(per_frame, "pyrender", "numba"), ratio(per_frame, "numba", "writing")
    covered = (rendered.depth > 0).mean(axis=(0, 2, 3)).sum()
    return [
        Table(
            f"MLO frames: 13 layers, {SIZE}², {len(clip.objects[0].mesh.faces):,} triangles, two hands",
            ("", "ms a frame", "times numba"),
            rows,
            notes=(
                f"{faster:.1f} times as fast as pyrender (aim: at least {FASTER_THAN_PYRENDER:.0f}), "
                f"{slower:.2f} times the time of writing (aim: at most {SLOWER_THAN_WRITING})",
                f"{rounds} rounds; numba and writing do {NUM_FRAMES} frames, pyrender {PYRENDER_FRAMES}",
                f"layers cover {covered:.0%} of a picture in sum; {agreement}",
            ),
            data={"seconds per frame": per_frame, "faster than pyrender": faster, "writing": slower},
        )
    ]


def write_arrays(rendered: RenderedLayers) -> tuple[np.ndarray, np.ndarray]:
    """Write arrays like a clip's layers into fresh memory, on as many threads as the renderer has."""
    normals, depth = np.empty_like(rendered.normals), np.empty_like(rendered.depth)

    def write(frame: int) -> None:
        normals[frame] = rendered.normals[frame]
        depth[frame] = rendered.depth[frame]

    for_each(write, range(len(depth)))
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
