"""Figures of the ablation: what was being replaced is measured again; all clips have one size."""

from dataclasses import replace
from pathlib import Path

import pytest

from flows import ablation_figures
from flows.ablate import AblateConfig, AblationRun, AblationTest
from flows.ablation_figures import (
    check_tests,
    is_measured,
    is_truth_measured,
    measure_truth,
    measure_where_changed,
)
from flows.train import STAMP as TRAINING_STAMP
from model.config import ModelConfig
from model.pipeline import build_pipeline
from model.training_config import TrainConfig
from storage.config import load_config
from storage.errors import InputError
from storage.likeness import Signature
from storage.manifest import Manifest
from storage.splits import SplitBasis
from storage.store import Store
from tests.model.training.conftest import OVERRIDES, TINY, write_clip, write_toy

CONFIG = AblateConfig(
    variants={"full": {"title": "full"}},
    image=TrainConfig(stage="image", dataset="toy", model=TINY),
    tests={"seen": {"dataset": "toy"}},
    sampling={"num_frames": 2, "num_inference_steps": 1},
    metrics={"fid_frames": 0, "detector": "none"},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    write_toy(store)
    return store


def killed(*_: object, **__: object) -> None:
    raise RuntimeError("killed")


def test_figures_of_a_run_that_are_being_replaced_are_not_those_of_before(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = AblationRun("full", 0, tmp_path / "full" / "seed-0")
    model, trained = run.folder / "image" / "model", run.folder / "image" / TRAINING_STAMP
    build_pipeline(load_config(ModelConfig, TINY, OVERRIDES)).save_pretrained(model)
    trained.write_text("before")
    measure_truth(CONFIG, store, tmp_path)
    measure_where_changed(model, run, CONFIG, store)
    assert is_measured(model, run)
    trained.write_text("another")
    with monkeypatch.context() as patch:
        patch.setattr(ablation_figures, "measure_test", killed)
        with pytest.raises(RuntimeError, match="killed"):
            measure_where_changed(model, run, CONFIG, store)
    trained.write_text("before")
    assert not is_measured(model, run)


def test_true_figures_that_are_being_replaced_are_not_those_of_before(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_truth(CONFIG, store, tmp_path)
    assert is_truth_measured(CONFIG, store, tmp_path)
    averaged = CONFIG.model_copy(update={"image": CONFIG.image.model_copy(update={"split": "object:train"})})
    assert not is_truth_measured(averaged, store, tmp_path)  # its mean training frame is another
    other = CONFIG.model_copy(update={"shown": 1})
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed)
        with pytest.raises(RuntimeError, match="killed"):
            measure_truth(other, store, tmp_path)
    assert not is_truth_measured(CONFIG, store, tmp_path)


def test_tests_of_what_is_trained_on_are_refused(store: Store) -> None:
    toy = Manifest.read(store, "toy")
    basis = SplitBasis(takes=(Signature("hands", (0.1, 0.9)),))
    held = replace(next(row for row in toy.rows if row.split == "test"), basis=basis)
    Manifest("other", (held,)).write(store)
    trained = replace(held, split="train")
    pictures = next(row.frames_key for row in toy.rows if row.split == "train" and row.source == "hoi")
    nearly = replace(trained, session="copy", frames_key=pictures)
    apart = replace(nearly, basis=SplitBasis(takes=(Signature("hands", (0.1, 0.5)),)))
    for rows, tested in (
        ([trained], "other"),
        ([trained, replace(held, id="other camera")], "both"),
        ([nearly], "other"),
    ):
        Manifest("both", tuple(rows)).write(store)
        image = CONFIG.image.model_copy(update={"dataset": "both"})
        config = CONFIG.model_copy(update={"image": image, "tests": {"mine": AblationTest(dataset=tested)}})
        with pytest.raises(InputError, match=r"tests\.mine: found .*, or what is nearly it, in image\.split"):
            check_tests(config, store)
        temporal = config.image.model_copy(update={"stage": "temporal"})
        later = config.model_copy(update={"image": CONFIG.image, "temporal": temporal})
        with pytest.raises(InputError, match=r"or what is nearly it, in temporal\.split train of both"):
            check_tests(later, store)
    Manifest("both", (apart,)).write(store)
    check_tests(config, store)


def test_tests_of_another_size_than_what_is_trained_on_are_named(store: Store) -> None:
    check_tests(CONFIG, store)
    Manifest("large", (write_clip(store, "large", "hoi", split="test", seed=0, size=24),)).write(store)
    config = CONFIG.model_copy(update={"tests": {"large": AblationTest(dataset="large")}})
    with pytest.raises(InputError, match=r"16 by 16 \(.* of toy\), 24 by 24 \(large/cam0 of large\)"):
        check_tests(config, store)
