"""Times peers side by side and writes what came out.

The peers of a comparison take turns within every round, each round starting with another one, so that
whatever else the machine does hits all of them alike. A figure is the median over rounds; a ratio is the
median of the rounds' own ratios. Beside the time on the wall stands the processor time of all threads, which
hardly counts what other processes do: on a busy machine it is the one to look at.
"""

import importlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

from render.threads import available_threads


@dataclass(frozen=True)
class Table:
    """What a part found out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()  # what was measured, how, and what it is held against
    figures: Sequence[str] = ()  # pictures beside the report
    data: Mapping[str, object] = field(default_factory=dict)  # unrounded values, for programs


@dataclass(frozen=True)
class Seconds:
    """What each peer took in each round."""

    wall: dict[str, list[float]]
    processor: dict[str, list[float]]  # of all threads together


def take_turns(peers: Mapping[str, Callable[[], object]], rounds: int) -> Seconds:
    """Time each peer in each round; a first call of each is not counted."""
    names = list(peers)
    for name in names:
        peers[name]()
    seconds = Seconds({name: [] for name in names}, {name: [] for name in names})
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            wall, processor = time.perf_counter(), time.process_time()
            peers[name]()
            seconds.processor[name].append(time.process_time() - processor)
            seconds.wall[name].append(time.perf_counter() - wall)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], of: str, to: str) -> float:
    """Return the median over rounds of how many times as long as `to` a peer took."""
    return median(mine / others for mine, others in zip(seconds[of], seconds[to], strict=True))


def run_part(part: str, rounds: int, folder: Path) -> list[Table]:
    """Run the measurements of a file of tests/bench/parts."""
    tables: list[Table] = importlib.import_module(f"tests.bench.parts.{part}").run(rounds, folder)
    return tables


def machine() -> dict[str, str]:
    """Describe this machine, and how busy it was before anything was measured."""
    cores, load = available_threads(), os.getloadavg()[0]
    return {
        "processor": _processor(),
        "cores used": f"{cores} of {os.cpu_count()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "load before": f"{load:.1f}" + (" (shared: other work ran beside it)" if load > 0.5 else ""),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_report(parts: Mapping[str, Sequence[Table]], described: Mapping[str, str], folder: Path) -> Path:
    """Write report.md and, for each part, <part>.json; return the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Benchmarks", "", *(f"- {name}: {value}" for name, value in described.items())]
    for part, tables in parts.items():
        found = {"machine": described, "tables": [asdict(table) for table in tables]}
        (folder / f"{part}.json").write_text(json.dumps(found, indent=2) + "\n")
        for table in tables:
            lines += ["", f"## {table.title}", "", *_markdown(table)]
    report = folder / "report.md"
    report.write_text("\n".join(lines) + "\n")
    return report


def _markdown(table: Table) -> list[str]:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"- {note}" for note in table.notes)] if table.notes else []
    for figure in table.figures:
        lines += ["", f"![{table.title}]({figure})"]
    return lines
