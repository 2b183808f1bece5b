"""The ablation: the same training and tests with one thing changed at a time (paper, Sec. 4.3, Table 2).

Below the output folder, for each variant and seed:

    .preparing.lock, .table.lock, <variant>/.seed-<n>.lock   held by the process that is at it
    .at-work-<settings>-<id>.lock           of each process, while it is at work
    truth/                                  figures of what needs no network, true frames and layers
    <variant>/model.yaml
    <variant>/seed-<n>/image/, temporal/    runs of the training loop
    <variant>/seed-<n>/figures.json         figures of every test clip
    <variant>/seed-<n>/pictures/            the frames that the comparison shows

What is there and was made of the same settings, data and code is not made again.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from flows.console import stderr
from model.config import ModelConfig
from model.data import Draws
from model.evaluate import EvaluateConfig
from model.figures import MetricsConfig
from model.sampling import check_sampling
from model.training_config import TrainConfig
from storage.config import load_config, save_config
from storage.dataset import Dataset
from storage.errors import InputError
from storage.store import Store

Area = Literal["hand_object", "hidden_fingers", "elsewhere", "object"]
# Of a variant or a test: the name of a folder, or of files.
Name = Annotated[str, Field(pattern=r"^[\w][\w.-]*$")]
BASELINES = {"first_frame": "true first frame", "mean_frame": "mean training frame", "truth": "true frames"}
LOOK_S = 5.0  # at most, to see that a run is there already
AREAS: tuple[Area, ...] = ("hand_object", "hidden_fingers", "elsewhere", "object")


class Variant(BaseModel, frozen=True, extra="forbid"):
    """What one variant changes; nothing: the method itself."""

    title: str
    """Its name in tables and pictures."""
    network: dict[str, Any] = {}
    """Values of the model's network config, e.g. {mlo: noise_only}."""
    shares: dict[str, NonNegativeFloat] | None = None
    """Shares of the sources in training, e.g. {hoi: 1, object: 0}; null: those of the stages."""
    iterations: PositiveInt | None = None
    """Steps of the image stage; null: as many as every other variant."""


class AblationTest(BaseModel, frozen=True, extra="forbid"):
    """Clips that the variants are tested on: those of split `test` of a dataset."""

    dataset: str
    """Name of the dataset."""
    of: Literal["hands", "objects"] = "hands"
    """Clips with hands, or those of objects alone."""


class Claim(BaseModel, frozen=True, extra="forbid"):
    """That one variant's PSNR is above another's."""

    better: str
    """Name of a variant."""
    worse: str
    """Name of another."""
    test: str
    """Name of a test."""
    area: Area
    """Where."""


class AblateConfig(BaseModel, frozen=True, extra="forbid"):
    """The variants, and the training and the tests that they share."""

    benchmark: Path | None = None
    """Config of the benchmark, which is made first where it is missing; null: the datasets are there."""
    variants: dict[Name, Variant] = Field(min_length=1)
    """By name, which is a folder's."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0, 1, 2), min_length=1)
    """Each variant is trained once with each: they seed weights, draws and noise."""
    image: TrainConfig
    """The image stage; its `model` is what variants change."""
    temporal: TrainConfig | None = None
    """The temporal stage, from each run's own image stage; null: pictures alone."""
    tests: dict[Name, AblationTest] = Field(min_length=1)
    """By name; the clips of each are generated and compared."""
    sampling: EvaluateConfig = EvaluateConfig()
    """What is generated of each clip."""
    metrics: MetricsConfig = MetricsConfig()
    """What is measured of it."""
    hidden_margin_px: int = Field(default=1, ge=0)
    """How far the hidden-finger area reaches beyond the pixels behind which a finger is hidden."""
    shown: int = Field(default=4, ge=1)
    """Clips of each test in the comparison picture."""
    claims: tuple[Claim, ...] = ()
    """What the paper says, to be held against what comes out."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.image.model is None:
            raise ValueError("image.model is what variants change: it must be set")
        for name, stage in (("image", self.image), ("temporal", self.temporal)):
            if stage is not None and stage.stage != name:
                raise ValueError(f"{name}.stage: found {stage.stage}, wanted {name}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: found {list(self.seeds)}, wanted each once")
        titles = [variant.title for variant in self.variants.values()]
        if len(set(titles)) < len(titles):
            raise ValueError(f"variants: found titles {titles}, wanted another for each")
        if taken := set(self.variants) & set(BASELINES):
            raise ValueError(f"variants: found {sorted(taken)}, which are rows of their own")
        for claim in self.claims:
            if claim.better == claim.worse:
                raise ValueError(f"claims: found {claim.better!r} held against itself, wanted two variants")
            for name, known in (
                (claim.better, self.variants),
                (claim.worse, self.variants),
                (claim.test, self.tests),
            ):
                if name not in known:
                    raise ValueError(f"claims: no {name!r} (there are: {', '.join(known)})")
        return self


@dataclass(frozen=True)
class AblationRun:
    """One variant trained with one seed."""

    variant: str
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"


def ablation_runs(config: AblateConfig, out_dir: Path) -> list[AblationRun]:
    """Return all runs, every variant with the first seed first: what is finished can be compared early."""
    return [
        AblationRun(variant, seed, out_dir / variant / f"seed-{seed}")
        for seed in config.seeds
        for variant in config.variants
    ]


def stages(run: AblationRun, config: AblateConfig) -> list[tuple[TrainConfig, Path]]:
    """Write a run's model config; return its stages, each with the folder that it is trained in."""
    variant = config.variants[run.variant]
    assert config.image.model is not None  # checked by the config
    changes = [f"network.{key}={json.dumps(value)}" for key, value in variant.network.items()]
    model = run.folder.parent / "model.yaml"
    model.parent.mkdir(parents=True, exist_ok=True)
    try:
        built = load_config(ModelConfig, config.image.model, changes)
    except InputError as error:
        told = str(error).replace("--set: ", "")
        raise InputError(f"variants.{run.variant}: {told}", code=error.code) from None
    longest, levels = built.network.longest_window, built.schedule.num_train_timesteps
    check_sampling(config.sampling, longest_window=longest, noise_levels=levels)
    save_config(built, model)
    return stage_settings(run, config)


