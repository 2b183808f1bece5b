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

from flows.ablate import AREAS, BASELINES, AblateConfig, AblationRun, Area, Claim, ablation_runs
from flows.ablation_figures import BESIDE, FIGURES, PICTURES, TRUTH, measured_runs, other_settings
from flows.ablation_turns import alone
from flows.console import stderr
from flows.pictures import Picture, column, labelled, resized, row, save_png
from model.figures import mean_figures
from storage.config import read_json
from storage.durable import write_text
from storage.errors import InputError
from storage.pictures import read_picture

METRICS = {
    "fid": "FID ↓",
    "lpips": "LPIPS ↓",
    "psnr": "PSNR ↑",
    "ssim": "SSIM ↑",
    "mpjpe": "MPJPE ↓",
    "miss_rate": "hands not found",
}  # in the order of the paper's Table 2; MPJPE in pixels
OF_PIXELS = ("lpips", "psnr", "ssim")  # the others are of the hand-object area alone
METRICS_OF: dict[Area, Sequence[str]] = {
    "hand_object": tuple(METRICS),
    "hidden_fingers": OF_PIXELS,
    "elsewhere": ("psnr",),
    "object": OF_PIXELS,
}
COLUMNS: tuple[tuple[Area, str], ...] = tuple(
    (area, metric) for area in AREAS for metric in METRICS if metric in METRICS_OF[area]
)
AREA_TITLES: dict[Area, str] = {
    "hand_object": "hand and object",
    "hidden_fingers": "hidden fingers",
    "elsewhere": "elsewhere",
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


def collect(
    runs: Sequence[AblationRun], config: AblateConfig, out_dir: Path, notes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Write everything that these runs, all or some of the ablation's, come to; return results.json.

    InputError where there are none, or one has no figures of a test.
    """
    if not runs:
        raise InputError(f"{out_dir}: finished runs: found none", code="no-runs")
    rows = list(config.variants)
    runs = sorted(runs, key=lambda run: rows.index(run.variant))
    figures = {run: read_json(run.folder / FIGURES) for run in runs}
    check_tests_measured(figures, config)
    truth = read_json(out_dir / TRUTH / FIGURES)
    table = tabulate(figures, truth["rows"], config)
    measured = [truth, *figures.values()]
    results = {
        "variants": {
            run.variant: {
                "title": config.variants[run.variant].title,
                "parameters": found["parameters"],
                "seeds": [each.seed for each in runs if each.variant == run.variant],
                "tests": _nested(table, run.variant, config),
            }
            for run, found in figures.items()
        },
        "baselines": {
            name: {"title": BASELINES[name], "tests": _nested(table, name, config)} for name in truth["rows"]
        },
        "claims": judge(figures, config),
        "calibrated": {
            metric: all(it["calibrated"].get(metric, True) for it in measured) for metric in METRICS
        },
        "notes": {note: text for it in measured for note, text in it["notes"].items()} | dict(notes or {}),
        "config": config.model_dump(mode="json"),
    }
    write_text(out_dir / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    write_text(out_dir / "table.md", markdown(results, table, config))
    write_csv(table, out_dir / "table.csv")
    save_png(comparison(runs, config, out_dir), out_dir / "comparison.png")
    write_page(results, table, config, out_dir)
    return results


def collect_so_far(config: AblateConfig, out_dir: Path) -> dict[str, Any]:
    """Write what the measured runs in a folder come to, whatever the settings, data and code say now."""
    if not out_dir.is_dir():
        raise InputError(f"{out_dir}: no such folder", code="no-runs")
    with alone(out_dir, "table"):
        runs, outdated = measured_runs(ablation_runs(config, out_dir), out_dir)
        if outdated:
            names = ", ".join(str(run) for run in outdated)
            stderr.print(f"left out, as the tests have changed since: {names}", highlight=False)
        notes = {}
        if runs and (others := other_settings(runs, config, out_dir)):
            notes["settings"] = f"not all runs were made with these: {', '.join(others)}"
            stderr.print(f"settings: {notes['settings']}", highlight=False)
        return collect(runs, config, out_dir, notes)


def check_tests_measured(figures: RunFigures, config: AblateConfig) -> None:
    """Raise InputError where settings name tests that finished runs have no figures of."""
    for run, measured in figures.items():
        found = measured["tests"]
        if lacking := sorted(config.tests.keys() - found.keys()):
            path = run.folder / FIGURES
            message = f"{path}: tests: found {', '.join(found)}, wanted {', '.join(lacking)}, too"
            raise InputError(f"{message}: a whole `ablate` measures them", code="no-runs")


def tabulate(figures: RunFigures, truth: Mapping[str, Mapping[str, Any]], config: AblateConfig) -> Table:
    """Return every figure's spread over seeds; `truth`: rows that need no network, each measured once."""
    names = dict.fromkeys(run.variant for run in figures)
    sources = {name: [found for run, found in figures.items() if run.variant == name] for name in names}
    sources |= {name: [found] for name, found in truth.items()}
    table: dict[tuple[str, str, Area, str], Spread] = {}
    for name, of in sources.items():
        for test in config.tests:
            for area, metric in COLUMNS:
                values = (_figure(found["tests"][test], area, metric) for found in of)
                table[name, test, area, metric] = Spread(tuple(v for v in values if v is not None))
    return table


def _figure(test: Mapping[str, Any], area: Area, metric: str) -> float | None:
    """Return a run's figure of a test: FID of all clips, else the mean over the clips that have it."""
    if metric == "fid":
        return test["fid"]
    return mean_figures([clip["areas"][area] for clip in test["clips"]], (metric,))[metric]


def _nested(table: Table, name: str, config: AblateConfig) -> dict[str, Any]:
    """Return a row's figures as results.json has them."""
    nested: dict[str, Any] = {test: {area: {} for area in AREAS} for test in config.tests}
    for test in config.tests:
        for area, metric in COLUMNS:
            nested[test][area][metric] = table[name, test, area, metric].as_json()
    return nested


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

    def clips(variant: str) -> dict[int, list[dict[str, Any]]]:  # by seed
        chosen = {run.seed: found for run, found in figures.items() if run.variant == variant}
        return {seed: found["tests"][claim.test]["clips"] for seed, found in chosen.items()}

    better, worse = clips(claim.better), clips(claim.worse)
    seeds = [seed for seed in better if seed in worse]
    if not seeds:
        return np.zeros((0, 0))

    def psnr(
        of: dict[int, list[dict[str, Any]]],
    ) -> NDArray[np.float64]:  # [seeds, clips]; NaN where undefined
        return np.array([[c["areas"][claim.area]["psnr"] for c in of[seed]] for seed in seeds], float)

    gains = psnr(better) - psnr(worse)
    known = np.isfinite(gains).all(axis=0)
    shown = np.array([clip["shows"] for clip in better[seeds[0]]])
    by_object = [gains[:, known & (shown == each)].mean(axis=1) for each in np.unique(shown[known])]
    return np.stack(by_object, axis=1) if by_object else gains[:, :0]


def cells(results: Mapping[str, Any], table: Table, config: AblateConfig, test: str) -> list[list[str]]:
    """Return a test's table: the names of its columns, a row for each variant, then the baselines.

    A column that has no figure at all is left out: the notes say why.
    """
    rows_of = results["variants"] | results["baselines"]
    titles = {name: found["title"] for name, found in rows_of.items()}
    columns = [key for key in COLUMNS if any(table[name, test, *key].values for name in titles)]
    marks = {name: "" if results["calibrated"][name] else " (uncalibrated)" for name in METRICS}
    named = [f"{AREA_TITLES[area]}: {METRICS[metric]}{marks[metric]}" for area, metric in columns]
    rows = [["variant", "parameters", "seeds", *named]]
    for name, title in titles.items():
        parameters = rows_of[name].get("parameters")
        size = "" if parameters is None else f"{parameters / 1e6:.1f} M"
        seeds = ", ".join(map(str, rows_of[name].get("seeds", ())))
        rows.append([title, size, seeds, *(str(table[name, test, *key]) for key in columns)])
    return rows


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
    parts = []
    for test in config.tests:
        columns, *body = cells(results, table, config, test)
        rows = [columns, ["---", *["---:"] * (len(columns) - 1)], *body]
        parts.append("\n".join([f"**{test}**", "", *("| " + " | ".join(each) + " |" for each in rows)]))
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


def comparison(runs: Sequence[AblationRun], config: AblateConfig, out_dir: Path) -> Picture:
    """Return the same frames side by side: layers, truth, and each variant's with the seed that most have."""
    folders = {name: out_dir / TRUTH / PICTURES / name for name in BESIDE}
    common = max(config.seeds, key=lambda seed: sum(run.seed == seed for run in runs))
    chosen = {run.variant: run for run in sorted(runs, key=lambda run: run.seed == common)}
    for name, variant in config.variants.items():
        if name in chosen:
            folders[variant.title] = chosen[name].folder / PICTURES
    truth = folders[BESIDE[-1]]
    names = [path.name for test in config.tests for path in sorted(truth.glob(f"{test}-*.png"))]
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
        tests={test: cells(results, table, config, test) for test in config.tests},
        claims=claims_text(results, config),
        notes=notes_text(results),
        picture=base64.b64encode((out_dir / "comparison.png").read_bytes()).decode(),
        config=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
    )
    write_text(out_dir / "ablation.html", page)
