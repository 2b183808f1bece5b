"""How the time of an MLO frame grows with triangles, picture size, layers and threads; one plot each."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import matplotlib as mpl

from render.hands.model import default_hands
from render.layers import LayersConfig, render_layers
from render.scene import Clip
from render.threads import available_threads
from tests.bench.harness import Seconds, Table, take_turns
from tests.bench.scene import bimanual_clip, front_camera

mpl.use("Agg")
import matplotlib.pyplot as plt

NUM_FRAMES = 8
SIZE = 512
NUM_TRIANGLES = 50_000
FIGURE = "scaling.png"


def run(rounds: int, folder: Path) -> list[Table]:
    """Change one thing at a time about the scene of `mlo_frames`."""
    whole = bimanual_clip(NUM_TRIANGLES, NUM_FRAMES)
    clips = {count: bimanual_clip(count, NUM_FRAMES) for count in (5_000, 100_000, 200_000)}
    layers = {
        1: replace(whole, hands={}),
        7: replace(whole, hands={"left": whole.hands["left"]}),
        13: whole,
    }
    axes: dict[str, dict[int, Callable[[], object]]] = {
        "triangles of the object": {
            len(clip.objects[0].mesh.faces): _render(clip) for clip in (*clips.values(), whole)
        },
        "pixels on a side": {size: _render(whole, size) for size in (128, 256, 512, 1024)},
        "layers that are not empty": {count: _render(clip) for count, clip in layers.items()},
        "threads": {count: _on_threads(_render(whole), count) for count in _thread_counts()},
    }
    peers = {f"{axis}: {value}": call for axis, calls in axes.items() for value, call in calls.items()}
    seconds = take_turns(peers, max(rounds // 2, 3))
    found = {axis: _medians(seconds, axis, sorted(calls)) for axis, calls in axes.items()}
    _plot(found, folder / FIGURE)
    rows = [
        [axis, *(", ".join(f"{ms:,.1f}".removesuffix(".0") for ms in column) for column in columns)]
        for axis, columns in found.items()
    ]
    return [
        Table(
            "Scaling of MLO frames",
            ("what changes", "values", "wall, ms a frame", "processor, ms a frame"),
            rows,
            notes=(
                f"where nothing else is said: {SIZE}², {NUM_TRIANGLES:,} triangles, 13 layers, all threads; "
                f"clips of {NUM_FRAMES} frames, setting up a clip included",
            ),
            figures=(FIGURE,),
            data=found,
        )
    ]


def _medians(seconds: Seconds, axis: str, values: list[int]) -> tuple[list[int], list[float], list[float]]:
    """Return the values of an axis, and the milliseconds a frame on the wall and of the processor."""
    wall, processor = (
        [1e3 * median(kind[f"{axis}: {value}"]) / NUM_FRAMES for value in values]
        for kind in (seconds.wall, seconds.processor)
    )
    return values, wall, processor


def _render(clip: Clip, size: int = SIZE) -> Callable[[], object]:
    camera, config = front_camera(size), LayersConfig(size=size, rasterizer="numba")
    return lambda: render_layers(clip, camera, default_hands(), config)


def _thread_counts() -> list[int]:
    most = available_threads()
    return sorted({2**power for power in range(most.bit_length())} | {most})


def _on_threads(work: Callable[[], object], count: int) -> Callable[[], object]:
    """Return `work` as done on so many of the cores that this process may use."""
    cores = os.sched_getaffinity(0)

    def limited() -> None:
        os.sched_setaffinity(0, sorted(cores)[:count])
        try:
            work()
        finally:
            os.sched_setaffinity(0, cores)

    return limited


def _plot(found: dict[str, tuple[list[int], list[float], list[float]]], path: Path) -> None:
    figure, panels = plt.subplots(1, len(found), figsize=(12, 2.8), layout="constrained")
    for panel, (axis, (values, wall, processor)) in zip(panels, found.items(), strict=True):
        panel.plot(values, wall, "o-", label="wall")
        panel.plot(values, processor, "s--", label="processor")
        panel.set_xlabel(axis)
        panel.set_ylim(bottom=0)
        panel.set_xticks(values, [f"{value:,}" for value in values], fontsize=7)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ms a frame")
    panels[0].legend()
    figure.savefig(path, dpi=80)
    plt.close(figure)
