"""Takes apart what building an object's clip costs, and says what it leaves on the disk.

The build is that of configs/build.yaml with procedural objects, one after the other; more `workers` make
several at the same time.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import flows.build
import storage.store
from flows.build import BuildConfig
from storage.config import load_config
from storage.folder import Folder
from storage.store import Store, record_name
from tests.bench.harness import Table
from tests.bench.parts.no_op import build_all

CONFIG = Path("configs/build.yaml")
STAGES = {
    "six views, points": (flows.build, "object_data"),
    "layers": (flows.build, "layers_data"),
    "frames": (flows.build, "render_frames"),
    "compressing": (storage.store, "write_group"),
    "flushing, renaming": (Folder, "publish"),
}
REST = "reading, hashing, planning, the dataset"


def run(rounds: int, folder: Path) -> list[Table]:
    """Build as many objects as there are rounds, after one that is not counted."""
    spent: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        build_all(_config(1), Store(Path(scratch) / "warm" / "store"))
        store = Store(Path(scratch) / "cold" / "store")
        started, processor = time.perf_counter(), time.process_time()
        with ExitStack() as patches:
            for stage, (owner, name) in STAGES.items():
                patches.enter_context(patch.object(owner, name, _timed(getattr(owner, name), stage, spent)))
            build_all(_config(rounds), store)
        seconds, processor = time.perf_counter() - started, time.process_time() - processor
        left = [(kind, *_left(store, kind, rounds)) for kind in store.kinds()]
    spent[REST] = seconds - sum(spent.values())
    return [_stages(spent, seconds, processor, rounds), _sizes(left)]


def _config(objects: int) -> BuildConfig:
    return load_config(BuildConfig, CONFIG, [f"procedural={objects}", "workers=1"])


def _timed(function: Callable[..., Any], stage: str, spent: Counter[str]) -> Callable[..., Any]:
    """Return a function that adds what its calls take to `spent`."""

    def timed(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent[stage] += time.perf_counter() - started

    return timed


def _left(store: Store, kind: str, objects: int) -> tuple[float, float]:
    """Return the bytes and the files of one object's record of a kind."""
    files = sum(len(list(store.backend.contents(record_name(kind, key)))) for key in store.keys(kind))
    return sum(store.backend.sizes(kind).values()) / objects, files / objects


def _stages(spent: Counter[str], seconds: float, processor: float, objects: int) -> Table:
    return Table(
        title="building object clips: where the time goes",
        columns=("", "s an object", "share"),
        rows=[
            *((stage, f"{taken / objects:.3f}", f"{taken / seconds:.0%}") for stage, taken in spent.items()),
            ("all", f"{seconds / objects:.3f}", f"{60 * objects / seconds:.1f} clips a minute"),
        ],
        notes=[
            f"{objects} objects, one at a time; sizes and frames of {CONFIG}",
            f"processor time, which hardly counts other work here: {processor / objects:.2f} s an object",
        ],
        data={"seconds": dict(spent), "objects": objects},
    )


def _sizes(left: list[tuple[str, float, float]]) -> Table:
    num_bytes, files = sum(each[1] for each in left), sum(each[2] for each in left)
    rows = [*left, ("an object", num_bytes, files)]
    return Table(
        title="what an object leaves on the disk",
        columns=("record", "kB", "files"),
        rows=[(name, f"{size / 1e3:.0f}", f"{count:.0f}") for name, size, count in rows],
        data={"bytes": num_bytes, "files": files},
    )
