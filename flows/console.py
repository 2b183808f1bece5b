"""What the command line says: progress and errors on stderr, results on stdout.

Exit status: 0 done, 1 nothing usable or a failure, 2 wrong usage or configuration, 130 stopped by Ctrl-C.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.runtime import prepare
from storage.errors import InputError, StoreError

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130  # what shells call a program that Ctrl-C ended
# Codes of an InputError that say that what was asked for is wrong.
USAGE_CODES = {"config", "credentials", "missing-bucket", "missing-folder", "unsafe-name"}

stderr = Console(stderr=True)
stdout = Console()


@contextmanager
def reporting(*, debug: bool) -> Iterator[None]:
    """Prepare for running flows, and turn what goes wrong into one line on stderr and an exit status."""
    prepare(debug=debug)
    if not debug and is_first_process():  # else Prefect shows them
        show_warnings()
    try:
        yield
    except (typer.Exit, typer.BadParameter):
        raise
    except InputError as error:
        if debug:
            raise
        fail(str(error), WRONG_USAGE if error.code in USAGE_CODES else FAILED)
    except KeyboardInterrupt as interruption:
        fail(str(interruption) or "stopped; the same command goes on from here", INTERRUPTED)
    except StoreError as error:
        if debug:
            raise
        fail(str(error), FAILED)
    except Exception as error:
        if debug:
            raise
        fail(f"{type(error).__name__}: {error} (--debug shows where)", FAILED)


class Shown(logging.Handler):
    """Shows what the project warns of, in one line each, and none twice."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a warning."""
        line = " ".join(record.getMessage().split())
        if line in self.told:
            return
        self.told.add(line)
        stderr.print(f"manivideo: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def show_warnings() -> None:
    """Show what the project's packages warn of: Prefect's console, which would, is silent."""
    for package in ("flows", "model", "render", "storage"):
        logger = logging.getLogger(package)
        if not any(isinstance(handler, Shown) for handler in logger.handlers):
            logger.addHandler(Shown())


def is_first_process() -> bool:
    """Whether this is the process that reports, of those that torchrun or `accelerate launch` has started."""
    return os.environ.get("RANK", "0") == "0"


def check_paths(paths: Sequence[Path]) -> None:
    """Raise InputError for the first path that is not there."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such folder", code="missing-folder")


def fail(message: str, status: int) -> NoReturn:
    """Say in one line what went wrong and stop."""
    line = " ".join(message.split())
    stderr.print(f"manivideo: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def print_json(result: Mapping[str, Any]) -> None:
    """Print one JSON object as the last line of stdout."""
    typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout."""
    stdout.print(title, markup=False, highlight=False)
    if not rows:
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # names and reasons may have brackets, which are markup
    stdout.print(table)
