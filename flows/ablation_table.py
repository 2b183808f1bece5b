"""All runs of an ablation as one table with deviations, like the paper's Table 2, and one comparison picture.

    results.json, table.md, table.csv, comparison.png (like Figures 5 to 7), ablation.html with all of it

A figure is the mean over a test's clips; a table shows its mean and sample standard deviation over seeds.
Seeds say how much training varies, not how much objects do: a claim has a confidence interval over those.
"""

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import jinja2
import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.stats import sem, t

from flows.ablate import AREAS, BASELINES, AblateConfig, AblationRun, Area, Claim
from flows.ablation_figures import BESIDE, FIGURES, GENERATED, PICTURES
from flows.pictures import Picture, column, labelled, resized, row, save_png
from model.figures import mean_figures
from storage.pictures import read_picture

METRICS = {"psnr": "PSNR ↑", "ssim": "SSIM ↑", "lpips": "LPIPS ↓"}
AREA_TITLES: dict[Area, str] = {
    "hand_object": "hand and object",
    "hidden_fingers": "hidden fingers",
    "object": "visible object",
}
PANEL_HEIGHT = 192  # pixels
FILES = ("results.json", "table.md", "table.csv", "comparison.png", "ablation.html")


@dataclass(frozen=True)
class Spread:
    """One figure over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """None where no clip has the figure."""
        return fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation; None of a single seed."""
        return stdev(self.values) if len(self.values) > 1 else None

    def as_json(self) -> dict[str, Any]:
        """Return the values with their mean and deviation."""
        return {"mean": self.mean, "deviation": self.deviation, "seeds": list(self.values)}

    def __str__(self) -> str:
        if self.mean is None:
            return "-"
        digits = 2 if abs(self.mean) >= 1 else 3
        spread = "" if self.deviation is None else f" ± {self.deviation:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"


RunFigures = Mapping[AblationRun, Mapping[str, Any]]  # content of each run's figures.json
Table = Mapping[tuple[str, str, Area, str], Spread]  # (variant or baseline, test, area, metric)


def collect(runs: Sequence[AblationRun], config: AblateConfig, out_dir: Path) -> dict[str, Any]:
    """Write everything that the runs come to; return results.json."""
    figures = {run: json.loads((run.folder / FIGURES).read_text()) for run in runs}
    table = tabulate(figures, config)
    results = {
        "variants": {
            name: {
                "title": variant.title,
                "parameters": next(figures[run]["parameters"] for run in runs if run.variant == name),
                "tests": _nested(table, name, config),
            }
            for name, variant in config.variants.items()
        },
        "baselines": {
            name: {"title": title, "tests": _nested(table, name, config)} for name, title in BASELINES.items()
        },
        "claims": judge(figures, config),
        "calibrated": {
            metric: all(found["calibrated"][metric] for found in figures.values()) for metric in METRICS
        },
        "notes": {note: text for found in figures.values() for note, text in found["notes"].items()},
        "config": config.model_dump(mode="json"),
    }
    (out_dir / "results.json").write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")
    (out_dir / "table.md").write_text(markdown(results, table, config))
    write_csv(table, out_dir / "table.csv")
    save_png(comparison(config, out_dir), out_dir / "comparison.png")
    write_page(results, table, config, out_dir)
    return results


def tabulate(figures: RunFigures, config: AblateConfig) -> Table:
    """Return every figure's spread over seeds; a run's figure is the mean over the clips that have it."""
    runs = {name: [run for run in figures if run.variant == name] for name in config.variants}
    sources = {name: (GENERATED, of) for name, of in runs.items()}
    sources |= {name: (name, list(figures)[:1]) for name in BASELINES}  # no seed changes them
    table: dict[tuple[str, str, Area, str], Spread] = {}
    for name, (shown, of) in sources.items():
        for test in config.tests:
            for area in AREAS:
                clips = [
                    [clip[shown][area] for clip in figures[run]["tests"][test] if shown in clip] for run in of
                ]
                found = [mean_figures(each, tuple(METRICS)) for each in clips]
                for metric in METRICS:
                    values = (each[metric] for each in found)
                    table[name, test, area, metric] = Spread(tuple(v for v in values if v is not None))
    return table


def _nested(table: Table, name: str, config: AblateConfig) -> dict[str, Any]:
    """Return a row's figures as results.json has them."""
    return {
        test: {
            area: {metric: table[name, test, area, metric].as_json() for metric in METRICS} for area in AREAS
        }
        for test in config.tests
    }


def judge(figures: RunFigures, config: AblateConfig) -> list[dict[str, Any]]:
    """Hold what the paper says against the PSNR that came out, as differences between runs of one seed.

    Objects count once each, however many sessions and cameras show them. A claim holds where there are two
    seeds or more, all agree, and the 95 % confidence interval of the mean over objects is above 0.
    """
    verdicts = []
    for claim in config.claims:
        gains = gains_of(figures, claim)  # [seeds, objects]
        seeds = Spread(tuple(gains.mean(axis=1).tolist()) if gains.size else ())
        objects = gains.shape[1]
        margin = float(t.ppf(0.975, objects - 1) * sem(gains.mean(axis=0))) if objects > 1 else None
        verdicts.append(
            {
                **claim.model_dump(),
                "gain_db": {**seeds.as_json(), "margin": margin, "objects": objects},
                "verdict": _verdict(seeds, margin),
                "seeds_for": sum(value > 0 for value in seeds.values),
            }
        )
    return verdicts


