"""What a resumed run may change, and what would make it another run."""

from pathlib import Path

from model.train import train
from model.training_config import TrainConfig
from storage.store import Store


def test_settings_that_change_rounding_alone_may_be_changed(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    begun = image_config.model_copy(update={"iterations": 1, "clip_threads": 2})
    train(begun, store, tmp_path)
    update = {"iterations": 2, "clip_threads": 1, "accumulate": 2, "gradient_checkpointing": True}
    assert len(train(begun.model_copy(update=update), store, tmp_path, resume=True).losses) == 2
