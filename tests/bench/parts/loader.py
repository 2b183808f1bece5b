"""Counts the clips a second that training gets from a store: in its thread, from threads and from processes.

Each step is one clip of 24 frames in a row, drawn, read, folded to seven layers and turned into tensors by
the code that training runs. Frames are read anew each time, as of a dataset larger than memory.
"""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from model.data import Batch, BatchConfig, Draws, StepBatches, read_steps
from storage.dataset import Dataset
from storage.store import Store
from tests.bench.harness import Table
from tests.bench.parts.storage import SIZE, WINDOW, ingest_clips

STEPS = 4  # of a round
WARM_UP = 8  # steps, more than are read ahead
READ_AHEAD = 2
CACHE_BYTES = 64 << 20  # holds the references, not the clips


@dataclass
class Steps(TorchDataset[Batch]):
    """The steps of a training run, as torch's DataLoader wants them."""

    root: Path
    dataset: str
    count: int  # exhausted, so that workers end by themselves

    def __getitem__(self, step: int) -> Batch:
        return self.batches(step)

    @cached_property
    def batches(self) -> StepBatches:
        """What each process opens once."""
        return step_batches(self.root, self.dataset)

    def __len__(self) -> int:
        return self.count


def step_batches(root: Path, dataset: str) -> StepBatches:
    """Return the batches that training would draw."""
    clips = Dataset.open(Store(root), dataset)
    config = BatchConfig(clips=1, frames=WINDOW, pick="window")
    return StepBatches(clips, Draws(clips.rows(), config, seed=0), CACHE_BYTES)


def workers(root: Path, dataset: str, count: int, processes: int) -> Iterator[Batch]:
    """Read some steps in processes."""
    steps = Steps(root, dataset, count)
    return iter(DataLoader(steps, batch_size=None, num_workers=processes, multiprocessing_context="spawn"))


def rate(steps: Iterator[Batch], count: int) -> float:
    """Return the clips a second of some steps; those that were read ahead before are not counted."""
    for _ in zip(range(WARM_UP), steps, strict=False):
        pass
    started = time.perf_counter()
    for batch in itertools.islice(steps, count):
        assert batch.clips.normals.shape[1] == WINDOW
    return count / (time.perf_counter() - started)


def run(rounds: int, folder: Path) -> list[Table]:
    """Read steps in every way, one way after the other: what reads ahead would take another's turn."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        store, dataset = ingest_clips(Path(scratch))
        assert isinstance(store.root, Path)
        count = STEPS * rounds
        ways: dict[str, Callable[[Path, str], Iterator[Batch]]] = {
            "0 workers": lambda root, name: map(step_batches(root, name), itertools.count()),
            "0 workers, a thread reads ahead": lambda root, name: read_steps(
                step_batches(root, name), 0, WARM_UP + count, READ_AHEAD
            ),
            "0 workers, two threads read ahead": lambda root, name: read_steps(
                step_batches(root, name), 0, WARM_UP + count, READ_AHEAD, threads=2
            ),
            "1 worker": lambda root, name: workers(root, name, WARM_UP + count, 1),
            "2 workers": lambda root, name: workers(root, name, WARM_UP + count, 2),
        }
        rates = {name: rate(way(store.root, dataset), count) for name, way in ways.items()}
    return [
        Table(
            title=f"clips a second from the store into training ({WINDOW} frames, {SIZE} pixels square)",
            columns=("", "clips a second", "ms a clip"),
            rows=[(name, f"{rate:.1f}", f"{1e3 / rate:.0f}") for name, rate in rates.items()],
            notes=[
                "seven layers, rgb and references as tensors; the consumer does nothing with them",
                "workers are processes of torch's DataLoader; training itself takes the thread",
            ],
            data={"clips a second": rates},
        )
    ]
