"""The log of a run: every step once, also after a resume; validation videos that leave training as it was."""

import io
import json
import math
import shutil
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.run_log import BOARD, LOSSES, RunLog, cut_lines, read_losses
from model.train import train
from model.trainer import StepResult
from model.training_config import TrainConfig
from storage.errors import InputError
from storage.store import Store
from storage.video import count_frames


def press_ctrl_c_after_4(done: int, steps: int, loss: float) -> None:
    if done == 4:
        signal.raise_signal(signal.SIGINT)


def test_a_resumed_run_logs_every_step_once_and_training_with_videos_is_training_without(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    plain, watched = tmp_path / "plain", tmp_path / "watched"
    train(image_config, store, plain)
    sampling = {"num_frames": 3, "num_inference_steps": 1}
    config = image_config.model_copy(
        update={
            "validation": image_config.validation.model_validate({"every": 2, "sampling": sampling}),
            "checkpoint_every": 3,
        }
    )
    with pytest.raises(KeyboardInterrupt):
        train(config, store, watched, press_ctrl_c_after_4)
    # As a kill after step 4 leaves it: the checkpoint of step 3, the log of step 4.
    shutil.rmtree(watched / "checkpoints" / "step-00000004")
    train(config, store, watched, resume=True)

    weights = [load_file(run / "checkpoints/step-00000006/network.safetensors") for run in (plain, watched)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert (plain / "losses.jsonl").read_text() == (watched / "losses.jsonl").read_text()

    lines = [json.loads(line) for line in (watched / "losses.jsonl").read_text().splitlines()]
    board = EventAccumulator(str(watched / BOARD))
    board.Reload()
    for name in ("loss", "gradient_norm", "learning_rate"):
        events = board.Scalars(name)
        assert [event.step for event in events] == list(range(6))
        assert [event.value for event in events] == pytest.approx([line[name] for line in lines])
    assert len(board.Scalars("steps_per_second")) == 6
    by_source = {(tag, event.step): event.value for tag in sources(board) for event in board.Scalars(tag)}
    for line in lines:
        for source, loss in line["by_source"].items():
            assert by_source[f"loss_by_source/{source}", line["step"]] == pytest.approx(loss)
    shown = board.Images("validation")
    assert [event.step for event in shown] == [1, 3, 5]
    moving = Image.open(io.BytesIO(shown[-1].encoded_image_string))
    assert (moving.n_frames, moving.width, moving.height) == (3, 16, 32)  # the true one above
    videos = sorted((watched / "validation").iterdir())
    assert [path.name for path in videos] == [f"step-{step:08d}.mp4" for step in (2, 4, 6)]
    assert count_frames(videos[-1]) == 3


def test_a_validation_that_fails_costs_no_step_of_the_checkpoint_beside_it(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr("model.validation.Validation.look", fail)
    validation = image_config.validation.model_validate({"every": 2})
    update = {"validation": validation, "checkpoint_every": 2}
    with pytest.raises(torch.OutOfMemoryError):
        train(image_config.model_copy(update=update), store, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_a_gradient_that_overflows_is_logged_as_json(tmp_path: Path) -> None:
    with RunLog(tmp_path, 0, rate_over=1) as log:
        log.write(0, StepResult(0.5, math.inf, 1e-3, {"hoi": 0.5}))
    (line,) = (tmp_path / "losses.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["gradient_norm"] is None


def sources(board: EventAccumulator) -> list[str]:
    return [tag for tag in board.Tags()["scalars"] if tag.startswith("loss_by_source/")]


def test_losses_are_read_up_to_a_torn_line_and_one_that_is_none_is_named(tmp_path: Path) -> None:
    log = tmp_path / LOSSES
    log.write_text('{"loss": 1.5}\n{"loss": 2}\n{"lo')
    assert read_losses(tmp_path) == [1.5, 2.0]
    log.write_text('{"loss": 1.5}\nhello\n{"loss": 2}\n')
    with pytest.raises(InputError, match=r"losses\.jsonl: line 2: found 'hello', wanted what a step logs"):
        read_losses(tmp_path)


def test_a_log_that_lacks_steps_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "losses.jsonl"
    log.write_text('{"step": 0}\n{"st')
    cut_lines(log, 1)
    assert not caplog.messages
    log.write_text('{"step": 0}\n{"st')
    cut_lines(log, 3)
    assert log.read_text() == '{"step": 0}\n'
    assert caplog.messages == [f"{log}: found 1 lines, wanted those of 3 steps: the others are lost"]


def test_lines_are_cut_in_place_and_a_torn_one_is_dropped(tmp_path: Path) -> None:
    log = tmp_path / "losses.jsonl"
    log.write_text('{"step": 0}\n{"step": 1}\n{"st')
    cut_lines(log, 2)
    assert log.read_text() == '{"step": 0}\n{"step": 1}\n'
    cut_lines(log, 0)
    assert log.read_text() == ""
    cut_lines(tmp_path / "new.jsonl", 0)
    assert (tmp_path / "new.jsonl").read_text() == ""
