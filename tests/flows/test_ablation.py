"""The benchmark and the ablation at their smallest: the same each time, stopped and gone on with."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from typer.testing import CliRunner

from flows import ablation_figures, ablation_turns
from flows.ablate import AblateConfig, AblationRun
from flows.ablation_table import FILES
from flows.benchmark import UNSEEN, BenchmarkConfig, _object_sets, plan
from flows.cli import app
from flows.sources import procedural_folder
from flows.synthesize import synthesize_sessions
from model.evaluate import read_clip
from model.metrics import masked_psnr
from storage.config import load_config
from storage.dataset import Dataset
from storage.digests import digest_tree
from storage.errors import InputError
from storage.likeness import groups
from storage.manifest import Manifest
from storage.pictures import read_picture
from storage.store import Store
from tests.flows.small_ablation import ablation

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
    assert "settings" not in so_far["notes"]
    other = ("--set", "image.learning_rate=0.5", "--set", "sampling.num_inference_steps=2")
    told = run(*arguments, "--so-far", *other)["notes"]["settings"]
    assert told == "not all runs were made with these: image.learning_rate, sampling.num_inference_steps"
    more = (*arguments, "--so-far", "--set", "tests.more={dataset: benchmark}")
    lacking = CliRunner().invoke(app, [str(argument) for argument in more])
    assert "figures.json: tests: found seen, unseen, alone, wanted more, too" in lacking.stderr

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
        assert len(list(csv.DictReader(file))) == 5 * 3 * 13  # rows, tests, figures
    height, width, _ = read_picture(out / "comparison.png").shape
    assert width > 4 * 192  # layers, truth and both variants
    assert height > 3 * 192  # a clip of each test
    assert "data:image/png;base64," in (out / "ablation.html").read_text()
    assert not list(out.rglob("checkpoints"))
    assert not list(out.glob(".at-work-*"))

    (out / ".at-work-of-one-that-was-killed.lock").touch()
    with FileLock(out / ".at-work-by-others.lock"):
        refused = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "found another process at work in it, with other settings of training" in refused.stderr
    assert [path.name for path in out.glob(".at-work-*")] == [".at-work-by-others.lock"]

    with FileLock(out / "full" / ".seed-0.lock"):
        words = (*arguments, "--set", "sampling.num_inference_steps=2")
        refused = CliRunner().invoke(app, [str(word) for word in words])
    assert "seed-0: found another process at it, with other settings or code" in refused.stderr
    assert run(*arguments, "--so-far") == results  # nothing was touched
    copy = shutil.copytree(out, tmp_path / "copy")
    other = ("tests={other: {dataset: benchmark-unseen}}", "claims=[]", "metrics.fid_frames=0")
    sets = [word for setting in other for word in ("--set", setting)]
    elsewhere = run("ablate", config, "-o", copy, "--store", bench.store, "--json", *sets)
    assert elsewhere["variants"]["full"]["tests"].keys() == {"other"}
    assert (copy / trained.relative_to(out)).stat().st_mtime_ns == before[
        trained
    ]  # measured anew, not trained
    (out / "full" / "seed-0" / ablation_figures.STAMP).unlink()
    assert list(run(*arguments, "--so-far")["variants"]) == ["full", "controlnet"]


def _cube(folder: Path) -> Path:
    (folder / "objects").mkdir(exist_ok=True)
    return sorted(procedural_folder(folder / "objects", 1, seed=0).glob("*.glb"))[0]


def true_stills(store: Store, config: AblateConfig) -> dict[str, float]:
    """PSNR of the baselines on the seen test's hand-object area, in all frames but the first."""
    dataset = Dataset.open(store, config.tests["seen"].dataset)
    trained = [dataset.read(row, 0, 8, 2).frames for row in dataset.rows("train") if row.has_hands]
    mean = np.rint(np.concatenate(trained).mean(axis=0)).astype(np.uint8)
    windows = [read_clip(dataset, row, config.sampling) for row in dataset.rows("test") if row.has_hands]
    stills = {"first_frame": [w.frames[0] for w in windows], "mean_frame": [mean for _ in windows]}
    return {
        name: float(
            np.mean(
                [
                    masked_psnr(np.broadcast_to(still, w.frames[1:].shape), w.frames[1:], w.mask[1:])
                    for still, w in zip(each, windows, strict=True)
                ]
            )
        )
        for name, each in stills.items()
    }
