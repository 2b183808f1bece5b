"""Peers take turns, figures are medians, and the report says so in words and in JSON."""

import ast
import json
from pathlib import Path
from time import sleep

import pytest

from tests.bench.harness import Table, machine, ratio, take_turns, write_report

PARTS = Path(__file__).parent / "parts"


def test_peers_take_turns_and_none_is_always_first() -> None:
    calls: list[str] = []
    take_turns({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=3)  # type: ignore[misc]
    assert "".join(calls) == "abc" + "abc" + "bca" + "cab"  # the first round of all is not counted


def test_waiting_takes_no_processor_time() -> None:
    seconds = take_turns({"waits": lambda: sleep(0.02)}, rounds=2)
    assert min(seconds.wall["waits"]) >= 0.02
    assert min(seconds.processor["waits"]) < 0.02


def test_a_ratio_compares_within_rounds() -> None:
    seconds = {"mine": [1.0, 10.0, 2.0], "peer": [2.0, 20.0, 100.0]}  # the second round was disturbed
    assert ratio(seconds, "mine", "peer") == 0.5
    assert ratio(seconds, "peer", "mine") == 2.0


def test_report_holds_the_tables_and_the_machine(tmp_path: Path) -> None:
    table = Table(
        "Speed", ("what", "ms"), [["drawing", "3"]], notes=("of 7",), figures=("plot.png",), data={"x": 3.25}
    )
    report = write_report({"drawing": [table]}, {"processor": "a fast one"}, tmp_path).read_text()
    for line in ("- processor: a fast one", "## Speed", "| what | ms |", "| drawing | 3 |", "- of 7"):
        assert line in report.splitlines()
    assert "![Speed](plot.png)" in report
    found = json.loads((tmp_path / "drawing.json").read_text())
    assert found["machine"] == {"processor": "a fast one"}
    assert found["tables"][0]["data"] == {"x": 3.25}


def test_machine_names_what_figures_depend_on() -> None:
    described = machine()
    assert {"processor", "cores used", "memory", "numpy", "numba", "load before"} <= set(described)
    assert all(described.values())


@pytest.mark.parametrize("part", sorted(PARTS.glob("*.py")), ids=lambda part: part.stem)
def test_every_part_has_a_run(part: Path) -> None:
    """Read, not imported: parts need packages that only `make bench` installs."""
    functions = [node for node in ast.parse(part.read_text()).body if isinstance(node, ast.FunctionDef)]
    arguments = {function.name: [each.arg for each in function.args.args] for function in functions}
    assert arguments["run"] == ["rounds", "folder"]
