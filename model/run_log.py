"""What a training run says of its steps: `losses.jsonl`, and TensorBoard's scalars and videos.

A resumed run goes on after its newest checkpoint. What was logged of later steps is dropped: the lines at
once, TensorBoard's events when they are read, as the new ones say from which step on they replace the old.
Letters: t frames, H rows, W columns.
"""

import io
import json
import logging
import math
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.trainer import StepResult
from storage.durable import sync
from storage.errors import InputError

logger = logging.getLogger(__name__)

LOSSES, BOARD, VIDEOS = "losses.jsonl", "tensorboard", "validation"


class RunLog:
    """The open log of a run."""

    def __init__(self, folder: Path, first: int, rate_over: int) -> None:
        """Go on after `first` steps; the rate is the mean over the last `rate_over` of them."""
        from torch.utils.tensorboard import SummaryWriter  # who only reads losses need not wait for it

        self.folder = folder
        cut_lines(folder / LOSSES, first)
        self.lines = (folder / LOSSES).open("a", buffering=1)
        self.board = SummaryWriter(folder / BOARD, purge_step=first)
        self.times: deque[float] = deque([time.monotonic()], maxlen=rate_over + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.lines.close()
        self.board.close()

    def write(self, step: int, result: StepResult) -> None:
        """Log one step."""
        record = {
            "step": step,
            "loss": result.loss,
            "gradient_norm": result.gradient_norm if math.isfinite(result.gradient_norm) else None,
            "learning_rate": result.learning_rate,
            "by_source": result.by_source,
        }
        self.lines.write(json.dumps(record) + "\n")
        for name in ("loss", "gradient_norm", "learning_rate"):
            self.board.add_scalar(name, getattr(result, name), step)
        for source, loss in result.by_source.items():
            self.board.add_scalar(f"loss_by_source/{source}", loss, step)
        self.times.append(time.monotonic())
        seconds = self.times[-1] - self.times[0]
        self.board.add_scalar("steps_per_second", (len(self.times) - 1) / seconds, step)

    def video(self, step: int) -> Path:
        """The file of a step's validation video."""
        folder = self.folder / VIDEOS
        folder.mkdir(exist_ok=True)
        return folder / f"step-{step + 1:08d}.mp4"

    def show(self, step: int, generated: NDArray[np.uint8], truth: NDArray[np.uint8], fps: float) -> None:
        """Play a validation video [t, H, W, 3] on TensorBoard's page, the true one above."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        frames = np.concatenate([truth, generated], axis=1)  # [t, 2H, W, 3]
        picture = Summary.Image(
            height=frames.shape[1],
            width=frames.shape[2],
            colorspace=3,
            encoded_image_string=as_gif(frames, fps),
        )
        writer: Any = self.board.file_writer  # there while the board is open, whatever its stub says
        writer.add_summary(Summary(value=[Summary.Value(tag="validation", image=picture)]), step)

    def flush(self) -> None:
        """Put on the disk all that was logged."""
        self.board.flush()
        sync(self.folder / LOSSES)


def as_gif(frames: NDArray[np.uint8], fps: float) -> bytes:
    """Frames [t, H, W, 3] as a picture that moves, over and over."""
    first, *others = map(Image.fromarray, frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    return file.getvalue()


def cut_lines(path: Path, count: int) -> None:
    """Drop all lines but the first `count`, in place: at no time are fewer there; says where there are fewer.

    A kill may have cut the last line short.
    """
    with path.open("a+b") as file:
        file.seek(0)
        kept = [line for _ in range(count) if (line := file.readline()).endswith(b"\n")]
        file.truncate(sum(map(len, kept)))
    if (found := len(kept)) < count:
        logger.warning(
            "%s: found %d lines, wanted those of %d steps: the others are lost", path, found, count
        )


def read_losses(folder: Path) -> list[float]:
    """The loss of every step of a run so far; a last line that a kill cut short is none yet.

    Raises InputError for a line that is no step's.
    """
    losses, lines = [], (folder / LOSSES).read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            losses.append(float(json.loads(line)["loss"]))
        except (ValueError, KeyError, TypeError):
            if number < len(lines):
                found = f"line {number}: found {line[:40]!r}, wanted what a step logs"
                raise InputError(f"{folder / LOSSES}: {found}", code="damaged") from None
    return losses
