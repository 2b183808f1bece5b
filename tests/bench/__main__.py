"""Runs benchmarks: `python -m tests.bench [PART …]`, where a part is a file of tests/bench/parts.

A part has one function, `run(rounds, folder)`, which measures and returns its tables; its pictures go into
the folder.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.bench.harness import Table, machine, run_part, write_report

PARTS = sorted(path.stem for path in (Path(__file__).parent / "parts").glob("*.py"))


def main() -> None:
    """Run the parts that were asked for, all where none was, and say where the report is."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="how often every peer has its turn")
    parser.add_argument("--output", type=Path, default=Path("outputs/bench"))
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    described = machine()
    options.output.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Table]] = {}
    for part in options.parts or PARTS:
        print(f"{part} …", flush=True)
        # A process each: a part finds neither the memory nor the OpenGL context of the one before.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            found[part] = process.submit(run_part, part, options.rounds, options.output).result()
        report = write_report(found, described, options.output)  # after each: an interrupted run leaves one
    print(report.read_text())
    print(f"written to {report}")


if __name__ == "__main__":
    main()
