"""What a store is used for works from a bucket too, and makes in it what it makes in a folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from flows.evaluate import EvaluationConfig, evaluate_model
from flows.generate import GenerateConfig, generate_clip
from flows.train import train_where_changed
from model.config import ModelConfig
from model.training_config import TrainConfig
from storage.backend import DATASETS
from storage.config import load_config, save_config
from storage.dataset import Dataset
from storage.store import Store, record_name
from storage.upkeep import gc, status, verify
from tests.flows.conftest import MakeSession
from tests.model.training.conftest import FRAMES, OVERRIDES, TINY, write_toy

SMALL = ("--set", "layers.size=32", "--set", "six_views.size=32")
THREE_FRAMES = ("--set", "num_frames=3")


def manivideo(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def told(*arguments: str | Path) -> dict[str, object]:
    result = manivideo(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    values: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return values


def everything(store: Store) -> dict[str, dict[str, bytes]]:
    """Return the bytes of every record and every dataset."""
    records = [record_name(kind, key) for kind, key in store.records()]
    files = {name: store.backend.read(name) or b"" for name in store.backend.files(DATASETS)}
    return {DATASETS: files, **{record: dict(store.backend.contents(record)) for record in records}}


@pytest.mark.usefixtures("prefect_server")
def test_a_dataset_made_in_a_bucket_equals_one_made_in_a_folder(
    objects: Path, make_session: MakeSession, bucket: str, tmp_path: Path
) -> None:
    session = make_session("cup-1")
    for place in (bucket, tmp_path / "store"):
        build = ("build", "--objects", objects, "--store", place, *SMALL, *THREE_FRAMES)
        assert told(*build)["built"] == {"frames": 2, "layers": 2, "object": 2}
        ingest = ("ingest", session, "--store", place, *SMALL)
        assert told(*ingest)["built"] == {"frames": 2, "layers": 2}  # the box is known already
        assert told(*build)["built"] == told(*ingest)["built"] == {}
    far, near = Store(bucket), Store(tmp_path / "store")
    assert everything(far) == everything(near)
    datasets = [Dataset.open(store, "captures") for store in (far, near)]
    windows = [dataset.read(dataset.rows()[0], 1, 2) for dataset in datasets]
    for name, values in vars(windows[0]).items():
        np.testing.assert_array_equal(values, getattr(windows[1], name), err_msg=name)


@pytest.mark.usefixtures("prefect_server")
def test_a_bucket_is_counted_verified_and_cleaned(objects: Path, bucket: str) -> None:
    assert manivideo("build", "--objects", objects, "--store", bucket, *SMALL, *THREE_FRAMES).exit_code == 0
    status = told("store", "status", "--store", bucket)
    assert {kind: usage["records"] for kind, usage in status.items()} == {
        "frames": 2,
        "layers": 2,
        "object": 2,
    }
    assert manivideo("store", "verify", "--store", bucket).exit_code == 0
    assert len(told("licences", "objects", "--store", bucket)["objects"]) == 2
    Store(bucket).backend.remove("datasets/objects.jsonl")
    assert set(told("store", "gc", "--store", bucket)) == {"frames", "layers", "object"}
    assert told("store", "status", "--store", bucket) == {}


def test_a_model_is_trained_used_and_judged_from_a_bucket(bucket: str, tmp_path: Path) -> None:
    store, smallest = Store(bucket), tmp_path / "smallest.yaml"
    write_toy(store)
    save_config(load_config(ModelConfig, TINY, OVERRIDES), smallest)
    settings = {"batch": {"clips": 1, "frames": 2}, "stored_latents": True, "memory_estimate": False}
    stage = TrainConfig(stage="image", dataset="toy", model=smallest, iterations=1, **settings)
    model, trained = train_where_changed(stage, store, tmp_path / "run")
    assert trained
    assert train_where_changed(stage, Store(bucket), tmp_path / "run") == (model, False)

    using = {"dataset": "toy", "sampling": {"num_inference_steps": 1}}
    video = tmp_path / "held.mp4"
    assert generate_clip(model, "held0/cam0", GenerateConfig(**using), store, video) == FRAMES
    judging = EvaluationConfig(**using, max_clips=1, metrics={"detector": "none", "fid_frames": 0})
    assert evaluate_model(model, judging, store, tmp_path / "report").report.is_file()

    assert status(store)["latents"].records == 1  # of the clip that the step drew
    assert verify(store) == []
    assert gc(store) == {}  # latents stay as long as their frames


def test_a_bucket_that_is_not_there_is_wrong_usage(bucket: str) -> None:
    result = manivideo("store", "status", "--store", "s3://nowhere/x")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "s3://nowhere/x: no such bucket: make it first, or correct the address" in line
