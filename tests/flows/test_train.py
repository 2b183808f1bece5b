"""Training where something changed: what another has put in the folder stays; a torn stamp is no stamp."""

from pathlib import Path

import pytest

from flows.stamps import changes, write_stamp
from flows.train import train_where_changed
from model.training_config import TrainConfig
from storage.manifest import Manifest
from storage.store import Store


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Manifest("cups").write(store)
    photo = tmp_path / "out" / "image" / "photo.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_text("mine")
    config = TrainConfig(stage="image", dataset="cups", model=tmp_path / "model.yaml")
    with pytest.raises(FileExistsError, match="holds no run: move it away"):
        train_where_changed(config, store, photo.parent)
    assert photo.read_text() == "mine"


def test_a_stamp_that_was_cut_short_says_that_everything_changed(tmp_path: Path) -> None:
    stamp = tmp_path / "stamp.json"
    write_stamp(stamp, {"seed": 1, "size": 2})
    assert changes(stamp, {"seed": 1, "size": 3}) == ["size"]
    stamp.write_text(stamp.read_text()[:-5])
    assert changes(stamp, {"seed": 1, "size": 2}) == ["seed", "size"]
