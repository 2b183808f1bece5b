"""The benchmark and the ablation at their smallest: the same each time, stopped and gone on with."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from typer.testing import CliRunner

from flows import ablation_figures, ablation_turns
from flows.ablate import AREAS, AblateConfig, AblationRun, Countdown, ablation_runs, stages
from flows.ablation_table import FILES, Spread, judge, tabulate
from flows.benchmark import UNSEEN, BenchmarkConfig, _object_sets, plan
from flows.cli import app
from flows.sources import procedural_folder
from flows.synthesize import synthesize_sessions
from model.config import ModelConfig
from model.evaluate import read_clip
from model.metrics import masked_psnr
from model.pipeline import build_pipeline
from storage.config import load_config
from storage.dataset import Dataset
from storage.digests import digest_tree
from storage.errors import InputError
from storage.likeness import groups
from storage.manifest import Manifest
from storage.pictures import read_picture
from storage.store import Store

ROOT = Path(__file__).parents[2]
SIZE = {"six_views": {"size": 16}, "layers": {"size": 32}}
BENCHMARK = {
    "procedural": 3,
    "seen": 1,
    "unseen": 1,
    "sessions": {"train": 1, "seen": 1, "unseen": 1},
    "build": {"num_frames": 4, "test_fraction": 0, **SIZE},
    "synthesize": {
        "synthesis": {
            "num_frames": 16,
            "num_cameras": 1,
            "width": 64,
            "height": 48,
            "action": {"actions": ["clasp"], "grasp": {"num_candidates": 4}},
        }
    },
    "ingest": SIZE,
}
MODEL = {
    "unet.block_out_channels": [8, 16, 16],
    "unet.norm_num_groups": 4,
    "unet.cross_attention_dim": 8,
    "guider.channels": [4, 4, 4, 8],
    "tokens": {"channels": [4, 8], "grid": 2, "points": 2},
}


class Bench:
    """A finished benchmark and what making it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "store"
        (folder / "benchmark.yaml").write_text(yaml.safe_dump(BENCHMARK))
        self.told = self.make()

    def make(self) -> dict[str, Any]:
        out, config = self.folder / "out", self.folder / "benchmark.yaml"
        return run("benchmark", config, "-o", out, "--store", self.store, "--json")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


