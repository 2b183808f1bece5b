"""Processes that have everything imported when they begin: importing takes longer than most tests."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from time import sleep

from flows.cli import main

# Not Prefect, which reads its settings as it is imported.
IMPORTED = ["pytest", "flows.ablation_table", "flows.build", "flows.train", "torch.utils.tensorboard"]


def forks() -> ForkServerContext:
    """The context to start them in; all tests of one pytest process share the server that forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def manivideo(told: Path, *arguments: str | Path, **environment: str) -> ForkServerProcess:
    """Start `manivideo` with these arguments; what it tells people goes into a file."""
    process = forks().Process(target=be_manivideo, args=([*map(str, arguments)], environment, told))
    process.start()
    return process


def be_manivideo(arguments: list[str], environment: dict[str, str], told: Path) -> None:
    """Run and end as the program does that a shell starts: in a group of its own, which Ctrl-C is sent to."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    with told.open("w") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    sys.argv = ["manivideo", *arguments]
    try:
        main()
    finally:  # what a process of multiprocessing leaves out: Prefect would leave its server behind
        threading._shutdown()
        atexit._run_exitfuncs()


def wait_until(process: ForkServerProcess, look: Callable[[], bool]) -> None:
    """Return as soon as a process has written something that it does not end with."""
    while not look():
        assert process.exitcode is None
        sleep(0.002)
