"""The verbs that look at what is there: inspect, store, licences, doctor."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.console import print_json, print_table, reporting, stdout
from flows.options import DEFAULT_STORE, DebugOption, DryRunOption, JsonOption, ManoOption, StoreOption
from storage.errors import InputError

if TYPE_CHECKING:
    from storage.store import Store
    from storage.upkeep import Usage

store_app = typer.Typer(no_args_is_help=True, help="Look after the records.")


@store_app.command()
def status(
    store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False, debug: DebugOption = False
) -> None:
    """Count records and bytes by kind."""
    with reporting(debug=debug):
        from storage import upkeep

        _print_usage("records", upkeep.status(_existing(store)), as_json)


@store_app.command()
def verify(
    store: StoreOption = DEFAULT_STORE,
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove the damaged; a build makes them again.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Hash every record again; exit 1 if one is not what was written, or a dataset lacks one."""
    with reporting(debug=debug):
        from flows.batches import map_items
        from storage import upkeep

        records = _existing(store)
        problems = upkeep.verify(
            records, lambda examine, all_of: map_items(examine, all_of, workers=2, description="records")
        )
        dropped = upkeep.drop_damaged(records, problems) if drop else 0
        if as_json:
            print_json({"problems": [asdict(problem) for problem in problems], "dropped": dropped})
        elif problems:
            rows = [(problem.kind, problem.key, problem.reason) for problem in problems]
            advice = f"{dropped} dropped" if drop else "--drop removes the damaged"
            print_table(
                f"problems ({advice}; the next build makes them again)", ("kind", "key", "reason"), rows
            )
        else:
            stdout.print("every record is what was written, and no dataset lacks one")
        if problems:
            raise typer.Exit(1)


@store_app.command()
def gc(
    store: StoreOption = DEFAULT_STORE,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Drop the records that no dataset refers to now, and the datasets' older versions."""
    with reporting(debug=debug):
        from storage import upkeep

        dropped = upkeep.gc(_existing(store), dry_run=dry_run)
        _print_usage("would be dropped" if dry_run else "dropped", dropped, as_json)


def _existing(place: str) -> "Store":
    from storage.store import Store

    store = Store(place)
    if isinstance(store.root, Path) and not store.root.is_dir():
        raise InputError(f"{place}: no such folder", code="missing-folder")
    return store


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

        rows = Manifest.read(Store(store), dataset).rows
        objects = {
            key: entry for row in rows for key, entry in zip(row.object_keys, row.provenance, strict=True)
        }
        credits = [objects[key] for key in sorted(objects)]
        credits.sort(key=lambda credit: credit["name"])
        if as_json:
            print_json({"dataset": dataset, "objects": credits})
            return
        columns = ("name", "licence", "author", "source")
        lines = [tuple(credit.get(column, "not stated") for column in columns) for credit in credits]
        print_table(f"objects of {dataset}", columns, lines)


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
    image_encoder: Annotated[
        str | None,
        typer.Option("--image-encoder", metavar="DIR", help="Folder or hub id with CLIP's image_encoder/."),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Say what this machine has, and what to do about what it lacks."""
    with reporting(debug=debug):
        from flows.doctor import examine
        from model.pretrained import PretrainedConfig

        weights = PretrainedConfig(
            stable_diffusion=stable_diffusion, motion_modules=motion_modules, image_encoder=image_encoder
        )
        checks = examine(mano, weights)
        if as_json:
            print_json({check.name: asdict(check) for check in checks})
            return
        rows = [("yes" if check.present else "no", check.name, check.found, check.advice) for check in checks]
        print_table("this machine", ("", "what", "found", "what to do"), rows)
