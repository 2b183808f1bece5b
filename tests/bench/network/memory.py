"""Peaks of memory, each in a process of its own: training against its estimate, and long videos.

On a CPU a peak is what the process held most (VmHWM) less what it held before there was a model; on a GPU it
is what torch allocated there. glibc keeps what is freed in gaps that depend on the order of everything that
was ever allocated; unless asked to leave it alone, a process gives each block from 64 KiB on back at once.
`python -m tests.bench.network.memory JSON` prints one measurement as JSON.
"""

import ctypes
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from model.memory import LiveBytes, estimate_memory
from model.sampling import SamplingConfig
from model.trainer import Trainer
from tests.bench.harness import Table
from tests.bench.network.work import (
    STAGES,
    Scale,
    Stage,
    build_generator,
    build_trainer,
    filled_clips,
    take_step,
)

BATCHES = [{"clips": clips, "frames": 1} for clips in (1, 2, 4)]
WINDOW = {"clips": 1, "frames": 24, "pick": "window"}
LENGTHS = (48, 96, 240)  # frames
GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # bytes
SETTLING = 2  # steps, for moments to be there


def training(scale: Scale) -> Table:
    """Estimate and peak of training, with activations kept and recomputed."""
    every = [
        {"stage": stage, "batch": batch, "gradient_checkpointing": recomputed}
        for stage, batch in [*(("image", batch) for batch in BATCHES), ("temporal", WINDOW)]
        for recomputed in (False, True)
    ]
    found = {
        _name(case): peaks for case, peaks in zip(every, fresh(scale, "training", cases=every), strict=True)
    }
    if scale.device == "cpu":
        for case in (case for case in every if case["batch"] == BATCHES[-1]):
            (kept,) = fresh(scale, "training", gives_back=False, cases=[case])
            found[_name(case) + ", by glibc as it is"] = kept
    rows = [
        [
            name,
            *(f"{peak / 2**20:.0f} MiB" for peak in peaks.values()),
            f"{peaks['estimated'] / peaks['measured']:.2f}",
        ]
        for name, peaks in found.items()
    ]
    return Table(
        f"Memory of training {scale.model} at {scale.size}² on {scale.device}",
        ("stage, clips of frames", "estimated before", "measured peak", "estimated / measured"),
        rows,
        notes=(
            "estimate_memory of model/memory.py; aim: within a fifth",
            "on a CPU each block from 64 KiB on is given back when it is freed, but for glibc as it is, whose"
            " gaps depend on all that was ever allocated",
        ),
        data=found,
    )


def _name(case: dict[str, Any]) -> str:
    name = f"{case['stage']}, {case['batch']['clips']} of {case['batch']['frames']}"
    return name + ", recomputed" * case["gradient_checkpointing"]


def long_videos(scale: Scale) -> Table:
    """Peak of denoising ever longer clips by the same windows."""
    found = {frames: fresh(scale, "generation", frames=frames) for frames in LENGTHS}
    rows = [
        [str(frames), *(f"{peak[key] / 2**20:.1f} MiB" for key in ("measured", "waiting", "network"))]
        for frames, peak in found.items()
    ]
    return Table(
        f"Memory of generating long clips with {scale.model} at {scale.size}² on {scale.device}",
        ("frames", "measured peak", "of it, waiting in the CPU's memory", "alive in the network at once"),
        rows,
        notes=(
            "windows of 24 frames; what waits and grows with the clip: conditions, encodings, z, the video",
            "the network's: bytes of all tensors that a prediction of one window makes and holds at its peak",
        ),
        data={str(frames): peak for frames, peak in found.items()},
    )


def fresh(scale: Scale, what: str, *, gives_back: bool = True, **options: Any) -> Any:
    """One measurement, in a fresh process that gives back what it frees, or that keeps it as glibc does."""
    text = json.dumps({"scale": vars(scale), "what": what, "options": options})
    command = [sys.executable, "-m", __name__, text]
    root = Path(__file__).parents[3]
    environment = os.environ | (GIVES_BACK if gives_back else {})
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} {options}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_training(scale: Scale, cases: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Peak of some steps of each case, and what was estimated of it."""
    smallest = {"clips": 1, "frames": 1, "pick": "window"}
    for stage in STAGES:
        _train(replace(scale, size=scale.size // 8), stage, {"batch": smallest}, steps=1)  # loads libraries
    return [_peaks(scale, **case) for case in cases]


def _peaks(scale: Scale, stage: Stage, size: int | None = None, **change: Any) -> dict[str, int]:
    """Estimate and peak of one case, of pictures of another size where that is given."""
    scale = replace(scale, size=size or scale.size)
    before = held(scale)
    trainer = _train(scale, stage, change, steps=SETTLING)
    measured = peak(scale) - before
    return {"estimated": estimate_memory(trainer, scale.size, scale.size).total, "measured": measured}


def _train(scale: Scale, stage: Stage, change: dict[str, Any], steps: int) -> Trainer:
    trainer = build_trainer(scale, stage, **change)
    for _ in range(steps):
        take_step(trainer, filled_clips(trainer, scale.size))
    return trainer


def measure_generation(scale: Scale, frames: int) -> dict[str, int]:
    """Peak of generating a clip, what of it waits in the CPU's memory, and what one prediction holds."""
    pipeline = build_generator(scale)
    sampling = SamplingConfig(num_inference_steps=1)
    trainer = build_trainer(scale, "temporal", batch={"clips": 1, "frames": frames, "pick": "window"})
    pipeline(
        filled_clips(trainer, scale.size // 8).conditions.frames(0, 24).to("cpu"), sampling
    )  # loads libraries
    before = held(scale)
    conditions = filled_clips(trainer, scale.size).conditions.to("cpu")
    encoded_bytes, network_bytes = 0, 0
    predict, encode = pipeline._predict, pipeline.encode

    def watched_encode(*arguments: Any) -> Any:
        nonlocal encoded_bytes
        branches = encode(*arguments)
        per_frame = branches[0][1].per_frame
        encoded_bytes = sum(tensor.nbytes for tensor in vars(per_frame).values() if tensor is not None)
        return branches

    def watched_predict(*arguments: Any) -> Any:
        nonlocal network_bytes
        with LiveBytes() as live:
            prediction = predict(*arguments)
        network_bytes = max(network_bytes, live.peak)
        return prediction

    pipeline.encode, pipeline._predict = watched_encode, watched_predict
    video = pipeline(conditions, sampling, torch.Generator().manual_seed(0)).frames
    measured = peak(scale) - before
    z = frames * conditions.references[0, 0].nbytes
    waiting = sum(tensor.nbytes for tensor in vars(conditions).values()) + encoded_bytes + video.nbytes + z
    return {"measured": measured, "waiting": waiting, "network": network_bytes}


def held(scale: Scale) -> int:
    """Bytes held now, from where a peak is looked for."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed
    if scale.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    return int(psutil.Process().memory_info().rss)


def peak(scale: Scale) -> int:
    """Bytes held at most."""
    if scale.device == "cuda":
        return torch.cuda.max_memory_allocated()
    # getrusage's peak is also that of the process that started this one.
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert told is not None  # Linux tells
    return int(told[1]) * 1024


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    measure: dict[str, Callable[..., Any]] = {"training": measure_training, "generation": measure_generation}
    torch.set_num_threads(1)
    print(json.dumps(measure[asked["what"]](Scale(**asked["scale"]), **asked["options"])))
