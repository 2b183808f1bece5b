"""Clips as sprites: all frames of a panel in one WebP picture, which a page shows frame by frame, exactly.

Letters: T frames, L layers, H rows, W columns.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from flows.pictures import Picture, confidence_panel, layers_panel, over_grey, resized, row
from model.evaluate import GeneratedClip
from storage.dataset import ClipWindow

MOST_FRAMES = 72  # of a clip, evenly spaced
MOST_ROWS = 256  # pixels a frame is high
PANEL_ROWS = 192  # pixels the layers' panels are high
QUALITY = 82  # of WebP, in percent


@dataclass(frozen=True)
class Sprite:
    """Frames of equal size, row by row, in one picture."""

    webp: bytes
    columns: int  # frames in a row
    width: int  # of a frame, pixels
    height: int

    def as_json(self) -> dict[str, Any]:
        """Return what the page reads."""
        source = f"data:image/webp;base64,{base64.b64encode(self.webp).decode()}"
        return {"source": source, "columns": self.columns, "width": self.width, "height": self.height}


@dataclass(frozen=True)
class ClipSprites:
    """What a page shows of a clip, all in step."""

    numbers: tuple[int, ...]  # of the frames shown
    fps: float
    videos: Mapping[str, Sprite]  # label → frames, shown side by side
    panels: Mapping[str, Sprite]  # label → frames, shown below
    still: Sprite  # the object's six views


def clip_sprites(clip: GeneratedClip, window: ClipWindow, fps: float) -> ClipSprites:
    """Draw a clip: truth and generated beside one another, layers and confidence, the object's views.

    window: the clip's, with the hands folded into seven layers.
    """
    count = min(len(clip.truth), MOST_FRAMES)
    numbers = np.linspace(0, len(clip.truth) - 1, count).round().astype(int).tolist()
    rows = min(clip.truth.shape[1], MOST_ROWS)
    videos = {"truth": clip.truth, "generated": clip.generated}
    panels = {"layers": layers_panel, "confidence": confidence_panel}
    return ClipSprites(
        numbers=tuple(numbers),
        fps=fps * count / len(clip.truth),
        videos={
            label: sprite([resized(frames[i], rows) for i in numbers]) for label, frames in videos.items()
        },
        panels={
            label: sprite([draw(window.normals[i], window.confidence[i], PANEL_ROWS) for i in numbers])
            for label, draw in panels.items()
        },
        still=sprite([row([resized(view, PANEL_ROWS // 2) for view in over_grey(window.views)])]),
    )


def sprite(frames: Sequence[Picture]) -> Sprite:
    """Put frames [H, W, 3] of equal size into one picture, about as wide as high."""
    height, width, _ = frames[0].shape
    columns = math.ceil(math.sqrt(len(frames) * height / width))
    sheet = np.zeros((math.ceil(len(frames) / columns) * height, columns * width, 3), np.uint8)
    for number, frame in enumerate(frames):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height, left : left + width] = frame
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "WEBP", quality=QUALITY, method=2)
    return Sprite(buffer.getvalue(), columns, width, height)
