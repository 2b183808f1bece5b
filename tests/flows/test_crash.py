"""A build that is killed at random moments, again and again, ends as one that was left alone.

MANIVIDEO_KILLS=30 kills more often than `make test` does.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from flows.build import BuildConfig, build_objects, finish, open_source
from flows.outcome import Outcome
from render.layers import LayersConfig
from render.procedural_objects import OBJECT_KINDS, procedural_object
from render.six_views import SixViewConfig
from render.trajectories import seed_generator
from storage.backend import DATASETS, STAGING
from storage.digests import digest_file
from storage.errors import StoreError
from storage.sources.glb_writer import write_glb
from storage.store import Store, record_name
from storage.upkeep import drop_damaged, verify
from tests.forks import forks
from tests.full_disk import files_up_to

KILLS = int(os.environ.get("MANIVIDEO_KILLS", "3"))
NUM_OBJECTS = 3
SIZE = 32

Start = Callable[[Path], tuple[ForkServerProcess, Event]]


def build(objects: Path, root: Path) -> Outcome:
    """Build everything, as the flow of that name does."""
    config = BuildConfig(
        objects=objects,
        num_frames=3,
        layers=LayersConfig(size=SIZE),
        six_views=SixViewConfig(size=SIZE),
    )
    store = Store(root)
    with store.in_use():
        source = open_source(config, store)
        outcome = build_objects(source.ids(), source, config, store, dry_run=False)
        finish(outcome, config, store)
    return outcome


def build_in_a_group_of_its_own(objects: Path, root: Path, at_work: Event) -> None:
    """Build, so that all processes of the build can be killed together."""
    os.setsid()
    at_work.set()
    build(objects, root)


def tree(store: Store) -> dict[str, str]:
    """Return the digest of every file that is data."""
    folders = [store.root / name for name in (*store.kinds(), DATASETS)]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(store.root).as_posix(): digest_file(path) for path in files}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objects")
    for kind in OBJECT_KINDS[:NUM_OBJECTS]:
        write_glb(procedural_object(kind, seed_generator(kind)), folder / f"{kind}.glb", copyright="CC0-1.0")
    return folder


@pytest.fixture(scope="module")
def whole(objects: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a build that nobody disturbed."""
    store = Store(tmp_path_factory.mktemp("whole") / "store")
    build(objects, store.root)
    assert len(store.records()) == 3 * NUM_OBJECTS
    return tree(store)


@pytest.fixture(scope="module")
def start(objects: Path) -> Start:
    """Start a build in a process that has everything imported already."""
    context = forks()

    def start_build(root: Path) -> tuple[ForkServerProcess, Event]:
        at_work = context.Event()
        process = context.Process(target=build_in_a_group_of_its_own, args=(objects, root, at_work))
        process.start()
        return process, at_work

    return start_build


def test_a_build_killed_again_and_again_ends_as_one_left_alone(
    start: Start, whole: dict[str, str], objects: Path, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"moments of killing: random.Random({seed})")  # pytest shows it where the test fails
    rng = random.Random(seed)
    store = Store(tmp_path / "store")
    seconds = seconds_of_a_build(start, store)
    kills = in_a_write = wholes = 0
    while kills < KILLS:
        process, at_work = start(store.root)
        at_work.wait()
        process.join(rng.uniform(0, seconds))
        if rng.random() < 0.5:
            wait_for_a_write(process, store)
            time.sleep(rng.uniform(0, 0.02))
        if process.exitcode is not None:  # it came to its end, in spite of the kills before
            assert process.exitcode == 0
            assert tree(store) == whole
            shutil.rmtree(store.root)
            wholes += 1
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        assert verify(store) == []
        in_a_write += is_writing(store)
    build(objects, store.root)
    assert verify(store) == []
    assert tree(store) == whole
    print(f"{kills} kills, {in_a_write} in the middle of a write, {wholes + 1} stores whole in the end")


def wait_for_a_write(process: ForkServerProcess, store: Store) -> None:
    """Wait until a build writes a record, or is done."""
    while process.exitcode is None and not is_writing(store):
        time.sleep(0.0005)


def is_writing(store: Store) -> bool:
    return any(path.is_dir() for path in (store.root / STAGING).glob("*"))


def seconds_of_a_build(start: Start, store: Store) -> float:
    """Return how long a build takes that nobody disturbs; its store is deleted."""
    process, at_work = start(store.root)
    at_work.wait()
    began = time.monotonic()
    process.join()
    shutil.rmtree(store.root)
    return time.monotonic() - began


def test_two_builds_at_once_make_what_one_makes(start: Start, whole: dict[str, str], tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    builds = [start(store.root) for _ in range(2)]
    for process, _ in builds:
        process.join()
    assert [process.exitcode for process, _ in builds] == [0, 0]
    assert verify(store) == []
    assert tree(store) == whole


def test_a_full_disk_ends_the_build_sets_nothing_aside_and_loses_nothing(
    whole: dict[str, str], objects: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    told = r"cannot write .* File too large .*run again to go on"
    with files_up_to(12_000), pytest.raises(StoreError, match=told):
        build(objects, store.root)
    assert verify(store) == []
    assert build(objects, store.root).quarantined == ()
    assert tree(store) == whole


def test_a_truncated_record_is_found_dropped_and_made_again(
    whole: dict[str, str], objects: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    build(objects, store.root)
    kind, key = store.records()[0]
    file = max(
        (store.root / record_name(kind, key)).rglob("*"),
        key=lambda path: path.is_file() * path.stat().st_size,
    )
    file.write_bytes(file.read_bytes()[:-1])
    problems = verify(store)
    assert [(problem.kind, problem.key) for problem in problems] == [(kind, key)]
    assert drop_damaged(store, problems) == 1
    assert build(objects, store.root).counts()[0] == {kind: 1}
    assert tree(store) == whole
