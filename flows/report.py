"""One self-contained HTML page about an evaluation: figures, clips, loss curves, configuration, machine.

Everything is inside the file, so it can be mailed and opens from disk with no network. Its parts are
report.html.j2, report.css and report.js beside this file.
"""

import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch

from flows.sprites import ClipSprites
from storage.durable import write_text

MOST_CLIPS = 40  # with pictures: about 0.5 MB each
NAMES = ("psnr", "ssim", "lpips", "fid", "flicker", "mpjpe", "mpjpe_mm", "miss_rate")
HIGHER_IS_BETTER = ("psnr", "ssim")
CURVE_BINS = 200
CURVE_WIDTH, CURVE_HEIGHT = 800, 240  # viewBox of the template's picture; report.css has its height in pixels
CURVE_MARGIN = 10  # above and below: half a line of the labels beside it
PARTS = tuple(Path(__file__).parent / f"report.{kind}" for kind in ("html.j2", "css", "js"))  # of the page
LIBRARIES = ("manivideo", "torch", "diffusers", "numpy", "zarr", "prefect")


@dataclass(frozen=True)
class Report:
    """What the page shows."""

    title: str
    summary: str
    metrics: Mapping[str, Any]  # metrics.json
    sprites: Mapping[str, ClipSprites]  # clip → its pictures; not every clip needs some
    losses: Mapping[str, Sequence[float]]  # by stage: one loss a step
    configs: Mapping[str, str]  # by what it is of: YAML


def write_report(report: Report, path: Path) -> None:
    """Write the page."""
    folder = Path(__file__).parent
    clips = [_clip(clip, report.sprites.get(clip["id"])) for clip in report.metrics["clips"]]
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # what comes first is shown first
    page = environment.get_template("report.html.j2").render(
        title=report.title,
        summary=report.summary,
        figures=_figures(report.metrics),
        names=NAMES,
        notes=report.metrics["notes"],
        clips=clips,
        columns=_columns(clips),
        uncalibrated=[name for name, is_so in report.metrics["calibrated"].items() if not is_so],
        most_clips=MOST_CLIPS,
        curves=[_curve(stage, losses) for stage, losses in report.losses.items() if len(losses) > 1],
        configs=report.configs,
        environment=describe_machine(),
    )
    write_text(path, page)


def describe_machine() -> dict[str, str]:
    """Name the machine and the libraries that figures were measured with."""
    libraries = {name: version(name) for name in LIBRARIES}
    machine = {
        "system": platform.platform(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "python": platform.python_version(),
    }
    return machine | libraries


def _processor() -> str:
    """Name the processor's model, where Linux tells: rounding differs between them."""
    told = Path("/proc/cpuinfo")
    models = re.findall(r"^model name\s*: (.+)$", told.read_text(), re.MULTILINE) if told.is_file() else []
    return models[0] if models else platform.machine()


def _figures(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the figures of what was generated and of what it is compared with, by what they are of."""
    baselines = {name.replace("_", " "): of for name, of in metrics["baselines"].items()}
    figures = {"generated": metrics, **baselines}
    if metrics["joints_on_truth"]["miss_rate"] is not None:
        figures["true frames"] = metrics["joints_on_truth"]
    return figures


def _clip(clip: Mapping[str, Any], sprites: ClipSprites | None) -> dict[str, Any]:
    """Return what report.js reads of a clip."""
    shown = None
    if sprites is not None:
        groups = {"videos": sprites.videos, "panels": sprites.panels}
        drawn = {
            name: {label: part.as_json() for label, part in group.items()} for name, group in groups.items()
        }
        shown = {**drawn, "still": sprites.still.as_json(), "numbers": sprites.numbers, "fps": sprites.fps}
    figures = {name: clip[name] for name in ("id", *NAMES) if clip.get(name) is not None}
    rivals = {f"{name}.psnr": of["psnr"] for name, of in clip["baselines"].items()}
    return {"figures": figures | rivals, "sprites": shown}


def _columns(clips: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the columns of the clips' table: those figures that some clip has."""
    there = {name: None for clip in clips for name in clip["figures"]}
    return [{"name": name, "higher_is_better": name.endswith(("id", *HIGHER_IS_BETTER))} for name in there]


def _curve(stage: str, losses: Sequence[float]) -> dict[str, Any]:
    """Average losses in bins of steps and place them, on a logarithmic scale, in the template's picture."""
    bins = np.array_split(np.asarray(losses, np.float64), min(CURVE_BINS, len(losses)))
    means = np.array([part.mean() for part in bins])
    heights = np.log(np.maximum(means, 1e-12))
    low, high = float(heights.min()), float(heights.max())
    x = np.linspace(0, CURVE_WIDTH, len(means))
    share = (heights - low) / max(high - low, 1e-9)
    y = CURVE_HEIGHT - CURVE_MARGIN - share * (CURVE_HEIGHT - 2 * CURVE_MARGIN)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {
        "stage": stage,
        "points": points,
        "lowest": math.exp(low),
        "highest": math.exp(high),
        "last_step": len(losses),
    }
