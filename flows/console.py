"""What the command line says: progress and errors on stderr, results on stdout.

Exit status: 0 done, 1 nothing usable or a failure, 2 wrong usage or configuration.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from storage.errors import InputError

FAILED = 1
WRONG_USAGE = 2

stderr = Console(stderr=True)
stdout = Console()


@contextmanager
def one_line_errors(*, debug: bool) -> Iterator[None]:
    """Turn what goes wrong inside into one line on stderr and an exit status; `debug` shows the traceback."""
    try:
        yield
    except typer.Exit:
        raise
    except InputError as error:
        if debug:
            raise
        _fail(str(error), WRONG_USAGE if error.code == "config" else FAILED)
    except Exception as error:
        if debug:
            raise
        _fail(f"{type(error).__name__}: {error} (--debug shows where)", FAILED)


def _fail(message: str, status: int) -> None:
    line = " ".join(message.split())
    stderr.print(f"manivideo: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(status)


def print_json(result: Mapping[str, Any]) -> None:
    """Print one JSON object as the last line of stdout."""
    typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))


def print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a table on stdout."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    stdout.print(table)
