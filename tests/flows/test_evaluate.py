"""An evaluation's clips: those without true frames are left out and told of, and count for nothing.

Evaluated is where something changed, or was interrupted; pictures are of the worst clips.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flows.evaluate import (
    ClipPictures,
    EvaluationConfig,
    clip_folder,
    evaluate_model,
    evaluate_where_changed,
)
from flows.train import STAMP as TRAINING_STAMP
from model.config import ModelConfig
from model.evaluate import GeneratedClip, read_clip
from model.metrics_weights import ALEXNET, MetricWeightsConfig
from model.pipeline import build_pipeline
from model.run import LOCK, held
from storage.config import load_config
from storage.dataset import Dataset
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
    (folder.parent / TRAINING_STAMP).write_text("{}")
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


def test_the_mean_frame_is_of_what_is_trained_on_beside_the_evaluated_split(
    model: Path, store: Store, tmp_path: Path
) -> None:
    def by_object(toy: Manifest) -> Manifest:
        tested = {"held0": "test"}
        rows = [replace(r, split="test", object_split=tested.get(r.session, "train")) for r in toy.rows]
        return replace(toy, rows=tuple(rows))

    update(store, "toy", by_object)  # nobody is trained on by sequence
    metrics = evaluate_model(
        model, CONFIG.model_copy(update={"split": "object:test"}), store, tmp_path
    ).metrics
    assert metrics["baselines"]["mean_frame"]["psnr"] > 0


def test_a_result_that_another_evaluation_began_to_overwrite_is_made_again(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    evaluate_where_changed(model, CONFIG, store, tmp_path)
    videos = [path.read_bytes() for path in tmp_path.rglob("*.mp4")]
    other = CONFIG.model_copy(update={"sampling": CONFIG.sampling.model_copy(update={"seed": 8})})
    with monkeypatch.context() as patch:
        patch.setattr("flows.evaluate.save_png", killed)
        with pytest.raises(RuntimeError, match="killed"):
            evaluate_model(model, other, store, tmp_path)
    assert [path.read_bytes() for path in tmp_path.rglob("*.mp4")] != videos
    _, is_made = evaluate_where_changed(model, CONFIG, store, tmp_path)
    assert is_made
    assert [path.read_bytes() for path in tmp_path.rglob("*.mp4")] == videos


def test_a_refused_evaluation_leaves_the_older_result_as_it_is(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate_where_changed(model, CONFIG, store, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "size", lambda _, row: (64, 64) if row.split == "test" else (32, 32))
        with pytest.raises(InputError, match=r"size: found 32 by 32 .*, 64 by 64 .*, wanted one size"):
            evaluate_model(model, CONFIG, store, tmp_path)
    assert not evaluate_where_changed(model, CONFIG, store, tmp_path)[1]


def test_nothing_of_an_older_evaluation_stands_beside_one_that_was_stopped(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    both = CONFIG.model_copy(update={"max_clips": None})
    evaluate_where_changed(model, both, store, out)
    mine = out / "clips" / "held1+cam0" / "notes.txt"
    mine.write_text("mine")
    add = ClipPictures.add

    def stop(pictures: ClipPictures, clip: GeneratedClip) -> None:
        add(pictures, clip)
        raise KeyboardInterrupt

    monkeypatch.setattr(ClipPictures, "add", stop)
    with pytest.raises(KeyboardInterrupt, match="begins with its first clip again"):
        evaluate_model(model, both, store, out)
    first = out / "clips" / "held0+cam0"
    left = {path for path in out.rglob("*") if path.is_file()}
    assert left == {first / "comparison.mp4", first / "generated.mp4", mine, out / LOCK}


def test_one_evaluation_at_a_time_is_at_work_in_a_folder(model: Path, store: Store, tmp_path: Path) -> None:
    with held(tmp_path / "out"), pytest.raises(InputError, match=r"out: found another run at work in it"):
        evaluate_model(model, CONFIG, store, tmp_path / "out")
    assert evaluate_model(model, CONFIG, store, tmp_path / "out").report.is_file()


def test_a_split_without_clips_is_told_beside_those_that_have_some(
    model: Path, store: Store, tmp_path: Path
) -> None:
    by_object = CONFIG.model_copy(update={"split": "object:test"})
    wanted = r"no clips of split 'object:test' \(there are: test, train, object:train\)"
    with pytest.raises(InputError, match=wanted):
        evaluate_model(model, by_object, store, tmp_path / "out")


def test_clips_of_like_names_have_folders_of_their_own(tmp_path: Path) -> None:
    ids = ("a-b/c", "a/b-c", "a/b+c", "a+b/c", "a%2Bb/c", "object:a/b", "object-a/b", "タ/b")
    folders = {clip_folder(tmp_path, clip) for clip in ids}
    assert len(folders) == len(ids)
    assert {folder.parent for folder in folders} == {tmp_path / "clips"}


def test_weights_that_are_broken_are_told_before_the_first_clip(
    model: Path, store: Store, tmp_path: Path
) -> None:
    (tmp_path / ALEXNET.files[0]).write_bytes(b"torn")
    metrics = CONFIG.metrics.model_copy(update={"weights": MetricWeightsConfig(folder=tmp_path)})
    config = CONFIG.model_copy(update={"metrics": metrics})
    with pytest.raises(InputError, match=ALEXNET.files[0]):
        evaluate_model(model, config, store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_detector_and_other_code_are_changes(
    model: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_made() -> bool:
        return evaluate_where_changed(model, CONFIG, store, tmp_path / "out")[1]

    assert [is_made(), is_made()] == [True, False]
    monkeypatch.setattr("model.figures.why_no_detector", lambda _: None)
    assert [is_made(), is_made()] == [True, False]
    monkeypatch.setattr("flows.evaluate.CODE", "another")
    assert [is_made(), is_made()] == [True, False]


def test_sheet_and_report_keep_pictures_of_the_worst_clips(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.evaluate.MOST_CLIPS", 1)
    toy = Dataset.open(store, "toy")
    pictures = ClipPictures(tmp_path, toy, CONFIG.sampling)
    for row, psnr in zip(toy.rows("test"), (30.0, 10.0), strict=True):
        window = read_clip(toy, row, CONFIG.sampling)
        pictures.add(GeneratedClip(row, window.frames, window.frames, window.mask, {"psnr": psnr}))
    assert list(pictures.sheets) == list(pictures.worst) == ["held1/cam0"]
    assert list(pictures.folders) == ["held0/cam0", "held1/cam0"]
