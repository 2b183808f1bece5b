"""The network: sizes by box of Figure 2, times of training and generation, what saves time and memory.

`tiny` runs on the CPU. The paper's size (`sd15` at 512² in bfloat16) runs on a CUDA device; without one it is
counted only, and the report says so.
"""

from pathlib import Path

from tests.bench.harness import Table
from tests.bench.network import memory, seams, sizes, speed
from tests.bench.network.work import PAPER, Scale, available

MOST_ROUNDS = 3  # a round of the slowest takes half a minute on a CPU
GPU_LINES = (
    "a step of the image stage, 4 clips of 1 frame",
    "a step of the temporal stage, 1 clip of 24 frames",
    "a video of 24 frames in 25 steps",
    "share of the peak rate of each",
    "channels last",
    "compiled",
    "attention not fused",
    "conditions encoded at every step",
    "peak memory of training and of long videos",
)


def run(rounds: int, folder: Path) -> list[Table]:
    """Count, then measure every scale that this machine can run."""
    rounds = min(rounds, MOST_ROUNDS)
    tables = [sizes.parameters(), sizes.operations(), seams.table()]
    for scale in available():
        tables += measured(scale, rounds)
    if PAPER not in available():
        tables += [not_run(PAPER), sizes.schedule(PAPER, None), sizes.memory(PAPER)]
    return tables


def measured(scale: Scale, rounds: int) -> list[Table]:
    """Everything that is measured at one scale."""
    stages, step_seconds = speed.stages(scale, rounds)
    return [
        stages,
        sizes.schedule(scale, step_seconds),
        speed.savings(scale, rounds),
        speed.accelerations(scale, rounds),
        memory.training(scale),
        memory.long_videos(scale),
    ]


def not_run(scale: Scale) -> Table:
    """The place of a scale that this machine cannot run."""
    title = f"{scale.model} at {scale.size}² in {scale.precision} on {scale.device}"
    return Table(title, ("work", "median"), [[line, "not run: no CUDA device"] for line in GPU_LINES])
