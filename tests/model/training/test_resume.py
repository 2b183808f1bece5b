"""What a resumed run may change, and what would make it another run."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from model.config import ModelConfig
from model.train import train
from model.training_config import TrainConfig
from storage.config import load_config, save_config
from storage.errors import InputError
from storage.manifest import update
from storage.store import Store


def test_settings_that_change_rounding_alone_may_be_changed(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    begun = image_config.model_copy(update={"iterations": 1, "clip_threads": 2})
    train(begun, store, tmp_path)
    update = {"iterations": 2, "clip_threads": 1, "accumulate": 2, "gradient_checkpointing": True}
    assert len(train(begun.model_copy(update=update), store, tmp_path, resume=True).losses) == 2


def test_a_model_s_file_that_changed_since_is_noticed(
    store: Store, image_config: TrainConfig, model_yaml: Path, tmp_path: Path
) -> None:
    model, run = tmp_path / "model.yaml", tmp_path / "run"
    save_config(load_config(ModelConfig, model_yaml), model)
    config = image_config.model_copy(update={"model": model, "iterations": 1})
    train(config, store, run)
    # The same weights would fit: nothing else would tell.
    save_config(load_config(ModelConfig, model_yaml, ("schedule.prediction=v_prediction",)), model)
    with pytest.raises(InputError, match=r"schedule\.prediction_type was 'sample', is 'v_prediction'$"):
        train(config.model_copy(update={"iterations": 2}), store, run, resume=True)


def test_a_dataset_that_changed_since_is_noticed(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    config = image_config.model_copy(update={"iterations": 1})
    copy = Store(tmp_path / "store")
    shutil.copytree(store.root, copy.root)
    train(config, copy, tmp_path / "run")
    update(copy, config.dataset, lambda manifest: replace(manifest, rows=manifest.rows[:-1]))
    longer = config.model_copy(update={"iterations": 2})
    with pytest.raises(
        InputError, match=r"dataset\.version was '\w+', is '\w+'; --dataset toy@\w+ is"
    ) as told:
        train(longer, copy, tmp_path / "run", resume=True)
    (trained_on,) = re.findall(r"toy@\w+", str(told.value))
    as_it_was = longer.model_copy(update={"dataset": trained_on})
    assert len(train(as_it_was, copy, tmp_path / "run", resume=True).losses) == 2


def test_processes_that_find_different_checkpoints_do_not_train_together(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.run.gather_object", lambda own: [*own, 1000])
    with pytest.raises(
        InputError, match=r"found steps \[0, 1000\], one for each process, wanted a folder that"
    ):
        train(image_config, store, tmp_path)