def run(*arguments: str | Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_nothing_that_is_trained_on_shows_an_unseen_object(bench: Bench) -> None:
    store = Store(bench.store)
    rows = Manifest.read(store, "benchmark").rows
    unseen = Manifest.read(store, "benchmark" + UNSEEN).rows
    meshes = {
        group: {path.stem for path in (bench.folder / "out" / "objects" / group).iterdir()}
        for group in ("seen", "unseen")
    }
    assert not meshes["seen"] & meshes["unseen"]
    alone = {row.session.removeprefix("object:") for row in rows if row.source == "object"}
    assert meshes["seen"] < alone
    assert not meshes["unseen"] & alone
    shapes = {
        name: {entry.shape for row in chosen if row.basis for entry in row.basis.objects}
        for name, chosen in (("trained on", rows), ("unseen", unseen))
    }
    alike = groups({f"{name} {k}": [it] for name, its in shapes.items() for k, it in enumerate(its)})
    assert all(first.startswith("unseen") for name, first in alike.items() if name.startswith("unseen"))
    assert {row.split for row in unseen} == {"test"}
    assert sorted(row.split for row in rows if row.has_hands) == ["test", "train"]
    shown = {key for row in rows if row.has_hands for key in row.object_keys}
    assert not shown & {key for row in unseen for key in row.object_keys}


def test_the_benchmark_says_what_hides_its_fingers(bench: Bench) -> None:
    assert bench.told == json.loads((bench.folder / "out" / "benchmark.json").read_text())
    for name in ("train", "seen", "unseen"):
        shares = bench.told["sets"][name]["finger_pixels"]
        assert 0 < shares["hidden"] < 1
        assert shares["hidden"] == pytest.approx(sum(v for k, v in shares.items() if k != "hidden"), abs=1e-3)
    assert bench.told["sets"]["objects"]["finger_pixels"]["hidden"] == 0
    assert bench.told["sets"]["objects"]["clips"] == 2


def test_one_seed_makes_the_same_again(bench: Bench, tmp_path: Path) -> None:
    assert bench.make() == bench.told  # nothing is made anew
    config = load_config(BenchmarkConfig, bench.folder / "benchmark.yaml")
    again = synthesize_sessions([0], plan(config, tmp_path).synthesize["unseen"], tmp_path / "unseen")
    (folder,) = again.made
    assert digest_tree(folder) == digest_tree(bench.folder / "out" / "unseen" / folder.name)


def test_a_benchmark_wants_enough_objects_and_all_sets() -> None:
    with pytest.raises(ValueError, match="3 seen and 2 unseen objects of 4"):
        BenchmarkConfig(procedural=4, seen=3, unseen=2)
    with pytest.raises(ValueError, match="wanted train, seen, unseen, found train"):
        BenchmarkConfig(sessions={"train": 1})


def test_unseen_objects_are_unlike_those_in_hands(tmp_path: Path) -> None:
    same = [Path(shutil.copy(file, tmp_path / f"{k}.glb")) for k in range(2) for file in [_cube(tmp_path)]]
    with pytest.raises(InputError, match="procedural: found 0 shapes unlike the 1 seen ones, wanted 1"):
        _object_sets(same, BenchmarkConfig(procedural=2, seen=1, unseen=1))


def ablation(folder: Path) -> Path:
    """Write a config of two variants and two seeds on the smallest model."""
    model = yaml.safe_load((ROOT / "configs" / "model" / "tiny.yaml").read_text())
    for key, value in MODEL.items():
        *parents, last = ("network." + key).split(".")
        place = model
        for parent in parents:
            place = place[parent]
        place[last] = value
    (folder / "model.yaml").write_text(yaml.safe_dump(model))
    settings = {
        "variants": {
            "full": {"title": "full"},
            "controlnet": {
                "title": "CDiff",
                "network": {"method": "controlnet"},
                "shares": {"hoi": 1, "object": 0},
            },
        },
        "seeds": [0, 1],
        "image": {
            "stage": "image",
            "dataset": "benchmark",
            "model": str(folder / "model.yaml"),
            "batch": {"clips": 1, "frames": 2},
            "iterations": 2,
            "memory_estimate": False,
            "threads": 1,
        },
        "tests": {
            "seen": {"dataset": "benchmark"},
            "unseen": {"dataset": "benchmark" + UNSEEN},
            "alone": {"dataset": "benchmark" + UNSEEN, "of": "objects"},
        },
        "sampling": {"num_frames": 2, "stride": 2, "num_inference_steps": 1},
        "claims": [{"better": "full", "worse": "controlnet", "test": "seen", "area": "hidden_fingers"}],
    }
    (folder / "ablate.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder / "ablate.yaml"


def test_a_stopped_ablation_goes_on_where_it_was_and_ends_in_one_table(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out = ablation(tmp_path), tmp_path / "out"
    arguments = ("ablate", config, "-o", out, "--store", bench.store, "--json")
    measure = ablation_figures.measure_test

    def stop(pipeline: Any, metrics: Any, test: str, true: Any, run: AblationRun, *rest: Any) -> Any:
        if (run.variant, run.seed, test) == ("full", 1, "unseen"):
            raise RuntimeError("killed")
        return measure(pipeline, metrics, test, true, run, *rest)

    monkeypatch.setattr(ablation_figures, "measure_test", stop)
    none = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--so-far")])
    assert f"{out}: no such folder" in none.stderr
    assert not out.exists()
    out.mkdir()
    none = CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--so-far")])
    assert "finished runs: found none" in none.stderr
    stopped = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert stopped.exit_code == 1
    done = [out / name / "figures.json" for name in ("truth", "full/seed-0", "controlnet/seed-0")]
    trained = out / "full" / "seed-1" / "image" / "model" / "model_index.json"
    before = {path: path.stat().st_mtime_ns for path in (*done, trained)}

    so_far = run(*arguments, "--so-far")
    assert so_far == json.loads((out / "results.json").read_text())
    found = {name: it["tests"]["seen"]["object"]["psnr"]["seeds"] for name, it in so_far["variants"].items()}
    assert {name: len(seeds) for name, seeds in found.items()} == {"full": 1, "controlnet": 1}
    assert so_far["claims"][0]["verdict"] == "open"

    monkeypatch.setattr(ablation_figures, "measure_test", measure)
    others = FileLock(out / "full" / ".seed-1.lock").acquire()  # as another process does that is at this run
    waited = []

    def let_go(seconds: float) -> None:
        waited.append({path.parent.name for path in (out / "controlnet").glob("*/figures.json")})
        others.lock.release()

    monkeypatch.setattr(ablation_turns, "sleep", let_go)
    results = run(*arguments)
    assert waited == [{"seed-0", "seed-1"}]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all((out / name).is_file() for name in FILES)
    assert results == json.loads((out / "results.json").read_text())
    found = results["variants"]["full"]["tests"]["unseen"]["hidden_fingers"]["psnr"]
    assert len(found["seeds"]) == 2
    assert found["seeds"][0] != found["seeds"][1]
    assert found["mean"] == pytest.approx(np.mean(found["seeds"]))
    assert found["deviation"] == pytest.approx(np.std(found["seeds"], ddof=1))
    assert [claim["better"] for claim in results["claims"]] == ["full"]
    for name, psnr in true_stills(Store(bench.store), load_config(AblateConfig, config)).items():
        told = results["baselines"][name]["tests"]["seen"]["hand_object"]["psnr"]
        assert told == {"mean": pytest.approx(psnr), "deviation": None, "seeds": [pytest.approx(psnr)]}
    assert results["baselines"]["truth"]["tests"]["seen"]["hand_object"]["ssim"]["mean"] == pytest.approx(1)
    assert results["baselines"]["truth"]["tests"]["seen"]["hand_object"]["fid"]["mean"] == pytest.approx(0)
    assert results["variants"]["full"]["tests"]["alone"]["hand_object"]["fid"]["mean"] > 0
    assert not results["variants"]["full"]["tests"]["alone"]["hidden_fingers"]["psnr"]["seeds"]
    table = (out / "table.md").read_text()
    rows = ["| variant", "| ---", "| full", "| CDiff", "| true first frame", "| mean training frame"]
    rows.append("| true frames")
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("|")] == 3 * rows
    columns = [line.count("hidden fingers") for line in table.splitlines() if line.startswith("| variant")]
    assert columns == [3, 3, 0]  # objects alone have none
    assert all(f"- {about}: {text}" in table for about, text in results["notes"].items())
    with (out / "table.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 * 3 * 12  # rows, tests, figures
    height, width, _ = read_picture(out / "comparison.png").shape
    assert width > 4 * 192  # layers, truth and both variants
    assert height > 3 * 192  # a clip of each test
    assert "data:image/png;base64," in (out / "ablation.html").read_text()
    assert not list(out.rglob("checkpoints"))

    with FileLock(out / "full" / ".seed-0.lock"):
        words = (*arguments, "--set", "sampling.num_inference_steps=2")
        refused = CliRunner().invoke(app, [str(word) for word in words])
    assert "seed-0: found another process at it, with other settings or code" in refused.stderr
    assert run(*arguments, "--so-far") == results  # nothing was touched
    (out / "full" / "seed-0" / ablation_figures.STAMP).unlink()
    assert list(run(*arguments, "--so-far")["variants"]) == ["full", "controlnet"]


def test_variants_differ_in_what_they_change_and_in_nothing_else(tmp_path: Path) -> None:
    config = load_config(AblateConfig, ablation(tmp_path))
    full, controlnet = ablation_runs(config, tmp_path)[:2]
    ((ours, _),), ((theirs, _),) = stages(full, config), stages(controlnet, config)
    changed = {key for key, value in ours.model_dump().items() if theirs.model_dump()[key] != value}
    assert changed == {"model", "batch"}
    assert theirs.batch.shares == {"hoi": 1, "object": 0}
    networks = [yaml.safe_load(stage.model.read_text())["network"] for stage in (ours, theirs) if stage.model]
    assert {key for key in networks[0] if networks[0][key] != networks[1][key]} == {"method"}


def test_gains_are_between_runs_of_one_seed(tmp_path: Path) -> None:
    config = load_config(AblateConfig, ablation(tmp_path))
    psnr = {("full", 0): 20.0, ("full", 1): 22.0, ("controlnet", 0): 19.0, ("controlnet", 1): 20.5}
    figures = {
        each: {
            "tests": {
                test: _test(_clip("a", psnr[each.variant, each.seed]), _clip("b", None))
                for test in config.tests
            }
        }
        for each in ablation_runs(config, tmp_path)
    }
    table = tabulate(figures, {"first_frame": figures[next(iter(figures))]}, config)
    (verdict,) = judge(figures, config)
    assert verdict["gain_db"]["seeds"] == [1.0, 1.5]
    assert verdict["seeds_for"] == 2
    assert verdict["gain_db"]["objects"] == 1
    assert verdict["verdict"] == "open"  # of one object, nobody knows
    assert str(table["full", "seen", "hand_object", "psnr"]) == "21.00 ± 1.41"
    assert str(Spread((0.5,))) == "0.500"


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ([[1.0, 1.2, 0.8], [0.5, 0.7, 0.6]], "holds"),
        ([[-1.0, -1.2, -0.8], [-0.5, -0.7, -0.6]], "contradicted"),
        ([[1.0, 1.2, 0.8], [-0.1, 0.1, -0.2]], "open"),  # one seed disagrees
        ([[3.0, -0.5, 0.1], [3.1, -0.4, 0.1]], "open"),  # one object makes the mean
        ([[1.0, 0.3, 0.3], [1.0, 0.3, 0.3]], "open"),  # it would hold if every camera counted
        ([[1.0, 1.2, 0.8]], "open"),  # one seed
    ],
)
def test_a_claim_holds_over_seeds_and_over_objects(
    gains: list[list[float]], verdict: str, tmp_path: Path
) -> None:
    config = load_config(AblateConfig, ablation(tmp_path), [f"seeds={list(range(len(gains)))}"])
    figures = {
        each: {"tests": {test: _test(*_clips(each, gains[each.seed])) for test in config.tests}}
        for each in ablation_runs(config, tmp_path)
    }
    (found,) = judge(figures, config)
    assert found["verdict"] == verdict
    over_objects = np.mean(gains, axis=0)
    assert found["gain_db"]["mean"] == pytest.approx(over_objects.mean())
    margin = 4.3027 * np.std(over_objects, ddof=1) / 3**0.5  # Student's t of two degrees of freedom
    assert found["gain_db"]["margin"] == pytest.approx(margin, rel=1e-4)


def test_a_variant_cannot_have_the_name_of_a_baseline(tmp_path: Path) -> None:
    path = ablation(tmp_path)
    path.write_text(path.read_text().replace("controlnet:", "first_frame:"))
    with pytest.raises(InputError, match=r"found \['first_frame'\], which are rows of their own"):
        load_config(AblateConfig, path)


def test_time_left_counts_what_runs_took(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 600.0, 600.0, 600.001, 600.001, 1200.0, 1200.0, 1201.0])
    monkeypatch.setattr("flows.ablate.time.monotonic", lambda: next(clock))
    runs = [AblationRun("full", seed, Path()) for seed in range(3)]
    countdown = Countdown(runs)
    for each in runs:
        with countdown.run(each):
            pass
    told = capsys.readouterr().err
    assert "run 1 of 3: full, seed 0\n" in told
    assert "run 3 of 3: full, seed 2 (about 10 min left)" in told  # the second run was there already
    countdown.is_shared = True
    with countdown.run(runs[0]):
        pass
    assert "left" not in capsys.readouterr().err


