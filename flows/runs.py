"""Running flows, and closing the runs of those that were killed.

A killed process leaves its run "Running" for ever. Each run is therefore tagged with its host, its process
and when that began, since numbers of processes are used again; the next run on that host, and `make serve`
(python -m flows.runs), mark the runs of processes that are gone as crashed.
"""

import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import psutil
from prefect import Flow, State, tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL
from prefect.states import Crashed

Result = TypeVar("Result")

HOST = f"host:{socket.gethostname()}"
PROCESS = "process:"
CLOCK_STEP_S = 60  # by which a clock that is set moves the time at which a process seems to have begun


def run(flow: Callable[..., Result], **parameters: Any) -> Result:
    """Run a flow in this process and return its result; what it raises is raised."""
    if not PREFECT_API_URL.value():
        from flows.embedded_server import DeafServer  # takes seconds to load

        DeafServer()
    with tags(*own_tags()):
        return flow(**parameters)


def claim(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Close dead runs, and tag the one that begins where a worker has started it (hook `on_running`)."""
    with get_client(sync_client=True) as client:
        if flow_run.parent_task_run_id is None:  # once, and not at each flow that this one calls
            close_dead_runs(client)
        if not own_tags() <= set(flow_run.tags):
            client.update_flow_run(flow_run.id, tags=own_tags().union(flow_run.tags))


def close_dead_runs(client: SyncPrefectClient) -> int:
    """Mark running flow runs of this host whose process is gone as crashed; return their number."""
    running = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": ["RUNNING"]}}, "tags": {"all_": [HOST]}}
    )
    dead = [run for run in client.read_flow_runs(flow_run_filter=running) if not _is_alive(run.tags)]
    for flow_run in dead:
        client.set_flow_run_state(flow_run.id, Crashed(message="its process is gone"), force=True)
    return len(dead)


def own_tags() -> set[str]:
    """Return the tags of this process's runs."""
    return {HOST, process_tag(os.getpid())}


def process_tag(process: int) -> str:
    """Return the tag of the runs of a process that is alive: its number, and when it began, in seconds."""
    return f"{PROCESS}{process}:{psutil.Process(process).create_time():.0f}"


def _is_alive(run_tags: list[str]) -> bool:
    return any(_names_a_process(tag) for tag in run_tags if tag.startswith(PROCESS))


def _names_a_process(tag: str) -> bool:
    process, _, began_s = tag.removeprefix(PROCESS).partition(":")
    try:
        return abs(psutil.Process(int(process)).create_time() - float(began_s)) < CLOCK_STEP_S
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    with get_client(sync_client=True) as client:
        close_dead_runs(client)
