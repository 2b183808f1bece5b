"""Threads for compiled loops that let go of Python's lock."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def for_each(work: Callable[[Item], None], items: Iterable[Item], num_threads: int | None = None) -> None:
    """Do `work` on every item, on as many threads as this process has cores; an error of any is raised."""
    # A pool of its own: one that outlives the call hangs in a forked child.
    with ThreadPoolExecutor(num_threads or len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(work, items):
            pass
