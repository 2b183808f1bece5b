"""A build over 10 000 objects that has nothing to do, with its memory of the inputs and without.

Records are empty folders here: a build with nothing to do only asks whether they are there.
"""

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from unittest.mock import patch

from flows import build
from flows.build import BuildConfig, Item, ObjectJob
from flows.data_dag import shards
from flows.outcome import total
from render.layers import LayersConfig
from render.procedural_objects import procedural_object
from render.six_views import SixViewConfig
from render.trajectories import seed_generator
from storage.backend import SEEN
from storage.recipe import Recipe
from storage.sources.glb_writer import write_glb
from storage.store import Store, record_name
from tests.bench.harness import Table

NUM_OBJECTS = 10_000
SETTLE_S = 2.5  # what was written more recently is looked at again
REMEMBERED, FORGOTTEN = "nothing to do", "nothing to do, and no memory of the inputs"


def run(rounds: int, folder: Path) -> list[Table]:
    """Build once, then time builds that find everything there."""
    with tempfile.TemporaryDirectory() as scratch:
        objects, store = Path(scratch) / "objects", Store(Path(scratch) / "store")
        make_objects(objects)
        config = BuildConfig(objects=objects, layers=LayersConfig(size=32), six_views=SixViewConfig(size=32))
        time.sleep(SETTLE_S)
        with patch.object(build, "write_missing", make_folders):
            build_all(config, store)
        seconds = {REMEMBERED: [cpu_seconds(config, store) for _ in range(rounds)]}
        shutil.rmtree(store.root / SEEN)
        seconds[FORGOTTEN] = [cpu_seconds(config, store)]
    middle = {name: median(values) for name, values in seconds.items()}
    return [
        Table(
            f"A build of {NUM_OBJECTS:,} clips that has nothing to do",
            ("", "CPU seconds", "of the other"),
            [
                [name, f"{middle[name]:.2f}", f"{middle[name] / middle[other]:.2f}"]
                for name, other in ((REMEMBERED, FORGOTTEN), (FORGOTTEN, REMEMBERED))
            ],
            notes=(f"median of {rounds} builds, all threads together; the second is one build",),
            data=seconds,
        )
    ]


def make_objects(folder: Path) -> None:
    """Write one box under many names."""
    folder.mkdir()
    write_glb(procedural_object("box", seed_generator("box")), folder / "0.glb", copyright="CC0-1.0")
    for number in range(1, NUM_OBJECTS):
        shutil.copy(folder / "0.glb", folder / f"{number}.glb")


def build_all(config: BuildConfig, store: Store) -> None:
    """Build, as the flow of that name does."""
    with store.in_use():
        source = build.open_source(config, store)
        outcomes = [
            build.build_objects(shard, source, config, store, dry_run=False) for shard in shards(source.ids())
        ]
        build.finish(total(outcomes), config, store)


def make_folders(item: Item, recipes: Mapping[str, Recipe], job: ObjectJob) -> None:
    """Stand for writing an object's records."""
    for recipe in recipes.values():
        (job.store.root / record_name(recipe.kind, recipe.key)).mkdir(parents=True, exist_ok=True)


def cpu_seconds(config: BuildConfig, store: Store) -> float:
    """Return the CPU's seconds of one build."""
    before = time.process_time()
    build_all(config, store)
    return time.process_time() - before
