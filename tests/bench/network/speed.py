"""Times of training steps and of generation at a scale, and what each way to save time or memory brings."""

import copy
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.latents import encode_pictures
from model.sampling import SamplingConfig
from tests.bench.harness import Seconds, Table, ratio, take_turns
from tests.bench.network.sizes import DATA_SHEETS
from tests.bench.network.work import (
    FRAMES,
    STAGES,
    STEPS,
    Scale,
    Stage,
    build_generator,
    build_trainer,
    filled_clips,
    finished,
    flops_of_generation,
    flops_of_step,
    take_step,
)

SAVINGS: dict[str, dict[str, object]] = {
    "plain": {},
    "activations recomputed": {"gradient_checkpointing": True},
    "one clip after the other": {"accumulate": 4},
}
COLUMNS = ("median", "of the plain one", "processor time of it")


def stages(scale: Scale, rounds: int) -> tuple[Table, dict[str, float]]:
    """A training step of either stage with the paper's batch, and a video: time and share of the peak rate.

    Returns the seconds of a step by stage, too.
    """
    rows, data = [], {}
    for name in (*STAGES, "video"):
        seconds, flops = _beside_matrix_product(scale, name, rounds)
        took, product = median(seconds[name]), median(seconds["matrix product"])
        rate, reached, sheet = flops / took, 2 * matrix_side(scale) ** 3 / product, data_sheet(scale)
        shares = f"{rate / reached:.0%}", f"{rate / sheet:.0%}" if sheet else "unknown"
        rows.append([name, f"{took:.2f} s", f"{rate / 1e12:.3g}", *shares])
        data[name] = seconds[name]
    table = Table(
        f"{scale.model} at {scale.size}² in {scale.precision} on {scale.device}",
        ("work", "median", "TFLOP/s", "of a matrix product's in the same rounds", "of the data sheet's"),
        rows,
        notes=(
            f"a step with the paper's batch; the video: {FRAMES} frames, {STEPS} steps, decoded",
            f"threads of the CPU: {torch.get_num_threads()}; a GPU is waited for at the end of each",
        ),
        data=data,
    )
    return table, {stage: median(data[stage]) for stage in STAGES}


def _beside_matrix_product(scale: Scale, name: str, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of one piece of work, which leaves the device when it is done, and its operations."""
    if name == "video":
        work, flops = video(scale), flops_of_generation(scale)
    else:
        work, flops = training_step(scale, name), flops_of_step(scale, name)
    peers = {"matrix product": finished(scale, matrix_product(scale)), name: finished(scale, work)}
    return take_turns(peers, rounds).wall, flops


def training_step(scale: Scale, stage: Stage) -> Callable[[], None]:
    """A step with the paper's batch, the codec's part of it included."""
    trainer = build_trainer(scale, stage)
    clips = filled_clips(trainer, scale.size)
    shape = (clips.timestep.numel(), 3, scale.size, scale.size)
    pictures = torch.zeros(shape, dtype=torch.uint8, device=scale.device)

    def step() -> None:
        with torch.no_grad():
            encode_pictures(trainer.codec, pictures)
        take_step(trainer, clips)

    return step


def savings(scale: Scale, rounds: int) -> Table:
    """A step of the image stage in the ways that save memory."""
    trainer = build_trainer(scale, "image")
    clips, plain = filled_clips(trainer, scale.size), trainer.config

    def step(change: dict[str, object]) -> None:
        trainer.config = plain.model_copy(update=change)
        trainer.network.disable_gradient_checkpointing()
        if trainer.config.gradient_checkpointing:
            trainer.network.enable_gradient_checkpointing()
        take_step(trainer, clips)

    peers = {name: finished(scale, partial(step, change)) for name, change in SAVINGS.items()}
    seconds = take_turns(peers, rounds)
    title = f"A step of the image stage of {scale.model}"
    return Table(title, ("step", *COLUMNS), _rows(seconds, "plain"), data=seconds.wall)


def accelerations(scale: Scale, rounds: int) -> Table:
    """A denoising step of 24 frames, and what each way to make it faster brings."""
    pipeline = build_generator(scale)
    network, clips = pipeline.network.eval(), filled_clips(build_trainer(scale, "temporal"), scale.size)
    conditions, z = clips.conditions.to(scale.device, scale.dtype), clips.z_t.to(scale.dtype)
    with torch.no_grad():
        encoded = network.encode(conditions)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    compiled = torch.compile(copy.deepcopy(network))
    step = clips.timestep[:, :1]

    def unfused() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            network(z, step, encoded)

    peers: dict[str, Callable[[], object]] = {
        "plain": lambda: network(z, step, encoded),
        "channels last": lambda: last(z, step, encoded),
        "compiled": lambda: compiled(z, step, encoded),
        "attention not fused": unfused,
        "conditions encoded at every step": lambda: network(z, step, network.encode(conditions)),
    }
    with torch.no_grad():
        seconds = take_turns({name: finished(scale, peer) for name, peer in peers.items()}, rounds)
    return Table(
        f"A denoising step of {FRAMES} frames of {scale.model}",
        ("step", *COLUMNS),
        _rows(seconds, "plain"),
        notes=("fused attention and conditions encoded once are what `plain` has",),
        data=seconds.wall,
    )


def video(scale: Scale) -> Callable[[], object]:
    """Generation of a video, pictures included."""
    pipeline = build_generator(scale)
    conditions = filled_clips(build_trainer(scale, "temporal"), scale.size).conditions.to("cpu")
    sampling = SamplingConfig(num_inference_steps=STEPS)
    return lambda: pipeline(conditions, sampling, torch.Generator().manual_seed(0))


def matrix_side(scale: Scale) -> int:
    return 8192 if scale.device == "cuda" else 1024


def matrix_product(scale: Scale) -> Callable[[], object]:
    """A large product of square matrices: about the best rate that the device reaches."""
    side = matrix_side(scale)
    a = torch.ones(side, side, device=scale.device, dtype=scale.dtype)
    return lambda: a @ a


def data_sheet(scale: Scale) -> float | None:
    """FLOP/s by the data sheet of this GPU, where it is known."""
    if scale.device == "cpu":
        return None
    name = torch.cuda.get_device_name()
    return next((rate for device, rate in DATA_SHEETS.items() if device in name), None)


def _rows(seconds: Seconds, plain: str) -> list[list[str]]:
    return [
        [
            name,
            f"{1e3 * median(wall):.0f} ms",
            f"{ratio(seconds.wall, name, plain):.2f}",
            f"{ratio(seconds.processor, name, plain):.2f}",
        ]
        for name, wall in seconds.wall.items()
    ]
