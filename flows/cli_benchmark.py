"""Verbs of the benchmark of the method: `manivideo benchmark` makes it, `manivideo ablate` runs it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.console import print_json, print_table, reporting
from flows.options import (
    CONFIGS,
    DEFAULT_STORE,
    ConfigArgument,
    DebugOption,
    JsonOption,
    NamedOutOption,
    SetOption,
    StoreOption,
    overrides,
)
from storage.config import load_config


def benchmark(
    config: ConfigArgument = CONFIGS / "benchmark.yaml",
    out: NamedOutOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Occlusion-heavy synthetic clips to train and test on, how much is hidden in them, and their digest."""
    with reporting(debug=debug):
        from flows import data_dag, runs
        from flows.benchmark import BenchmarkConfig

        settings = load_config(BenchmarkConfig, config, overrides(assignments))
        out = out or Path("outputs") / config.stem
        result = runs.run(data_dag.benchmark, config=settings, store=store, out_dir=out)
        if as_json:
            print_json(result)
        else:
            print_table("of all finger pixels", *hidden_table(result["sets"]))
            print_table("digest of every array", ("sha256",), [(result["digest"],)])


def ablate(
    config: ConfigArgument = CONFIGS / "ablate.yaml",
    out: NamedOutOption = None,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    so_far: Annotated[
        bool, typer.Option("--so-far", help="Only the table of the runs that are finished.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """The same training and tests with one thing changed at a time: one table, one picture."""
    with reporting(debug=debug):
        from flows import model_dag, runs
        from flows.ablate import AblateConfig
        from flows.ablation_table import FILES, collect_so_far
        from flows.ablation_turns import alone

        settings = load_config(AblateConfig, config, overrides(assignments))
        out = out or Path("outputs") / config.stem
        if so_far:
            results = collect_so_far(settings, out)
        else:
            results = runs.run(model_dag.ablate, config=settings, store=store, out_dir=out)
        if as_json:
            print_json(results)
        else:
            with alone(out, "table"):
                typer.echo((out / "table.md").read_text(encoding="utf-8"))
            print_table("written", ("file", "path"), [(name, str(out / name)) for name in FILES])


def hidden_table(sets: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return what `describe` found as columns and rows."""
    hiders = ("hidden", "by_fingers", "by_palm", "by_object", "by_other_hand")
    columns = ("set", "sessions", "clips", "objects", *(name.replace("_", " ") for name in hiders))
    rows = [
        (
            name,
            *(str(found[key]) for key in ("sessions", "clips", "objects")),
            *(f"{found['finger_pixels'][hider]:.1%}" for hider in hiders),
        )
        for name, found in sets.items()
    ]
    return columns, rows
