"""The verbs that look at what is there: inspect, store, licences, doctor."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import print_json, print_table, reporting, stdout
from flows.options import DEFAULT_STORE, DebugOption, DryRunOption, JsonOption, ManoOption, StoreOption
from storage.errors import InputError

if TYPE_CHECKING:
    from storage.store import Store, Usage

store_app = typer.Typer(no_args_is_help=True, help="Look after the records.")


@store_app.command()
def status(
    store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Count records and bytes by kind."""
    with reporting(debug=debug):
        _print_usage("records", _existing(store).status(), as_json)


@store_app.command()
def verify(
    store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Hash every record again; exit 1 if one is not what was written."""
    with reporting(debug=debug):
        problems = _existing(store).verify()
        if as_json:
            print_json({"problems": [asdict(problem) for problem in problems]})
        elif problems:
            rows = [(problem.kind, problem.key, problem.reason) for problem in problems]
            print_table("damaged records (delete them and build again)", ("kind", "key", "reason"), rows)
        else:
            stdout.print("every record is what was written")
        if problems:
            raise typer.Exit(1)


@store_app.command()
def gc(
    store: StoreOption = DEFAULT_STORE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Drop the records that no dataset refers to."""
    with reporting(debug=debug):
        from storage.manifest import referenced_records

        records = _existing(store)
        dropped = records.gc(referenced_records(records), dry_run=dry_run)
        _print_usage("would be dropped" if dry_run else "dropped", dropped, as_json)


def _existing(store: Path) -> "Store":
    if not store.is_dir():
        raise InputError(f"{store}: no such folder", code="missing-folder")
    from storage.store import Store

    return Store(store)


def _print_usage(title: str, usages: dict[str, "Usage"], as_json: bool) -> None:
    if as_json:
        print_json({kind: asdict(usage) for kind, usage in usages.items()})
        return
    rows = [(kind, str(usage.records), f"{usage.bytes / 2**20:.1f}") for kind, usage in usages.items()]
    print_table(title, ("kind", "records", "MiB"), rows)


def inspect(
    subject: Annotated[str, typer.Argument(metavar="X", help="A .glb file, a dataset or a clip.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PNG")] = Path("sheet.png"),
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="Of the clip.")] = "captures",
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Draw a contact sheet: six views, layers, confidence, frames."""
    with reporting(debug=debug):
        from flows.pictures import save_png
        from flows.sheets import contact_sheet
        from storage.store import Store

        sheet = contact_sheet(subject, Store(store), dataset)
        out.parent.mkdir(parents=True, exist_ok=True)
        save_png(sheet, out)
        if as_json:
            print_json({"picture": str(out), "width": sheet.shape[1], "height": sheet.shape[0]})
        else:
            stdout.print(f"{out}: {sheet.shape[1]} by {sheet.shape[0]} pixels", markup=False, highlight=False)


def licences(
    dataset: str,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """List whose objects a dataset uses, and under which licence."""
    with reporting(debug=debug):
        from storage.manifest import Manifest
        from storage.store import Store

        records = Store(store)
        keys = sorted({key for row in Manifest.read(records, dataset).rows for key in row.object_keys})
        entries = [records.open("object", key).attrs for key in keys]
        credits = [{"name": entry["name"], **entry["provenance"]} for entry in entries]
        credits.sort(key=lambda credit: credit["name"])
        if as_json:
            print_json({"dataset": dataset, "objects": credits})
            return
        columns = ("name", "licence", "author", "source")
        rows = [tuple(credit.get(column, "not stated") for column in columns) for credit in credits]
        print_table(f"objects of {dataset}", columns, rows)


def doctor(
    mano: ManoOption = None,
    stable_diffusion: Annotated[
        str | None,
        typer.Option("--stable-diffusion", metavar="DIR", help="Folder or hub id of SD 1.5."),
    ] = None,
    motion_modules: Annotated[
        str | None,
        typer.Option("--motion-modules", metavar="DIR", help="Folder or hub id of AnimateDiff's."),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what this machine has, and what to do about what it lacks."""
    with reporting(debug=debug):
        from flows.doctor import examine
        from model.pretrained import PretrainedConfig

        weights = PretrainedConfig(stable_diffusion=stable_diffusion, motion_modules=motion_modules)
        checks = examine(mano, weights)
        if as_json:
            print_json({check.name: asdict(check) for check in checks})
            return
        rows = [("yes" if check.present else "no", check.name, check.found, check.advice) for check in checks]
        print_table("this machine", ("", "what", "found", "what to do"), rows)
