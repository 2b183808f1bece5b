"""What can be counted without running anything: parameters by box of Figure 2, operations, hours."""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from model.config import ModelConfig
from model.memory import estimate_memory
from model.network import ManiVideoNetwork
from storage.config import load_config
from tests.bench.harness import Table
from tests.bench.network.work import (
    ITERATIONS,
    PAPER,
    STAGES,
    TINY,
    Scale,
    flops_of_generation,
    flops_of_references,
    flops_of_step,
    weightless,
)

BOXES = {
    "denoising UNet": "denoising_unet.unet",
    "layers added at its sites, with temporal ones": "denoising_unet.sites",
    "AppearanceNet R": "appearance_net",
    "pose guider G": "pose_guider",
    "skeleton guider G₁": "skeleton_guider",
    "MLO embedding E_F": "mlo_embedding",
    "object embedding E_N": "object_embedding",
}
DATA_SHEETS = {"H200": 989e12, "H100": 989e12, "A800": 312e12, "A100": 312e12}  # dense bf16 FLOP/s, NVIDIA
SHARES = (0.2, 0.4)  # of the data sheet's rate, for what is not measured


def parameters() -> Table:
    """Parameters of each box, in millions."""
    rows = [[box] for box in (*BOXES, "temporal layers alone", "all")]
    for scale in (TINY, PAPER):
        with torch.device("meta"):
            network = ManiVideoNetwork(load_config(ModelConfig, scale.config).network)
            network.set_temporal(True)
        counts = [sum(p.numel() for p in network.get_submodule(path).parameters()) for path in BOXES.values()]
        counts.append(sum(p.numel() for p in network.temporal_parameters()))
        counts.append(sum(p.numel() for p in network.parameters()))
        for row, count in zip(rows, counts, strict=True):
            row.append(f"{count / 1e6:.2f}")
    return Table("Parameters by box, in millions", ("box", TINY.model, PAPER.model), rows)


def operations() -> Table:
    """Operations of a training step of either stage and of a video."""
    counts = {
        scale.model: [
            *(flops_of_step(scale, stage) for stage in STAGES),
            flops_of_references(scale),
            flops_of_generation(scale),
        ]
        for scale in (TINY, PAPER)
    }
    names = (
        "a step of the image stage",
        "a step of the temporal stage",
        "of it, the references",
        "a video of 24 frames, 25 steps",
    )
    rows = [[name, *(_told(count[i]) for count in counts.values())] for i, name in enumerate(names)]
    return Table(
        "Operations",
        ("of", *counts),
        rows,
        notes=(
            "counted on tensors without contents, a multiply and add as two; no codec, no guidance",
            f"{TINY.size}² and {PAPER.size}² pixels; the paper's batches: 4 clips of 1 frame, 1 of 24",
        ),
        data=counts,
    )


def _told(count: int) -> str:
    return f"{count / 1e9:.3g} GFLOP" if count < 1e12 else f"{count / 1e12:.4g} TFLOP"


def memory(scale: Scale) -> Table:
    """What training needs by estimate, with activations kept and recomputed."""
    rows, data = [], {}
    for stage in STAGES:
        for recomputed in (False, True):
            with FakeTensorMode(allow_non_fake_inputs=True):
                trainer = weightless(scale, stage, gradient_checkpointing=recomputed)
                estimate = estimate_memory(trainer, scale.size, scale.size)
            name = f"{stage} stage" + ", recomputed" * recomputed
            parts = (estimate.total, estimate.weights, estimate.moments, estimate.average, estimate.step)
            rows.append([name, *(f"{part / 2**30:.1f}" for part in parts)])
            data[name] = vars(estimate)
    return Table(
        f"Memory that training {scale.model} needs by estimate, in GiB",
        ("stage", "in all", "weights", "moments", "averages", "a step"),
        rows,
        notes=("not measured; the paper's batches",),
        data=data,
    )


def schedule(scale: Scale, step_seconds: dict[str, float] | None) -> Table:
    """The paper's 20 000 + 30 000 iterations in hours: by measured steps, else by operations and a rate."""
    title = f"The paper's schedule with {scale.model} on one GPU, in hours"
    columns = ("by", *(f"{stage} stage" for stage in STAGES), "together")
    if step_seconds is not None:
        hours = [ITERATIONS[stage] * step_seconds[stage] / 3600 for stage in STAGES]
        return Table(title, columns, [["measured steps", *(f"{h:.1f}" for h in (*hours, sum(hours)))]])
    operations = [ITERATIONS[stage] * flops_of_step(scale, stage) for stage in STAGES]
    rows = []
    for device in ("H200", "A800"):
        for share in SHARES:
            hours = [count / (DATA_SHEETS[device] * share) / 3600 for count in operations]
            rows.append([f"{device} at {share:.0%}", *(f"{h:.1f}" for h in (*hours, sum(hours)))])
    note = "no CUDA device: iterations · operations / (share · the data sheet's dense bf16 rate)"
    return Table(title, columns, rows, notes=(note,))
