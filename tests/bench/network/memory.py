"""Peaks of memory, each in a process of its own: training against its estimate, and long videos.

On a CPU a peak is what the process held most (VmHWM) less what it held before there was a model; on a GPU it
is what torch allocated there. `python -m tests.bench.network.memory JSON` prints one measurement as JSON.
"""

import ctypes
import gc
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from model.memory import LiveBytes, estimate_memory
from model.sampling import SamplingConfig
from tests.bench.harness import Table
from tests.bench.network.work import Scale, build_generator, build_trainer, filled_clips, take_step

BATCHES = [{"clips": clips, "frames": 1} for clips in (1, 2, 4)]
WINDOW = {"clips": 1, "frames": 24, "pick": "window"}
LENGTHS = (48, 96, 240)  # frames
SETTLING = 3  # steps, for moments and the allocator's gaps to be there


def training(scale: Scale) -> Table:
    """Estimate and peak of training, with activations kept and recomputed."""
    rows, data = [], {}
    for stage, batch in [*(("image", batch) for batch in BATCHES), ("temporal", WINDOW)]:
        for recomputed in (False, True):
            change = {"batch": batch, "gradient_checkpointing": recomputed}
            found = fresh(scale, "training", stage=stage, **change)
            name = f"{stage}, {batch['clips']} of {batch['frames']}" + ", recomputed" * recomputed
            ratio = found["estimated"] / found["measured"]
            rows.append([name, *(f"{found[key] / 2**20:.0f} MiB" for key in found), f"{ratio:.2f}"])
            data[name] = found
    return Table(
        f"Memory of training {scale.model} at {scale.size}² on {scale.device}",
        ("stage, clips of frames", "estimated before", "measured peak", "ratio"),
        rows,
        notes=("estimate_memory of model/memory.py; aim: within a fifth",),
        data=data,
    )


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


def fresh(scale: Scale, what: str, **options: Any) -> dict[str, int]:
    """One measurement, in a fresh process."""
    text = json.dumps({"scale": vars(scale), "what": what, "options": options})
    command = [sys.executable, "-m", __name__, text]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what} {options}: {done.stderr}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_training(scale: Scale, options: dict[str, Any]) -> dict[str, int]:
    """Peak of some steps, and what was estimated of it."""
    stage = options.pop("stage")
    smallest = {"clips": 1, "frames": 1, "pick": options["batch"].get("pick", "scattered")}
    _train(
        replace(scale, size=scale.size // 8), stage, options | {"batch": smallest}, steps=1
    )  # loads libraries
    before = held(scale)
    trainer = _train(scale, stage, options, steps=SETTLING)
    measured = peak(scale) - before
    return {"estimated": estimate_memory(trainer, scale.size, scale.size).total, "measured": measured}


def _train(scale: Scale, stage: Any, options: dict[str, Any], steps: int) -> Any:
    trainer = build_trainer(scale, stage, **options)
    for _ in range(steps):
        take_step(trainer, filled_clips(trainer, scale.size))
    return trainer


def measure_generation(scale: Scale, options: dict[str, Any]) -> dict[str, int]:
    """Peak of generating a clip, what of it waits in the CPU's memory, and what one prediction holds."""
    pipeline, frames = build_generator(scale), options["frames"]
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
    """Bytes held now."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what was freed
    if scale.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
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
    measure = {"training": measure_training, "generation": measure_generation}[asked["what"]]
    torch.set_num_threads(1)
    print(json.dumps(measure(Scale(**asked["scale"]), asked["options"])))
