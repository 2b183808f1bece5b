"""The ablation's variants, and its table of figures that are made up: spreads, claims, time left."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from flows.ablate import (
    AREAS,
    AblateConfig,
    AblationRun,
    Countdown,
    ablation_runs,
    check_stages,
    stages,
)
from flows.ablation_table import Spread, judge, tabulate
from flows.benchmark import UNSEEN, BenchmarkConfig
from model.config import ModelConfig
from model.pipeline import build_pipeline
from storage.config import load_config
from storage.errors import InputError
from storage.store import Store
from tests.flows.small_ablation import ROOT, ablation
from tests.model.training.conftest import write_toy


def test_variants_differ_in_what_they_change_and_in_nothing_else(tmp_path: Path) -> None:
    config = load_config(AblateConfig, ablation(tmp_path))
    full, controlnet = ablation_runs(config, tmp_path)[:2]
    ((ours, _),), ((theirs, _),) = stages(full, config), stages(controlnet, config)
    changed = {key for key, value in ours.model_dump().items() if theirs.model_dump()[key] != value}
    assert changed == {"model", "batch"}
    assert theirs.batch.shares == {"hoi": 1, "object": 0}
    short = config.variants["controlnet"].model_copy(update={"iterations": 1})
    ((stage, _),) = stages(controlnet, config.model_copy(update={"variants": {"controlnet": short}}))
    assert stage == theirs.model_copy(update={"iterations": 1})
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
    ("change", "wanted"),
    [
        (
            "variants={w/o MLO: {title: x}}",
            "variants.w/o MLO.[key]': found 'w/o MLO', wanted String should match",
        ),
        ("variants={../../out: {title: x}}", "found '../../out', wanted"),
        ("variants={}", "'variants': found {}, wanted"),
        ("tests={}", "'tests': found {}, wanted"),
        ("tests={seen/hands: {dataset: benchmark}}", "found 'seen/hands', wanted"),
        ("image.stage=human", "image.stage: found human, wanted image"),
        (
            "claims=[{better: full, worse: full, test: seen, area: object}]",
            "found 'full' held against itself",
        ),
    ],
)
def test_a_config_that_would_fail_after_its_training_is_refused(
    tmp_path: Path, change: str, wanted: str
) -> None:
    claims = [] if change.startswith("claims") else ["claims=[]"]
    with pytest.raises(InputError) as caught:
        load_config(AblateConfig, ablation(tmp_path), [*claims, change])
    assert wanted in str(caught.value)


def test_what_is_wrong_with_a_variant_is_told_with_its_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    write_toy(store)
    path = ablation(tmp_path)
    for change, wanted in (
        ("variants.full.network={mloo: 1}", r"variants\.full: unknown key 'network\.mloo'"),
        ("variants.full.shares={hoi: 1}", r"variants\.full: image: batch\.shares: no share for source human"),
        (
            "sampling.num_inference_steps=2000",
            r"sampling\.num_inference_steps: found 2000, wanted at most 1000",
        ),
        ("image.dataset=tooy", r"variants\.full: image: .*no dataset 'tooy'"),
    ):
        config = load_config(AblateConfig, path, ["image.dataset=toy", change])
        with pytest.raises(InputError, match=wanted):
            check_stages(ablation_runs(config, tmp_path), config, store)


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


PAPER = ["full", "noise_only", "depth_only", "no_objects", "controlnet"]
CONTROLS = ["unsigned", "noise_depth", "full_depth", "visible_guide", "visible"]


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("ablate.yaml", PAPER + CONTROLS),
        ("ablate_gpu.yaml", PAPER + CONTROLS),
        ("ablate_objects.yaml", ["full", "no_objects", "no_objects_short"]),
    ],
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


def test_the_ablation_of_a_gpu_asks_what_that_of_a_cpu_asks() -> None:
    cpu, gpu = (load_config(AblateConfig, ROOT / f"configs/{name}.yaml") for name in ("ablate", "ablate_gpu"))
    assert (gpu.variants, gpu.claims, gpu.seeds) == (cpu.variants, cpu.claims, cpu.seeds)
    assert gpu.tests.keys() == cpu.tests.keys()


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
