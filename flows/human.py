"""Human-centred generation, shown on a synthetic person (paper, Sec. 4.4): the settings of every step."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, model_validator

from flows.generate import GenerateConfig, Motion, motion_window
from flows.ingest import IngestConfig
from flows.people import PeopleConfig
from flows.pictures import Picture, column, composite_picture, labelled, resized, row, save_png
from flows.sessions import find_sessions
from model.metrics import masked_psnr
from model.training_config import TrainConfig
from render.camera import Crop
from storage.dataset import ClipWindow
from storage.errors import InputError
from storage.manifest import Manifest, Quarantined
from storage.pictures import crop_and_resize
from storage.sources.session import SessionFolder
from storage.store import Store
from storage.video import VideoFile

PANEL_HEIGHT = 192  # pixels
SHOWN = 4  # frames of the sheet


class HumanConfig(BaseModel, frozen=True, extra="forbid"):
    """From a model that knows hands and objects to a video of a person who handles one."""

    people: PeopleConfig = PeopleConfig()
    """Videos to fine-tune on."""
    sessions: Path | None = None
    """Folder of capture sessions to fine-tune on beside them, so that hands are not forgotten; `session` is
    left out should it be there. Null: videos alone."""
    ingest: IngestConfig
    """Frames, skeletons and layers of both."""
    human: TrainConfig
    """The human stage; starts from a model of the image stage."""
    session: Path
    """A capture session whose motion is generated."""
    generate: GenerateConfig
    """The video."""

    @model_validator(mode="after")
    def _whole_person(self) -> Self:
        if self.generate.ingest.crop != "center":
            raise ValueError(
                f"generate.ingest.crop: found {self.generate.ingest.crop}, wanted center: the true video is"
                " compared as a whole"
            )
        return self


def sessions_beside(config: HumanConfig) -> list[Path]:
    """Return the sessions to fine-tune on; InputError where none is left, or what is named cannot be read."""
    SessionFolder(config.session).load()  # or it would be told after the people are made
    if config.sessions is None:
        return []
    if not config.sessions.is_dir():
        raise InputError(f"sessions: {config.sessions}: no such folder", code="missing-folder")
    generated = config.session.resolve()
    found = [path for path in find_sessions(config.sessions) if path.resolve() != generated]
    if not found:
        message = f"{config.sessions}: sessions to train on: found none beside {config.session}"
        raise InputError(message, code="no-clips")
    return found


def check_held_out(config: HumanConfig, store: Store) -> None:
    """Raise InputError where the session that is to be generated is trained on, under whatever path."""
    generated = SessionFolder(config.session).id
    if generated in Manifest.read(store, config.human.dataset).sessions():
        message = f"dataset {config.human.dataset}: found session {generated}, wanted it held out"
        raise InputError(f"{message} (sessions; ingest.prune drops what was there before)", code="config")


@dataclass(frozen=True)
class HumanResult:
    """What was made."""

    files: dict[str, str]
    figures: dict[str, dict[str, float]]  # what of → area → PSNR, dB
    quarantined: tuple[Quarantined, ...] = ()  # videos and sessions that were set aside

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        entries = [asdict(entry) for entry in self.quarantined]
        return {**self.files, "psnr": self.figures, "quarantined": entries}


def compare(
    motion: Motion, videos: Mapping[str, Path], config: GenerateConfig, store: Store, path: Path
) -> HumanResult:
    """Hold generated videos against their scene's true one: figures, and a picture of some frames.

    videos: by what generated them, the human stage's first.
    """
    window, _ = motion_window(motion, config, store)
    generated = {name: np.stack(list(VideoFile(video).frames())) for name, video in videos.items()}
    length = min(len(frames) for frames in generated.values())
    scene = SessionFolder(motion.session).load()
    (camera,), (true,) = scene.cameras.values(), scene.videos.values()
    size, crop = config.ingest.layers.size, Crop(0, 0, camera.height)
    frames = list(true.frames())[:: config.sampling.stride][:length]
    truth = np.stack([crop_and_resize(frame, crop, size) for frame in frames])
    still = np.broadcast_to(window.background, truth.shape)
    areas = {"hands and object": window.mask, "person and room": ~window.mask}
    figures = {
        name: {area: round(masked_psnr(shown, truth, inside), 3) for area, inside in areas.items()}
        for name, shown in {**generated, "O_B, repeated": still}.items()
    }
    save_png(sheet(window, {**generated, "truth": truth}), path)
    video = next(iter(videos.values()))
    return HumanResult({"video": str(video), "sheet": str(path), "scene": str(motion.session)}, figures)


def sheet(window: ClipWindow, videos: Mapping[str, NDArray[np.uint8]]) -> Picture:
    """Some frames of videos [T, H, W, 3], each beside what it is made of."""
    any_video = next(iter(videos.values()))
    skeleton = np.zeros_like(any_video) if window.skeleton is None else window.skeleton
    lines = []
    for index in np.linspace(0, len(any_video) - 1, SHOWN).round().astype(int):
        layers = composite_picture(window.normals[index], window.confidence[index])
        panels = {
            "O_B": window.background,
            "S": skeleton[index],
            "layers": layers,
            **{name: frames[index] for name, frames in videos.items()},
        }
        shown = {title: resized(picture, PANEL_HEIGHT) for title, picture in panels.items()}
        lines.append(row([labelled(picture, title) for title, picture in shown.items()]))
    return column(lines)
