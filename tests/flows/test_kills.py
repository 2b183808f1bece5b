"""`manivideo build` under a Prefect server, killed with all its processes again and again, then let finish.

Each command takes seconds to start, so `pytest -m slow` runs it; MANIVIDEO_KILLS=30 kills more often.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter

from render.procedural_objects import OBJECT_KINDS, procedural_object
from render.trajectories import seed_generator
from storage.sources.glb_writer import write_glb
from storage.store import Store
from storage.upkeep import verify
from tests.flows.conftest import PATIENCE_S, Serving, wait_for
from tests.flows.test_crash import tree

KILLS = int(os.environ.get("MANIVIDEO_KILLS", "2"))
SIZES = ("--set", "layers.size=48", "--set", "six_views.size=48", "--set", "num_frames=6")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(PATIENCE_S * (KILLS + 3))]


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    folder = tmp_path / "objects"
    folder.mkdir()
    for kind in OBJECT_KINDS:
        write_glb(procedural_object(kind, seed_generator(kind)), folder / f"{kind}.glb", copyright="CC0-1.0")
    return folder


def begin(serving: Serving, objects: Path, store: Store) -> subprocess.Popen[bytes]:
    """Start a build in a group of its own; return it when it is at work."""
    before = runs(serving, "RUNNING", "COMPLETED", "CRASHED")
    arguments = ("build", "--objects", objects, "--store", store.root, *SIZES)
    process = serving.start("manivideo", *arguments, start_new_session=True)
    wait_for(lambda: runs(serving, "RUNNING", "COMPLETED", "CRASHED") > before, "a build")
    return process


def runs(serving: Serving, *states: str) -> int:
    """Count the builds that the server has in these states."""
    found = serving.client.read_flow_runs(
        flow_filter=FlowFilter.model_validate({"name": {"any_": ["build_dataset"]}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": states}}}),
    )
    return len(found)


def test_a_killed_command_goes_on_where_it_was_and_its_run_is_marked(
    serving: Serving, objects: Path, tmp_path: Path
) -> None:
    undisturbed, store = Store(tmp_path / "undisturbed"), Store(tmp_path / "store")
    process = begin(serving, objects, undisturbed)
    began = time.monotonic()
    assert process.wait(PATIENCE_S) == 0
    seconds, whole = time.monotonic() - began, tree(undisturbed)
    seed = random.randrange(1 << 32)
    print(f"moments of killing: random.Random({seed})")  # pytest shows it where the test fails
    rng, kills = random.Random(seed), 0
    while kills < KILLS:
        process = begin(serving, objects, store)
        time.sleep(rng.uniform(0, seconds))
        if process.poll() is not None:  # it came to its end, in spite of the kills before
            assert process.returncode == 0
            assert tree(store) == whole
            shutil.rmtree(store.root)
            continue
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        assert verify(store) == []
    assert begin(serving, objects, store).wait(PATIENCE_S) == 0
    assert verify(store) == []
    assert tree(store) == whole
    assert (runs(serving, "CRASHED"), runs(serving, "RUNNING")) == (kills, 0)