def _verdict(seeds: Spread, margin: float | None) -> str:
    if len(seeds.values) < 2 or seeds.mean is None or margin is None:
        return "open"
    if min(seeds.values) > 0 and seeds.mean > margin:
        return "holds"
    return "contradicted" if max(seeds.values) < 0 and seeds.mean < -margin else "open"


def gains_of(figures: RunFigures, claim: Claim) -> NDArray[np.float64]:
    """Return how far one variant's PSNR is above the other's on what clips show, [seeds, objects]."""

    def clips(variant: str) -> list[list[dict[str, Any]]]:
        return [found["tests"][claim.test] for run, found in figures.items() if run.variant == variant]

    def psnr(variant: str) -> NDArray[np.float64]:  # [seeds, clips]; NaN where a clip has none
        return np.array([[c[GENERATED][claim.area]["psnr"] for c in run] for run in clips(variant)], float)

    gains = psnr(claim.better) - psnr(claim.worse)
    known = np.isfinite(gains).all(axis=0)
    shown = np.array([clip["shows"] for clip in clips(claim.better)[0]])
    by_object = [gains[:, known & (shown == each)].mean(axis=1) for each in np.unique(shown[known])]
    return np.stack(by_object, axis=1) if by_object else gains[:, :0]


def header(results: Mapping[str, Any]) -> list[str]:
    """Return the columns of each test's table."""
    marks = {name: "" if results["calibrated"][name] else " (uncalibrated)" for name in METRICS}
    figures = [
        f"{AREA_TITLES[area]}: {title}{marks[name]}" for area in AREAS for name, title in METRICS.items()
    ]
    return ["variant", "parameters", *figures]


def body(results: Mapping[str, Any], table: Table, config: AblateConfig, test: str) -> list[list[str]]:
    """Return the cells of a test's table: a row for each variant, and the baselines."""
    return [
        [
            variant.title,
            f"{results['variants'][name]['parameters'] / 1e6:.1f} M",
            *_cells(table, name, test),
        ]
        for name, variant in config.variants.items()
    ] + [[title, "", *_cells(table, name, test)] for name, title in BASELINES.items()]


def _cells(table: Table, name: str, test: str) -> list[str]:
    return [str(table[name, test, area, metric]) for area in AREAS for metric in METRICS]


def claims_text(results: Mapping[str, Any], config: AblateConfig) -> list[str]:
    """Return a line for each claim."""
    lines = []
    for verdict in results["claims"]:
        better, worse = (config.variants[verdict[side]].title for side in ("better", "worse"))
        gain = Spread(tuple(verdict["gain_db"]["seeds"]))
        where = f"{verdict['test']}, {AREA_TITLES[verdict['area']]}"
        seeds = f"{verdict['seeds_for']} of {len(gain.values)} seeds"
        margin, objects = verdict["gain_db"]["margin"], verdict["gain_db"]["objects"]
        spread = "" if margin is None else f", 95 % interval ± {margin:.2f} dB over {objects} objects"
        lines.append(f"{better} > {worse} ({where}): {verdict['verdict']}, {gain} dB, {seeds}{spread}")
    return lines


def notes_text(results: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing that the figures leave out, or stand on."""
    return [f"{about}: {text}" for about, text in results["notes"].items()]


def markdown(results: Mapping[str, Any], table: Table, config: AblateConfig) -> str:
    """Return each test's table, the claims, and what the figures leave out."""
    columns = header(results)
    parts = []
    for test in config.tests:
        rows = [columns, ["---", *["---:"] * (len(columns) - 1)], *body(results, table, config, test)]
        parts.append("\n".join([f"**{test}**", "", *("| " + " | ".join(cells) + " |" for cells in rows)]))
    lists = (claims_text(results, config), notes_text(results))
    parts += ["\n".join(f"- {line}" for line in told) for told in lists if told]
    return "\n\n".join(parts) + "\n"


def write_csv(table: Table, path: Path) -> None:
    """Write one line for each figure."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("variant", "test", "area", "metric", "mean", "deviation", "seeds"))
        for key, spread in table.items():
            writer.writerow((*key, spread.mean, spread.deviation, len(spread.values)))


def comparison(config: AblateConfig, out_dir: Path) -> Picture:
    """Return the same frames side by side: layers, truth, and each variant's with the first seed."""
    folders = {name: out_dir / PICTURES / name for name in BESIDE}
    for name, variant in config.variants.items():
        folders[variant.title] = out_dir / name / f"seed-{config.seeds[0]}" / PICTURES
    names = [
        path.name
        for test in config.tests
        for path in sorted(next(reversed(folders.values())).glob(f"{test}-*.png"))
    ]
    lines = [
        row([labelled(_panel(folder / name), _caption(title, name)) for title, folder in folders.items()])
        for name in names
    ]
    return column(lines)


def _panel(path: Path) -> Picture:
    return resized(read_picture(path), PANEL_HEIGHT)


def _caption(title: str, name: str) -> str:
    """Name the clip above the first picture of its line, the variant above the others."""
    return Path(name).stem if title == BESIDE[0] else title


def write_page(results: Mapping[str, Any], table: Table, config: AblateConfig, out_dir: Path) -> None:
    """Write a page that holds table, claims, picture and configuration, and needs no network."""
    folder = Path(__file__).parent
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)
    page = environment.get_template("ablation.html.j2").render(
        columns=header(results),
        tests={test: body(results, table, config, test) for test in config.tests},
        claims=claims_text(results, config),
        notes=notes_text(results),
        picture=base64.b64encode((out_dir / "comparison.png").read_bytes()).decode(),
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )
    (out_dir / "ablation.html").write_text(page, encoding="utf-8")