def test_a_claim_of_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    path = ablation(tmp_path)
    path.write_text(path.read_text().replace("better: full", "better: fuller"))
    with pytest.raises(InputError, match="no 'fuller'"):
        load_config(AblateConfig, path)


ALL = ["full", "noise_only", "depth_only", "no_objects", "controlnet"]


@pytest.mark.parametrize(
    ("name", "variants"),
    [("ablate.yaml", ALL), ("ablate_gpu.yaml", ALL), ("ablate_objects.yaml", ["full", "no_objects"])],
)
def test_shipped_ablations_can_be_read_and_all_variants_built(
    name: str, variants: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config(AblateConfig, ROOT / "configs" / name)
    assert config.benchmark is not None
    benchmark = load_config(BenchmarkConfig, config.benchmark)
    assert list(config.variants) == variants
    assert len(config.seeds) >= 3
    assert {test.dataset for test in config.tests.values()} == {benchmark.dataset, benchmark.dataset + UNSEEN}
    for each in ablation_runs(config, tmp_path):
        trained = [stage for stage, _ in stages(each, config)]
        assert {stage.dataset for stage in trained} == {benchmark.dataset}
        if each.seed == config.seeds[0]:
            assert trained[0].model is not None
            with torch.device("meta"):  # shapes alone
                build_pipeline(load_config(ModelConfig, trained[0].model))


def _cube(folder: Path) -> Path:
    (folder / "objects").mkdir(exist_ok=True)
    return sorted(procedural_folder(folder / "objects", 1, seed=0).glob("*.glb"))[0]


def _clip(shows: str, psnr: float | None) -> dict[str, Any]:
    figures = {"psnr": psnr, "ssim": psnr and psnr / 100, "lpips": psnr and 1 / psnr}
    figures |= {"mpjpe": None, "miss_rate": 1.0}
    return {"id": "", "shows": shows, "areas": dict.fromkeys(AREAS, figures)}


def _test(*clips: dict[str, Any]) -> dict[str, Any]:
    return {"clips": list(clips), "fid": 7.0}


def _clips(run: AblationRun, gains: list[float]) -> list[dict[str, Any]]:
    """Clips of objects on which full gains as much over others; the first is seen by most cameras."""
    return [
        _clip(f"object {number}", 20.0 + number + camera + gain * (run.variant == "full"))
        for number, gain in enumerate(gains)
        for camera in range(5 if number == 0 else 1)
    ]


def true_stills(store: Store, config: AblateConfig) -> dict[str, float]:
    """PSNR of the baselines on the seen test's hand-object area."""
    dataset = Dataset.open(store, config.tests["seen"].dataset)
    trained = [dataset.read(row, 0, 8, 2).frames for row in dataset.rows("train") if row.has_hands]
    mean = np.rint(np.concatenate(trained).mean(axis=0)).astype(np.uint8)
    windows = [read_clip(dataset, row, config.sampling) for row in dataset.rows("test") if row.has_hands]
    stills = {"first_frame": [w.frames[0] for w in windows], "mean_frame": [mean for _ in windows]}
    return {
        name: float(
            np.mean(
                [
                    masked_psnr(np.broadcast_to(still, w.frames.shape), w.frames, w.mask)
                    for still, w in zip(each, windows, strict=True)
                ]
            )
        )
        for name, each in stills.items()
    }
