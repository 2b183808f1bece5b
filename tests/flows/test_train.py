"""Training where something changed: what another has put in the folder stays; a torn stamp is no stamp."""

import io
import re
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

import flows.evaluate
import flows.train
import model
import render.mlo
import render.skeleton
import storage.dataset
from flows.cli import app
from flows.stamps import amend_stamp, changes, write_stamp
from flows.train import (
    LINES,
    NOT_TRAINING,
    STAMP,
    code_digest,
    train_stage,
    train_where_changed,
    training_inputs,
)
from model.train import Progress, TrainResult
from model.training_config import TrainConfig
from storage.errors import InputError
from storage.manifest import Manifest
from storage.store import Store
from tests.full_disk import files_up_to


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Manifest("cups").write(store)
    photo = tmp_path / "out" / "image" / "photo.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_text("mine")
    config = TrainConfig(stage="image", dataset="cups", model=tmp_path / "model.yaml")
    for stamp, told in ((None, "No such file"), ('{"config": ', "not JSON")):
        if stamp is not None:
            (photo.parent / STAMP).write_text(stamp)
        with pytest.raises(InputError, match=f"found files of no run .*{told}.* move it away"):
            train_where_changed(config, store, photo.parent)
        assert photo.read_text() == "mine"


def test_a_stamp_that_was_cut_short_says_that_everything_changed(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp.json"
    write_stamp(stamp, {"seed": 1, "size": 2})
    assert changes(stamp, {"seed": 1, "size": 3}) == ["size"]
    stamp.write_text(stamp.read_text()[:-5])
    assert changes(stamp, {"seed": 1, "size": 2}) == ["seed", "size"]


def test_a_stamp_that_cannot_be_written_stays_what_it_was(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp.json"
    write_stamp(stamp, {"seed": 1})
    with files_up_to(0):
        amend_stamp(stamp, {"seed": 1})  # nothing to be written
        with pytest.raises(OSError, match="File too large"):
            amend_stamp(stamp, {"seed": 2})
    assert changes(stamp, {"seed": 1}) == []
    assert list(tmp_path.iterdir()) == [stamp]


def test_a_run_that_is_made_longer_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    Manifest("cups").write(store)
    config = TrainConfig(stage="image", dataset="cups", model=tmp_path / "model.yaml", iterations=4)
    monkeypatch.setattr(flows.train, "train", lambda *_, **__: TrainResult(tmp_path / "model", [], 0.0))
    train_stage(config, store, tmp_path, resume=False)
    assert not (tmp_path / STAMP).exists()  # a run of one's own has none
    (tmp_path / "model").mkdir()
    write_stamp(tmp_path / STAMP, training_inputs(config, store) | {"code": "older"})
    longer = config.model_copy(update={"iterations": 8})
    train_stage(longer, store, tmp_path, resume=True)
    assert changes(tmp_path / STAMP, training_inputs(longer, store)) == ["code"]  # its first steps' is older
    assert "config" in changes(tmp_path / STAMP, training_inputs(config, store))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_has_a_rate_and_the_time_left(
    is_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, shown = Store(tmp_path / "store"), io.StringIO()
    Manifest("cups").write(store)
    console = Console(file=shown, force_terminal=is_terminal, color_system=None, width=120)
    monkeypatch.setattr(flows.train, "stderr", console)

    def steps(config: TrainConfig, store: Store, folder: Path, progress: Progress, **_: bool) -> TrainResult:
        for done in range(1, 21):
            time.sleep(0.02)
            progress(done, 20, 0.5)
        return TrainResult(folder / "model", [], 0.0)

    monkeypatch.setattr(flows.train, "train", steps)
    config = TrainConfig(stage="image", dataset="cups", model=tmp_path / "model.yaml", iterations=20)
    train_stage(config, store, tmp_path, resume=False)
    if is_terminal:
        assert re.search(r"image stage, loss 0\.5000.*20/20 \d+\.\d\d steps/s 0:00:00", shown.getvalue())
    else:
        assert len(shown.getvalue().splitlines()) == LINES
        told = r"  step 10 of 20, loss 0\.5000, \d+\.\d\d steps/s, 0:00:0\d left\n"
        assert re.search(told, shown.getvalue())


def test_a_check_says_in_one_line_what_is_missing_and_does_nothing(tmp_path: Path) -> None:
    config = Path(__file__).parents[2] / "configs" / "train" / "tiny_temporal.yaml"
    options = ["--store", str(tmp_path / "store"), "-o", str(tmp_path / "out"), "--check"]
    result = CliRunner().invoke(app, ["train", str(config), *options])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "2 things to put right: (1) outputs/tiny_image/model: no saved model in it; (2) " in line
    assert "no dataset 'captures'" in line
    assert list(tmp_path.iterdir()) == []


def test_what_changes_results_by_rounding_alone_trains_nothing_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Manifest("cups").write(store)

    def made_from(**change: Any) -> dict[str, Any]:
        return training_inputs(
            TrainConfig(stage="image", dataset="cups", model=tmp_path / "model.yaml", **change), store
        )

    assert made_from(clip_threads=2, keep=1) == made_from()
    assert made_from(iterations=7) != made_from() != made_from(learning_rate=0.5)


def test_all_of_a_saved_model_that_a_stage_starts_from_counts(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Manifest("cups").write(store)
    schedule = tmp_path / "run" / "model" / "scheduler" / "scheduler_config.json"
    schedule.parent.mkdir(parents=True)
    config = TrainConfig(stage="human", dataset="cups", init_from=schedule.parents[1])
    starts = []
    for prediction in ("epsilon", "v_prediction"):
        schedule.write_text(prediction)
        starts.append(training_inputs(config, store)["start"])
    assert starts[0] != starts[1]


def test_files_that_no_weight_depends_on_are_there() -> None:
    named = {path.name for path in Path(model.__path__[0]).glob("*.py")}
    assert named > NOT_TRAINING  # one that was renamed would count again


@pytest.mark.parametrize("module", [flows.evaluate, storage.dataset, render.mlo, render.skeleton])
def test_code_beside_the_model_counts_whatever_its_file_is_called(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = code_digest(flows.evaluate)
    edited = tmp_path / "evaluate.py"  # the model has one of this name
    edited.write_text("# edited")
    monkeypatch.setattr(module, "__file__", str(edited))
    assert code_digest(flows.evaluate) != before
