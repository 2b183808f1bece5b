"""Threads for compiled loops that let go of Python's lock."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def available_threads() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def for_each(work: Callable[[Item], None], items: Iterable[Item], num_threads: int | None = None) -> None:
    """Do `work` on every item, on as many threads as this process has cores; an error of any is raised."""
    # A pool of its own: one that outlives the call hangs in a forked child.
    with ThreadPoolExecutor(num_threads or available_threads()) as pool:
        for _ in pool.map(work, items):
            pass
