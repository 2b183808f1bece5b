"""Two Dask workers make the store that one process makes, byte for byte; a GPU has one batch at a time."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from flows.build import BuildConfig
from flows.cluster import connected
from flows.data_dag import build_dataset, ingest_session
from flows.ingest import IngestConfig
from flows.options import dask_address
from render.layers import LayersConfig
from render.six_views import SixViewConfig
from storage.errors import InputError
from storage.store import Store
from storage.upkeep import verify
from tests.flows.conftest import MakeSession, wait_for
from tests.flows.test_crash import tree

SIZES = {"layers": LayersConfig(size=32), "six_views": SixViewConfig(size=32)}


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers, each with a GPU of its own by its environment."""
    folder = tmp_path_factory.mktemp("dask")
    file, dask = folder / "scheduler.json", [sys.executable, "-m", "dask"]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    usual = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [*dask, *arguments, "--scheduler-file", str(file), "--no-dashboard"]
        return subprocess.Popen(command, cwd=folder, env=usual | environment, **silent)

    processes: list[subprocess.Popen[bytes]] = []
    processes.append(start("scheduler", "--host", "127.0.0.1", "--port", "0"))
    for gpu in "01":
        options = ("--nthreads", "1", "--no-nanny", "--resources", "GPU=1")
        processes.append(start("worker", *options, CUDA_VISIBLE_DEVICES=gpu))
    wait_for(file.is_file, "the scheduler")
    address = json.loads(file.read_text())["address"]
    with connected(address) as cluster:
        cluster.client.wait_for_workers(2)
    yield address
    for process in reversed(processes):
        process.terminate()
        process.wait()


@pytest.mark.usefixtures("prefect_server")
def test_two_workers_make_the_store_that_one_process_makes(
    scheduler: str, objects: Path, make_session: MakeSession, tmp_path: Path
) -> None:
    building = BuildConfig(objects=objects, num_frames=3, **SIZES)
    sessions = [make_session(name) for name in ("cup-1", "cup-2")]
    stores = {None: Store(tmp_path / "alone"), scheduler: Store(tmp_path / "together")}
    for address, store in stores.items():
        built = build_dataset(building, store.root, dask=address)
        assert built.counts()[0] == {"object": 2, "layers": 2, "frames": 2}
        assert [entry.code for entry in built.quarantined] == ["truncated"]
        ingest_session(sessions, IngestConfig(**SIZES), store.root, dask=address)
        assert verify(store) == []
    assert tree(stores[None]) == tree(stores[scheduler])
    assert build_dataset(building, stores[scheduler].root, dask=scheduler).counts()[0] == {}


def test_each_gpu_has_one_batch_at_a_time_and_all_have_some(scheduler: str) -> None:
    def gpu_at_work(numbers: list[int]) -> tuple[str, float, float]:
        """Return the GPU that a batch was given, and when it had it."""
        began = time.monotonic()
        time.sleep(0.02 * len(numbers))
        return os.environ["CUDA_VISIBLE_DEVICES"], began, time.monotonic()

    with connected(scheduler) as cluster:
        assert (cluster.resources, cluster.slots) == ({"GPU": 1}, 2)
        spans = cluster.map(gpu_at_work, range(20), description="batches")
    for gpu in ("0", "1"):
        own = sorted((began, ended) for name, began, ended in spans if name == gpu)
        assert own
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(own))


def test_results_of_a_cluster_are_in_the_order_of_their_inputs(scheduler: str) -> None:
    with connected(scheduler) as cluster:
        batches = cluster.map(list, range(50), description="numbers")
    assert [number for batch in batches for number in batch] == list(range(50))
    assert len(batches) > 2


def test_a_cluster_needs_an_address_and_an_address_a_cluster() -> None:
    assert dask_address("local", None) is None
    assert dask_address("dask", "tcp://host:8786") == "tcp://host:8786"
    with pytest.raises(InputError, match="go together"):
        dask_address("dask", None)
    with pytest.raises(InputError, match="go together"):
        dask_address("local", "tcp://host:8786")


def test_a_scheduler_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"no Dask scheduler at nowhere"), connected("nowhere"):
        pass
