"""Run folders and the store beside them: one run at a time, nothing of others replaced, what is kept."""

import json
import re
from pathlib import Path

import pytest

from model.train import train
from model.training_config import TrainConfig
from storage.config import load_config
from storage.errors import InputError, StoreError
from storage.store import Store
from storage.upkeep import gc


def test_a_folder_with_a_run_is_not_overwritten(
    store: Store, image_config: TrainConfig, image_run: Path
) -> None:
    with pytest.raises(InputError, match="holds a run already"):
        train(image_config, store, image_run)
    assert (
        train(image_config, store, image_run, resume=True).model == image_run / "model"
    )  # nothing left to do


def test_one_run_at_a_time_is_at_work_in_a_folder(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    def start_another(*_: object) -> None:
        with pytest.raises(InputError, match=f"{tmp_path}: found another run at work in it, wanted none"):
            train(image_config.model_copy(update={"seed": 1}), store, tmp_path)

    one_step = image_config.model_copy(update={"iterations": 1})
    assert len(train(one_step, store, tmp_path, start_another).losses) == 1


def test_nobody_clears_up_a_store_that_is_trained_from(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    def clear_up(*_: object) -> None:
        with pytest.raises(StoreError, match="at work in this store"):
            gc(store)

    train(image_config.model_copy(update={"iterations": 1}), store, tmp_path, clear_up)


def test_a_store_that_cannot_be_written_to_can_be_trained_from(
    store: Store,
    image_config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(_: Store) -> None:
        raise StoreError("cannot write anything: Read-only file system")

    monkeypatch.setattr(Store, "in_use", refuse)
    config = image_config.model_copy(update={"iterations": 1, "stored_latents": False})
    assert len(train(config, store, tmp_path).losses) == 1
    assert "Read-only file system; whoever clears it up meanwhile" in caplog.text


def test_a_model_that_no_run_here_made_is_not_replaced(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "work.py").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match="model is there already"):
            train(image_config, store, tmp_path, resume=resume)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "work.py"]


def test_a_log_line_that_a_kill_cut_short_does_not_stop_a_resume(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    train(image_config.model_copy(update={"iterations": 2}), store, tmp_path)
    with (tmp_path / "losses.jsonl").open("a") as log:
        log.write('{"step": 2, "lo')
    longer = image_config.model_copy(update={"iterations": 3})
    assert len(train(longer, store, tmp_path, resume=True).losses) == 3


def test_a_resume_says_what_it_cannot_go_on_from(
    store: Store, image_config: TrainConfig, image_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fewer = image_config.model_copy(update={"iterations": 2})
    with pytest.raises(InputError, match=r"iterations: found 2, wanted at least the 6 steps that .* has"):
        train(fewer, store, image_run, resume=True)
    train(fewer, store, tmp_path, resume=True)
    assert f"{tmp_path}: found no checkpoint to go on from" in caplog.text


def test_a_resume_with_other_settings_names_them(
    store: Store, image_config: TrainConfig, image_run: Path
) -> None:
    changed = image_config.model_copy(update={"seed": 7, "keep": 5})
    before = (image_run / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"other settings: seed was 0, is 7$"):
        train(changed, store, image_run, resume=True)
    assert (image_run / "config.yaml").read_text() == before


def test_old_checkpoints_are_pruned_and_the_log_has_every_step(
    store: Store, image_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    update = {"checkpoint_every": 2, "keep": 2, "memory_estimate": True}
    config = image_config.model_copy(update=update)
    with caplog.at_level("INFO", logger="model.train"):
        train(config, store, tmp_path)
    assert any(re.fullmatch(r"memory: \d.* GiB needed, \d.* GiB free", line) for line in caplog.messages)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step-00000004",
        "step-00000006",
    ]
    log = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(6))
    assert load_config(TrainConfig, tmp_path / "config.yaml") == config
