"""Mapping a function over many inputs inside one task: bounded threads, progress shown."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import dask.bag

from flows.progress import progress

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
    with progress(description, len(items)) as advance:

        def counted(item: Item) -> Result:
            result = function(item)
            advance(1)
            return result

        batch_size = min(BATCH_SIZE, -(-len(items) // workers))
        batches = dask.bag.from_sequence(items, partition_size=batch_size)
        return list(batches.map(counted).compute(scheduler="threads", num_workers=workers))
