"""Options that several verbs of the command line share."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

from storage.errors import InputError

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT_STORE = "data/store"


ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG")]
StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="MANIVIDEO_STORE", help="Folder of records, or s3://BUCKET/PREFIX."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config value (repeatable).")
]
DatasetOption = Annotated[str | None, typer.Option("--dataset", metavar="NAME", help="Name of the dataset.")]
OnlyOption = Annotated[
    str | None,
    typer.Option("--only", metavar="KINDS", help="Only these records: objects,layers,frames."),
]
UidsOption = Annotated[
    Path | None, typer.Option("--uids", metavar="FILE", help="Objects of Objaverse: a file of their uids.")
]
LvisOption = Annotated[
    str | None,
    typer.Option("--lvis", metavar="NAMES", help="Objects of Objaverse: LVIS categories, as in mug,knife."),
]
SampleOption = Annotated[
    int | None,
    typer.Option(
        "--sample", metavar="N", help="So many at random of those that --uids or --lvis name, or of all."
    ),
]
ObjectsOption = Annotated[
    Path | None, typer.Option("--objects", metavar="DIR", help="Folder of GLBs; else procedural objects.")
]
ModelOption = Annotated[
    Path, typer.Option("--model", metavar="DIR", help="Folder of a saved model: <run>/model.")
]
NamedOutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Folder of what is made; by default outputs/ and CONFIG's name."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder of what is made.")]
ManoOption = Annotated[
    Path | None,
    typer.Option("--mano", metavar="DIR", help="Folder of MANO_*.pkl; else a procedural hand."),
]
FormatArgument = Annotated[
    Literal["taco", "hot3d", "graspxl"], typer.Argument(metavar="FORMAT", help="taco, hot3d or graspxl.")
]
LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", metavar="DIR", help="Folder of the objects' meshes, <uid>.glb (HOT3D)."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done and why; do nothing.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Prefect's log.")]


RunnerOption = Annotated[
    Literal["local", "dask"], typer.Option("--runner", help="Where records are made: here, or by a cluster.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="ADDRESS", help="Of the Dask scheduler, as in tcp://host:8786."),
]


def dask_address(runner: Literal["local", "dask"], address: str | None) -> str | None:
    """Return the address of the cluster to use, if any."""
    if (runner == "dask") != (address is not None):
        raise InputError("--runner dask and --address ADDRESS go together", code="config")
    return address


def overrides(assignments: Iterable[str] | None, **values: object) -> list[str]:
    """Join `--set` with the config values that have an option of their own, which win.

    JSON is YAML that cannot be taken for another type: a folder named `on` stays a name.
    """
    given = {key: value for key, value in values.items() if value is not None}
    plain = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    return [*(assignments or ()), *(f"{key}={json.dumps(value)}" for key, value in plain.items())]


def record_kinds(only: str | None) -> list[str] | None:
    """Return the kinds of records that `--only objects,layers` names."""
    if only is None:
        return None
    return [{"objects": "object"}.get(kind, kind) for kind in names(only)]


def names(listed: str) -> list[str]:
    """Return the names in `mug, knife`."""
    return [name.strip() for name in listed.split(",")]


def objaverse(uids: Path | None, lvis: str | None, sample: int | None) -> dict[str, object]:
    """Return the config values that choose objects of Objaverse."""
    chosen = {"uids": uids, "lvis": None if lvis is None else names(lvis), "sample": sample}
    return {f"objaverse.{name}": value for name, value in chosen.items()}
