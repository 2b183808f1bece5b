"""One self-contained HTML page about a run: figures, videos, pictures, loss curves, configuration, machine.

Everything is inside the file, so it can be mailed and opens from disk with no network.
"""

import base64
import math
import mimetypes
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

CURVE_BINS = 200
CURVE_WIDTH, CURVE_HEIGHT = 800, 240  # viewBox of the template's picture
LIBRARIES = ("manivideo", "torch", "diffusers", "numpy", "zarr", "prefect")


@dataclass(frozen=True)
class Report:
    """What the page shows."""

    title: str
    summary: str
    metrics: Mapping[str, Any]  # metrics.json
    videos: Mapping[str, Path]  # by caption
    pictures: Mapping[str, Path]  # by caption
    losses: Mapping[str, Sequence[float]]  # by stage: one loss a step
    config: str  # YAML


def write_report(report: Report, path: Path) -> None:
    """Write the page."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    page = environment.get_template("report.html.j2").render(
        title=report.title,
        summary=report.summary,
        figures=list(_figures(report.metrics)),
        notes=report.metrics.get("notes", {}),
        clips=[{"clip": clip["id"], **dict(_figures(clip))} for clip in report.metrics.get("clips", [])],
        videos=[(caption, data_uri(file)) for caption, file in report.videos.items()],
        pictures=[(caption, data_uri(file)) for caption, file in report.pictures.items()],
        curves=[_curve(stage, losses) for stage, losses in report.losses.items() if len(losses) > 1],
        config=report.config,
        environment=describe_machine(),
    )
    path.write_text(page, encoding="utf-8")


def data_uri(file: Path) -> str:
    """Return a file's bytes as a data: address."""
    kind, _ = mimetypes.guess_type(file.name)
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def describe_machine() -> dict[str, str]:
    """Name the machine and the libraries that figures were measured with."""
    libraries = {name: version(name) for name in LIBRARIES}
    machine = {
        "system": platform.platform(),
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
    }
    return machine | libraries


def _figures(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float | None]]:
    """Flatten the numbers of metrics.json to (dotted name, value); lists and words have their own places."""
    flat: list[tuple[str, float | None]] = []
    for name, value in metrics.items():
        if isinstance(value, Mapping) and name not in ("notes", "calibrated"):
            flat += _figures(value, f"{prefix}{name}.")
        elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            flat.append((f"{prefix}{name}", value))
    return flat


def _curve(stage: str, losses: Sequence[float]) -> dict[str, Any]:
    """Average losses in bins of steps and place them, on a logarithmic scale, in the template's picture."""
    bins = np.array_split(np.asarray(losses, np.float64), min(CURVE_BINS, len(losses)))
    means = np.array([part.mean() for part in bins])
    heights = np.log(np.maximum(means, 1e-12))
    low, high = float(heights.min()), float(heights.max())
    x = np.linspace(0, CURVE_WIDTH, len(means))
    y = CURVE_HEIGHT - 10 - (heights - low) / max(high - low, 1e-9) * (CURVE_HEIGHT - 20)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return {
        "stage": stage,
        "points": points,
        "lowest": math.exp(low),
        "highest": math.exp(high),
        "last_step": len(losses),
    }
