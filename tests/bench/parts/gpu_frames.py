"""MLO frames on a GPU: how many a second, on the device, as arrays and as records; the scene of `mlo_frames`.

Frames on the device are held against the memory's bandwidth: the bytes that the pass must move, as fast as a
copy within the device moves them in the same run.
"""

import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from flows.records import layers_data
from render.camera import clip_vertices
from render.hands.model import default_hands
from render.layers import LayersConfig, render_layers
from render.posing import PosedClip
from render.rasterizers.protocol import get_rasterizer, why_not_nvdiffrast
from render.scene import STORED_LAYERS
from render.shading import PosedLayers
from storage.recipe import Recipe
from storage.records import LayersData
from storage.store import Store
from tests.bench.harness import Table
from tests.bench.scene import bimanual_clip, front_camera

SIZE = 512
NUM_TRIANGLES = 50_000
NUM_FRAMES = 128
AIM = 2_000  # frames a second before storage
COPIED_BYTES = 1 << 30
IMAGE_BYTES = 4 * 4  # of a pixel as nvdiffrast returns it
CODE_BYTES = 3 + 4 + 8  # of a covered pixel: normal, depth, place
TITLE = f"MLO frames on a GPU: 13 layers, {SIZE}², {NUM_TRIANGLES:,} triangles, two hands"


def run(rounds: int, folder: Path) -> list[Table]:
    """Measure where nvdiffrast works, else say why not."""
    reason = why_not_nvdiffrast()
    if reason:
        return [Table(TITLE, ("",), [[f"not run: {reason}"]])]
    import torch  # only here: importing it takes seconds

    rate, bytes_a_frame, bandwidth = on_device(rounds)
    rendering, building = to_arrays_and_records(rounds)
    rows = [
        [
            "drawn and shaded on the device",
            f"{rate:,.0f}",
            f"{bytes_a_frame * rate / bandwidth:.0%} of a copy",
        ],
        ["render_layers: arrays of codes", f"{rendering:,.0f}", f"aim: {AIM:,}"],
        ["into records", f"{building:,.0f}", ""],
    ]
    return [
        Table(
            TITLE,
            ("", "frames a second", ""),
            rows,
            notes=(
                f"a frame must move {bytes_a_frame / 1e6:.0f} MB: geometry in, images out and in, codes out",
                f"{torch.cuda.get_device_name()}: a copy within it moves {bandwidth / 1e9:,.0f} GB/s",
                f"medians of {rounds} rounds; clips of {NUM_FRAMES} frames",
            ),
            data={"on device": rate, "arrays": rendering, "records": building, "copy bytes/s": bandwidth},
        )
    ]


def on_device(rounds: int) -> tuple[float, float, float]:
    """Return frames a second drawn and shaded, bytes that a frame must move, and a copy's bytes a second."""
    import torch

    rasterizer: Any = get_rasterizer("nvdiffrast")
    camera = front_camera(SIZE)
    posed = PosedClip(bimanual_clip(NUM_TRIANGLES, NUM_FRAMES), camera, default_hands())
    depth_range = posed.depth_range(LayersConfig().nearest_m)
    frames = rasterizer.frames_at_once(len(STORED_LAYERS), len(posed.faces), (SIZE, SIZE))
    points, normals = posed.pose(slice(0, frames))
    vertices = clip_vertices(points, camera, *depth_range)
    batch = PosedLayers(vertices, normals, posed.faces, posed.against_normals, posed.layer_ranges)
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)

    def draw() -> int:
        shaded = rasterizer.shaded_layers(batch, depth_range, (SIZE, SIZE))
        covered = sum(len(pixels.places) for _, pixels in shaded)
        torch.cuda.synchronize()
        return covered

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    images = int((posed.layer_ranges[:, 1] > 0).sum())
    geometry = vertices[0].nbytes + normals[0].nbytes + posed.faces.nbytes
    must_move = 2 * images * SIZE * SIZE * IMAGE_BYTES + geometry + draw() / len(vertices) * CODE_BYTES
    return len(vertices) / _seconds(draw, rounds), must_move, 2 * COPIED_BYTES / _seconds(copy, rounds)


def to_arrays_and_records(rounds: int) -> tuple[float, float]:
    """Return frames a second as arrays on the host, and as records in a store."""
    clip, camera, hands = bimanual_clip(NUM_TRIANGLES, NUM_FRAMES), front_camera(SIZE), default_hands()
    config, number = LayersConfig(size=SIZE, rasterizer="nvdiffrast"), count()
    with tempfile.TemporaryDirectory() as scratch:

        def build() -> None:
            recipe = Recipe(LayersData.KIND, LayersData.VERSION, {}, {"number": next(number)})
            layers_data(clip, camera, hands, config).write(Store(scratch), recipe)

        building = _seconds(build, rounds)
    rendering = _seconds(lambda: render_layers(clip, camera, hands, config), rounds)
    return NUM_FRAMES / rendering, NUM_FRAMES / building


def _seconds(work: Callable[[], object], rounds: int) -> float:
    """Return the median time of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return median(times)
