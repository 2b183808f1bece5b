"""What a run needs, looked at before its first step: settings, data, memory, disk.

All that is wrong is said at once.
"""

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import torch

from model.data import Draws, StepBatches
from model.latents import StoredLatents
from model.memory import estimate_memory, least_bytes, num_bytes, num_moment_bytes
from model.run import Run, model_settings
from model.sampling import check_sampling
from model.start import starting_pipeline
from model.trainer import Trainer, trains_on_cpu
from model.training_config import TrainConfig
from model.validation import Validation
from storage import durable
from storage.dataset import Dataset
from storage.errors import InputError
from storage.store import Store

SAMPLED = 256  # clips whose sizes are looked at
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
LESS_MEMORY = "a smaller model, optimizer muon or ema_decay 0"


@dataclass(frozen=True)
class Ready:
    """A run that can begin."""

    run: Run
    trainer: Trainer
    batches: StepBatches
    validation: Validation | None  # in the process that writes
    facts: dict[str, str]  # what was found, for people


@dataclass
class Findings:
    """What is wrong, and what was found."""

    errors: list[InputError] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note what is wrong inside and go on behind it."""
        try:
            yield
        except InputError as error:
            self.errors.append(error)

    def note(self, key: str, *, found: str, wanted: str) -> None:
        """Note a value that cannot be trained with."""
        self.errors.append(InputError(f"{key}: found {found}, wanted {wanted}", code="preflight"))

    def stop(self) -> None:
        """Raise what was found wrong, as one error."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            listed = "; ".join(f"({number}) {error}" for number, error in enumerate(self.errors, start=1))
            raise InputError(f"{len(self.errors)} things to put right: {listed}", code="preflight")


def prepare(config: TrainConfig, store: Store, out_dir: Path, *, resume: bool) -> Ready:
    """Build what a run needs; InputError names all that prevents it. Nothing is written."""
    if config.memory_estimate or torch.cuda.is_available():
        gc.collect()  # a run before this one may have left a network, and its memory to PyTorch
        torch.cuda.empty_cache()
    findings = Findings()
    trainer = run = batches = validation = None
    dataset: Dataset | None = None
    if config.memory_estimate:
        with findings.noting():
            check_least_memory(config, findings)
    if not findings.errors:  # else not even the weights would fit, or there are none
        with findings.noting():
            trainer = Trainer(config, starting_pipeline(config))
            check_disk(trainer, out_dir, findings)
    writes = trainer is None or trainer.accelerator.is_main_process
    with findings.noting():
        layers: Literal[7, 13] = 7 if trainer is None else trainer.network.settings.num_layers
        dataset = Dataset.open(store, config.dataset, layers=layers)
        draws = Draws(dataset.rows(config.split), config.batch, config.seed)
        factor = 1 if trainer is None else trainer.network.settings.factor
        check_clips(dataset, draws, factor, findings)
        if not findings.errors:
            assert trainer is not None
            latents = StoredLatents(store, trainer.codec) if config.stored_latents else None
            if latents is not None:
                look_at_latents(latents, dataset, draws, config, findings)
            batches = StepBatches(dataset, draws, int(config.cache_gib * GIB), trainer.slots(), latents)
        if writes and config.validation.every is not None:
            validation = Validation(dataset, config.validation, config.validation.every)
            if validation.row.session in {row.session for row in draws.rows}:
                findings.facts["validation"] = f"{validation.row.id}, of a sequence that is trained on"
            if trainer is not None:
                check_videos(validation, trainer, findings)
    with findings.noting():
        settings = {} if trainer is None else model_settings(trainer.pipeline)
        if dataset is not None:
            settings["dataset.version"] = dataset.manifest.version
        run = Run(config, out_dir, settings, resume=resume, writes=writes)
    if trainer is not None and batches is not None and config.memory_estimate:
        check_memory(trainer, batches, findings)
    findings.stop()
    assert run is not None
    assert trainer is not None
    assert batches is not None
    return Ready(run, trainer, batches, validation, findings.facts)


