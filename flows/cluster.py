"""The same work on the workers of an existing Dask cluster, in batches, a bounded number of them at a time.

Workers see the store and the inputs under the paths that the flow sees them under. Where workers have the
resource "GPU", batches run on those alone and each takes one: a worker per GPU, started with
CUDA_VISIBLE_DEVICES and `--resources GPU=1`, renders one batch at a time on a GPU of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, as_completed

from flows.build import BuildConfig, build_objects
from flows.ingest import IngestConfig, ingest_sessions
from flows.outcome import Outcome, total
from flows.progress import progress
from flows.records import on_this_machine
from flows.sources import ObjectSource, fetch_objects
from storage.errors import InputError, one_line
from storage.store import Store

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST = 64  # inputs of a batch: few are made again when a worker is lost
SHARE = 4  # batches for each slot, at least, so that slots finish together
AHEAD = 2  # batches sent for each slot: while one is worked on, the next is there


@dataclass(frozen=True)
class Cluster:
    """The workers that batches go to."""

    client: Client
    resources: dict[str, int]  # that a batch takes
    slots: int  # batches that run at the same time

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function on one of the workers."""
        future = self.client.submit(function, *arguments, pure=False, resources=self.resources)
        result: Result = future.result()
        return result

    def map(
        self, function: Callable[..., Result], items: Sequence[Item], *shared: Any, description: str
    ) -> list[Result]:
        """Call `function(batch, *shared)` on batches of items; results are in the items' order.

        What is shared is sent to each worker once.
        """
        size = max(1, min(MOST, len(items) // (SHARE * self.slots)))
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        everywhere = [self.client.scatter(value, broadcast=True, hash=False) for value in shared]
        waiting, running = iter(enumerate(batches)), as_completed(loop=self.client.loop)
        numbers: dict[str, int] = {}  # of batches, by the key of their future
        results: dict[int, Result] = {}

        def submit(count: int) -> None:
            for number, batch in islice(waiting, count):
                future = self.client.submit(
                    function, batch, *everywhere, pure=False, resources=self.resources
                )
                numbers[future.key] = number
                running.add(future)

        with progress(description, len(items)) as advance:
            submit(AHEAD * self.slots)
            for future in running:
                number = numbers.pop(future.key)
                results[number] = future.result()
                advance(len(batches[number]))
                submit(1)
        return [results[number] for number in range(len(batches))]


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to the scheduler at an address such as tcp://host:8786; InputError where none answers."""
    try:
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler at {address}: {one_line(error)}", code="config") from error
    with client:
        client.wait_for_workers(1)
        workers = client.scheduler_info()["workers"].values()
        gpus = sum(int(worker["resources"].get("GPU", 0)) for worker in workers)
        threads = sum(worker["nthreads"] for worker in workers)
        yield Cluster(client, {"GPU": 1} if gpus else {}, gpus or threads)


def build_objects_on(
    address: str, names: list[str], source: ObjectSource, config: BuildConfig, store: Store
) -> Outcome:
    """Build the missing records of some of the source's objects; paths in `config` are absolute."""
    if config.objaverse is not None:
        fetch_objects(names, source, config.objaverse.download.connections)
    here = [name for name in names if _is_here(source, name)]
    missing = sorted(set(names) - set(here))  # each is set aside, with its reason
    outcomes = [build_objects(missing, source, config, store, dry_run=False)]
    with connected(address) as cluster:
        drawn = cluster.call(on_this_machine, config.model_copy(update={"workers": 1}))
        outcomes += cluster.map(_build_batch, here, source, drawn, store, description="objects")
    return total(outcomes)


def ingest_sessions_on(address: str, paths: list[Path], config: IngestConfig, store: Store) -> list[Outcome]:
    """Make the missing records of some sessions, see `ingest_sessions`; paths in `config` are absolute."""
    with connected(address) as cluster:
        drawn = cluster.call(on_this_machine, config.model_copy(update={"workers": 1}))
        batches = cluster.map(_ingest_batch, paths, drawn, store, description="sessions")
    return list(chain.from_iterable(batches))


def _build_batch(names: list[str], source: ObjectSource, config: BuildConfig, store: Store) -> Outcome:
    return build_objects(names, source, config, store, dry_run=False)


def _ingest_batch(paths: list[Path], config: IngestConfig, store: Store) -> list[Outcome]:
    return ingest_sessions(paths, config, store, dry_run=False)


def _is_here(source: ObjectSource, name: str) -> bool:
    try:
        return source.is_here(name)
    except InputError:
        return False
