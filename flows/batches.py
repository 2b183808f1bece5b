"""Mapping a function over many inputs inside one task: bounded threads, a progress bar on stderr."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import dask.bag
from rich.progress import Progress

from flows.console import stderr

Item = TypeVar("Item")
Result = TypeVar("Result")

# Few enough that a batch is short beside a stage, many enough that scheduling costs nothing beside rendering.
BATCH_SIZE = 4


def map_items(
    function: Callable[[Item], Result], items: Sequence[Item], *, workers: int, description: str
) -> list[Result]:
    """Call `function` on every item, in batches on `workers` threads; results are in the items' order."""
    if not items:
        return []
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        bar = progress.add_task(description, total=len(items))

        def counted(item: Item) -> Result:
            result = function(item)
            progress.advance(bar)
            return result

        batch_size = min(BATCH_SIZE, -(-len(items) // workers))
        batches = dask.bag.from_sequence(items, partition_size=batch_size)
        return list(batches.map(counted).compute(scheduler="threads", num_workers=workers))
