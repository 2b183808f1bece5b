"""One ablation by several processes in one output folder, each on a GPU of its own: who does which run.

A run is held by a lock on a file beside its folder, which the system lets go of when a process is killed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from filelock import AcquireReturnProxy, FileLock, Timeout

from flows.ablate import AblateConfig, AblationRun, stages
from flows.ablation_figures import is_measured
from flows.console import stderr
from flows.train import is_trained
from storage.store import Store

LOOK_EVERY_S = 5.0  # for a run that another process holds


def turns(runs: Sequence[AblationRun]) -> Iterator[tuple[AblationRun, AcquireReturnProxy]]:
    """Yield every run once, with its lock to be released after it: first those that no other process holds.

    A run that another process holds comes when that one lets go: finished, or to be gone on with.
    """
    left, waiting = list(runs), False
    while left:
        for run in left:
            try:
                held = _lock(run.folder).acquire(blocking=False)
            except Timeout:
                continue
            left.remove(run)
            yield run, held
            waiting = False
            break
        else:
            if not waiting:
                names = "; ".join(map(str, left))
                stderr.print(f"waiting for other processes, which have: {names}", highlight=False)
            waiting = True
            sleep(LOOK_EVERY_S)


@contextmanager
def alone(out_dir: Path) -> Iterator[None]:
    """Hold what all runs share, for one process at a time: benchmark, configs, true frames, table."""
    lock = _lock(out_dir)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        stderr.print(f"waiting for another process in {out_dir}", highlight=False)
        held = lock.acquire()
    with held:
        yield


def finished(runs: Sequence[AblationRun], config: AblateConfig, store: Store) -> list[AblationRun]:
    """Return the runs that any process has trained and measured as settings, data and code say now."""
    found = []
    for run in runs:
        trained = stages(run, config)
        if all(is_trained(stage, store, run_dir) for stage, run_dir in trained):
            _, last = trained[-1]
            if is_measured(last / "model", run):
                found.append(run)
    return found


def _lock(folder: Path) -> FileLock:
    """Return the lock of a folder: a hidden file beside it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))
