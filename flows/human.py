"""Human-centred generation, shown on a synthetic person (paper, Sec. 4.4): the settings of every step."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from flows.generate import GenerateConfig, Motion, motion_window
from flows.ingest import IngestConfig
from flows.people import PeopleConfig
from flows.pictures import column, composite_picture, labelled, resized, row, save_png
from model.training_config import TrainConfig
from storage.store import Store
from storage.video import VideoFile

PANEL_HEIGHT = 192  # pixels
SHOWN = 4  # frames of the sheet


class HumanConfig(BaseModel, frozen=True, extra="forbid"):
    """From a model that knows hands and objects to a video of a person who handles one."""

    people: PeopleConfig = PeopleConfig()
    """Videos to fine-tune on."""
    ingest: IngestConfig
    """Their frames and skeletons."""
    human: TrainConfig
    """The human stage; starts from a model of the image stage."""
    session: Path
    """A capture session whose motion is generated."""
    camera: str | None = None
    """Of the session; null: its first."""
    generate: GenerateConfig
    """The video."""


def write_sheet(
    motion: Motion, video: Path, config: GenerateConfig, store: Store, path: Path
) -> dict[str, Any]:
    """Write some frames side by side: O_B, skeleton, layers, generated; return the files."""
    window, _ = motion_window(motion, config, store)
    generated = list(VideoFile(video).frames())
    skeleton = np.zeros_like(generated) if window.skeleton is None else window.skeleton
    lines = []
    for index in np.linspace(0, len(generated) - 1, SHOWN).round().astype(int):
        layers = composite_picture(window.normals[index], window.confidence[index])
        panels = {
            "O_B": window.background,
            "S": skeleton[index],
            "layers": layers,
            "generated": generated[index],
        }
        shown = {title: resized(picture, PANEL_HEIGHT) for title, picture in panels.items()}
        lines.append(row([labelled(picture, title) for title, picture in shown.items()]))
    save_png(column(lines), path)
    return {"video": str(video), "sheet": str(path), "background": str(motion.background)}
