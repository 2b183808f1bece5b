"""An evaluation's clips: those without true frames are left out and told of, and count for nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flows.evaluate import EvaluationConfig, evaluate_model
from model.config import ModelConfig
from model.pipeline import build_pipeline
from storage.config import load_config
from storage.errors import InputError
from storage.manifest import Manifest, update
from storage.store import Store
from tests.model.training.conftest import OVERRIDES, TINY, write_toy

CONFIG = EvaluationConfig(
    dataset="toy",
    max_clips=1,
    sampling={"num_frames": 2, "num_inference_steps": 1, "seed": 7},
    metrics={"fid_frames": 0, "detector": "none"},
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    write_toy(store)
    return store


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest model, which nothing was trained on."""
    folder = tmp_path_factory.mktemp("run") / "model"
    build_pipeline(load_config(ModelConfig, TINY, OVERRIDES)).save_pretrained(folder)
    return folder


def without_frames(store: Store, *clips: str) -> None:
    """Leave clips nothing but their motion."""

    def change(toy: Manifest) -> Manifest:
        return replace(toy, rows=tuple(replace(r, frames_key=None) if r.id in clips else r for r in toy.rows))

    update(store, "toy", change)


def test_at_most_so_many_clips_are_evaluated_of_those_that_have_true_frames(
    model: Path, store: Store, tmp_path: Path
) -> None:
    without_frames(store, "held0/cam0")
    evaluate_model(model, CONFIG, store, tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert [clip["id"] for clip in metrics["clips"]] == ["held1/cam0"]
    told = "1 of 2 left out, as motion alone has no truth: ['held0/cam0']"
    assert metrics["notes"]["clips of toy"] == told
    assert "seed: 7" in (tmp_path / "out" / "report.html").read_text()


def test_a_split_of_motion_alone_cannot_be_evaluated(model: Path, store: Store, tmp_path: Path) -> None:
    without_frames(store, "held0/cam0", "held1/cam0")
    with pytest.raises(
        InputError, match=r"toy: clips to evaluate: found none with true frames; motion alone:"
    ):
        evaluate_model(model, CONFIG, store, tmp_path / "out")
