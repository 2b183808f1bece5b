"""One ablation by several processes in one output folder, each on a GPU of its own: who does which run.

All are given the same settings and code. A run is held by a lock (flock) on a file beside its folder, which
the system lets go of when a process is killed.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep
from typing import Literal
from uuid import uuid4

from filelock import AcquireReturnProxy, FileLock

from flows.ablate import AblateConfig, AblationRun, Countdown, stages
from flows.ablation_figures import is_measured
from flows.console import stderr
from flows.train import is_trained, stamped_settings
from storage.digests import digest_json
from storage.errors import InputError
from storage.locks import try_to_hold
from storage.store import Store

LOOK_EVERY_S = 5.0  # for what another process holds


def turns(
    runs: Sequence[AblationRun], countdown: Countdown
) -> Iterator[tuple[AblationRun, AcquireReturnProxy]]:
    """Yield every run once, with its lock to be released after it: first those that no other process holds.

    A run that another process holds comes when that one lets go: finished, or to be gone on with.
    """
    left, waiting = list(runs), False
    while left:
        for run in left:
            held = try_to_hold(_lock_of(run))
            if held is None:
                countdown.is_shared = True
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
def alone(out_dir: Path, at: Literal["preparing", "table"]) -> Iterator[None]:
    """Hold what all runs share, for one process at a time: benchmark, configs and true frames; the table."""
    lock = out_dir / f".{at}.lock"
    held = try_to_hold(lock)
    if held is None:
        stderr.print(f"waiting for another process in {out_dir} ({at})", highlight=False)
        held = FileLock(lock, fallback_to_soft=False).acquire(poll_interval=LOOK_EVERY_S)
    with held:
        yield


@contextmanager
def at_work(config: AblateConfig, out_dir: Path) -> Iterator[None]:
    """Be at work in a folder; InputError where another process is, that trains by other settings.

    Each would take the other's finished runs for outdated, delete them and train them again.
    """
    trained = [
        None if stage is None else stamped_settings(stage) for stage in (config.image, config.temporal)
    ]
    mine = f".at-work-{digest_json(trained)[:12]}"
    with ExitStack() as stack:
        with alone(out_dir, "preparing"):
            for lock in out_dir.glob(".at-work-*.lock"):
                held = try_to_hold(lock)
                if held is not None:  # it was killed
                    lock.unlink()
                    held.lock.release()
                elif not lock.name.startswith(mine):
                    found = f"{out_dir}: found another process at work in it, with other settings"
                    raise InputError(f"{found} of training, wanted the same", code="shared-folder")
            own = out_dir / f"{mine}-{uuid4().hex}.lock"
            stack.enter_context(FileLock(own, fallback_to_soft=False).acquire())
            stack.callback(own.unlink)
        yield


@contextmanager
def nobody_at(runs: Sequence[AblationRun]) -> Iterator[None]:
    """Hold all runs, as what their figures are measured by changes; InputError where one is held."""
    with ExitStack() as stack:
        for run in runs:
            held = try_to_hold(_lock_of(run))
            if held is None:
                found = f"{run.folder}: found another process at it, with other settings or code"
                raise InputError(f"{found}, wanted the same, or none", code="shared-folder")
            stack.enter_context(held)
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


def _lock_of(run: AblationRun) -> Path:
    return run.folder.with_name(f".{run.folder.name}.lock")