def check_clips(dataset: Dataset, draws: Draws, factor: int, findings: Findings) -> None:
    """Records that are there, of one size, that the codec can cut into latent cells."""
    counts = ", ".join(f"{len(rows)} {source}" for source, rows in sorted(draws.by_source.items()))
    name = f"dataset {dataset.manifest.name}"
    findings.facts["clips"] = counts
    short = sum(row.num_frames < draws.longest for row in draws.rows)
    if short:
        findings.facts["windows"] = f"{short} clips are shorter than {draws.longest} frames: a smaller stride"
    missing = dataset.store.missing(record for row in draws.rows for record in row.records())
    lacking = [row for row in draws.rows if missing and missing & row.records()]
    if lacking:
        found = f"records of {len(lacking)} clips missing, the first {lacking[0].id}"
        findings.note(name, found=found, wanted="all of them: build it again")
        return
    sizes = {dataset.size(row): row.id for row in draws.rows[:: -(-len(draws.rows) // SAMPLED)]}
    found = ", ".join(f"{h} by {w} ({clip})" for (h, w), clip in sorted(sizes.items()))
    findings.facts["size"] = found
    if len(sizes) > 1:
        findings.note(f"{name}: size", found=found, wanted="one size for all clips")
    if any(side % factor for size in sizes for side in size):
        findings.note(f"{name}: size", found=found, wanted=f"multiples of {factor}, the codec's factor")


def look_at_latents(
    latents: StoredLatents, dataset: Dataset, draws: Draws, config: TrainConfig, findings: Findings
) -> None:
    """How many frames are to be encoded and stored before the first step, beside those that the run draws."""
    lacking = latents.missing(draws.rows_of(config.iterations))
    frames = sum(row.num_frames for row in lacking)
    drawn = config.iterations * draws.config.clips * draws.config.frames
    size = frames * latents.num_bytes(*dataset.size(lacking[0])) if lacking else 0
    findings.facts["stored latents"] = (
        f"{frames} frames to encode, {size / GIB:.2f} GiB; the run draws {drawn} frames"
    )
    if isinstance(latents.store.root, Path):  # a bucket has no end
        compare_disk(latents.store.root, size, findings, "stored_latents false")


def check_videos(validation: Validation, trainer: Trainer, findings: Findings) -> None:
    """Validation videos that the model can make: else the first one would fail."""
    settings, levels = trainer.network.settings, trainer.pipeline.scheduler.config.num_train_timesteps
    with findings.noting():
        try:
            check_sampling(validation.sampling, longest_window=settings.longest_window, noise_levels=levels)
        except InputError as error:
            raise InputError(f"validation.{error}", code=error.code) from None


def check_least_memory(config: TrainConfig, findings: Findings) -> None:
    """What training will take at the least, before any of it is taken."""
    weights, least = least_bytes(config)
    if torch.cuda.is_available() and not trains_on_cpu(config):
        free, _ = torch.cuda.mem_get_info(int(os.environ.get("LOCAL_RANK", "0")))
        compare("GPU memory", least, free, findings, LESS_MEMORY)
        least = weights  # they are read here and moved there
    compare("memory", processes_here() * least, available_memory(), findings, LESS_MEMORY)


def check_memory(trainer: Trainer, batches: StepBatches, findings: Findings) -> None:
    """What training will take beside the weights, which are in their place already."""
    estimate = estimate_memory(trainer, batches.cache.height, batches.cache.width)
    # The batch of a step, and those that wait: both beside the clips that are kept.
    clips = batches.cache.most_bytes + (trainer.config.read_ahead + 1) * batches.num_bytes()
    step = estimate.moments + estimate.step + trainer.most_latent_bytes(batches.cache)
    on_gpu = trainer.device.type == "cuda"
    if on_gpu:
        free, _ = torch.cuda.mem_get_info(trainer.device)
        compare("GPU memory", step, free, findings, "a smaller batch, accumulate or gradient_checkpointing")
    needed = clips if on_gpu else step + clips
    advice = "a smaller batch, accumulate, read_ahead or cache_gib"
    compare("memory", processes_here() * needed, available_memory(), findings, advice)


def processes_here() -> int:
    """Processes that train on this machine together."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_disk(trainer: Trainer, out_dir: Path, findings: Findings) -> None:
    """Checkpoints, one more than are kept, and the saved model."""
    network, encoder = num_bytes(trainer.network), trainer.image_encoder
    model = network + num_bytes(trainer.codec) + (num_bytes(encoder) if encoder is not None else 0)
    averaged = sum(p.nbytes for p in trainer.parameters) if trainer.state.ema is not None else 0
    checkpoint = network + averaged + num_moment_bytes(trainer.state.optimizer)
    needed = checkpoint * (trainer.config.keep + 1) + model
    there = existing(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        findings.note(str(out_dir), found="a file", wanted="a folder")
    if not os.access(there, os.W_OK):
        findings.note(str(out_dir), found="a folder that cannot be written to", wanted="one that can")
    replaced = [out_dir / name for name in ("checkpoints", "model")]  # by a run that is resumed
    held = sum(durable.num_bytes(folder) for folder in replaced if folder.is_dir())
    compare_disk(out_dir, needed - held, findings, "a smaller keep")


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    return next(there for there in (folder, *folder.absolute().parents) if there.is_dir())


def compare_disk(folder: Path, needed: int, findings: Findings, advice: str) -> None:
    """Note how much is to be written into a folder and how much its disk has free."""
    there = existing(folder)
    compare(f"disk of {there}", needed, shutil.disk_usage(there).free, findings, advice)


def compare(what: str, needed: int, there: int, findings: Findings, advice: str) -> None:
    """Note how much of something is needed and how much there is."""
    needed = max(needed, 0)
    findings.facts[what] = f"{needed / GIB:.2f} GiB needed, {there / GIB:.2f} GiB free"
    if needed > there:
        wanted = f"{needed / GIB:.2f} GiB (or {advice})"
        findings.note(what, found=f"{there / GIB:.2f} GiB free", wanted=wanted)


def available_memory() -> int:
    """Bytes of RAM that may still be taken: of the machine, or of the container around this process."""
    available: int = psutil.virtual_memory().available
    limit = CGROUP / "memory.max"
    if limit.is_file() and (most := limit.read_text().strip()) != "max":
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        available = min(
            available, int(most) - used + int(counts["inactive_file"])
        )  # a cache, given up at need
    return available