def stage_settings(run: AblationRun, config: AblateConfig) -> list[tuple[TrainConfig, Path]]:
    """Return a run's stages, each with the folder that it is trained in."""
    variant, model = config.variants[run.variant], run.folder.parent / "model.yaml"
    iterations = variant.iterations or config.image.iterations
    image = config.image.model_copy(update={"model": model, "seed": run.seed, "iterations": iterations})
    found = [(_shared(image, variant), run.folder / "image")]
    if config.temporal is not None:
        start = {"init_from": run.folder / "image" / "model", "seed": run.seed}
        temporal = config.temporal.model_copy(update=start)
        found.append((_shared(temporal, variant), run.folder / "temporal"))
    return found


def check_stages(runs: Sequence[AblationRun], config: AblateConfig, store: Store) -> None:
    """Raise InputError, with the variant's name, where a stage has no clips to draw as it is told to."""
    for run in {run.variant: run for run in runs}.values():  # seeds change none of it
        for stage, _ in stages(run, config):
            try:
                Draws(Dataset.open(store, stage.dataset).rows(stage.split), stage.batch, stage.seed)
            except InputError as error:
                raise InputError(f"variants.{run.variant}: {stage.stage}: {error}", code=error.code) from None


def _shared(stage: TrainConfig, variant: Variant) -> TrainConfig:
    """Return a stage with the variant's shares of the sources."""
    if variant.shares is None:
        return stage
    return stage.model_copy(update={"batch": stage.batch.model_copy(update={"shares": variant.shares})})


def drop_checkpoints(run: AblationRun) -> None:
    """Delete what only a run that is not finished needs: fifteen of them would fill a disk."""
    for folder in run.folder.glob("*/checkpoints"):
        shutil.rmtree(folder)


class Countdown:
    """Says which run is next and how long all that are left may take."""

    def __init__(self, runs: Sequence[AblationRun]) -> None:
        self.left = len(runs)
        self.total = len(runs)
        self.seconds: list[float] = []  # of the runs that something was done for
        self.is_shared = False  # with other processes, which are as fast as they are

    @contextmanager
    def run(self, run: AblationRun) -> Iterator[None]:
        """Announce a run; time what happens inside."""
        stderr.print(
            f"run {self.total - self.left + 1} of {self.total}: {run}{self._time_left()}", highlight=False
        )
        started = time.monotonic()
        yield
        self.left -= 1
        taken = time.monotonic() - started
        if taken > LOOK_S:
            self.seconds.append(taken)

    def _time_left(self) -> str:
        if self.is_shared or not self.seconds:
            return ""
        minutes = self.left * sum(self.seconds) / len(self.seconds) / 60
        return f" (about {minutes:.0f} min left)"
