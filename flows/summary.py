"""What the verbs print when they are done, for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows.console import FAILED, fail, print_json, print_table

if TYPE_CHECKING:
    from flows.outcome import Outcome
    from storage.manifest import Quarantined


def report_outcome(outcome: "Outcome", seconds: float, *, dry_run: bool, as_json: bool) -> None:
    """Say what a build or an ingest came to; exit 1 where no input was of use."""
    if as_json:
        print_json(outcome.as_json(seconds))
    else:
        print_outcome(outcome, seconds, dry_run=dry_run)
    require_usable(outcome)


def require_usable(outcome: "Outcome") -> None:
    """Exit 1 where no input was of use."""
    if not outcome.planned:
        fail(f"nothing usable: all {len(outcome.quarantined)} inputs were quarantined", FAILED)


def print_outcome(outcome: "Outcome", seconds: float, *, dry_run: bool) -> None:
    """Say which records were built, or would be and why, and which inputs were set aside."""
    if dry_run:
        plans = [(plan.kind, plan.input, plan.reason) for plan in outcome.missing]
        print_table(f"{len(plans)} records would be built", ("record", "of", "why"), plans)
    print_quarantined(outcome.quarantined)
    missing, there = outcome.counts()
    rows = [(kind, str(missing[kind]), str(there[kind])) for kind in sorted(missing | there)]
    columns = ("record", "missing" if dry_run else "built", "there already")
    print_table(f"{len(outcome.rows)} clips, {seconds:.1f} s", columns, rows)


def print_quarantined(entries: Sequence["Quarantined"]) -> None:
    """List the inputs that were set aside."""
    if entries:
        rows = [(entry.input, entry.code, entry.reason) for entry in entries]
        print_table(f"{len(entries)} inputs quarantined", ("input", "code", "reason"), rows)


def print_figures(metrics: Mapping[str, Any]) -> None:
    """Show the figures beside the baselines that need no network, and what is to be known of them."""
    rivals = {name.replace("_", " "): values for name, values in metrics["baselines"].items()}
    if metrics["joints_on_truth"]["miss_rate"] is not None:
        rivals["true frames"] = metrics["joints_on_truth"]
    names = {
        "psnr": "PSNR dB",
        "ssim": "SSIM",
        "lpips": "LPIPS",
        "fid": "FID",
        "flicker": "flicker / 255",
        "mpjpe": "MPJPE px",
        "miss_rate": "missed",
    }
    uncalibrated = {name for name, is_so in metrics["calibrated"].items() if not is_so}
    columns = ("", *(f"{name}*" if key in uncalibrated else name for key, name in names.items()))
    rows = [
        (name, *(_number(values.get(key)) for key in names))
        for name, values in {"generated": metrics, **rivals}.items()
    ]
    print_table(f"hand-object area, {len(metrics['clips'])} held-out clips", columns, rows)
    notes = [(f"{name}*" if name in uncalibrated else name, note) for name, note in metrics["notes"].items()]
    if notes:
        print_table("notes (*: uncalibrated)", ("figure", ""), notes)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
