"""How far a task has come: a bar on stderr, and whoever else listens."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.progress import Progress

from flows.console import stderr

Listener = Callable[[str, float], None]  # (what is done, per cent of it)

listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how much of `total` is done; the function that is yielded counts, in any thread."""
    tell, counting, done = listener.get(), threading.Lock(), 0
    with Progress(console=stderr, transient=True, disable=not stderr.is_terminal) as bars:
        bar = bars.add_task(description, total=total)

        def advance(count: int) -> None:
            nonlocal done
            bars.advance(bar, count)
            with counting:
                done += count
                if tell is not None:
                    tell(description, 100 * done / total)

        yield advance
