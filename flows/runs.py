"""Running a flow from the command line, on the embedded server or on that of PREFECT_API_URL.

A killed process leaves its run "Running" for ever. Each run is therefore tagged with its host and process,
and the next command on that host marks the runs of processes that are gone as crashed.
"""

import os
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from prefect import tags
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.states import Crashed

Result = TypeVar("Result")

HOST = f"host:{socket.gethostname()}"
PROCESS = "process:"


def run(flow: Callable[..., Result], **parameters: Any) -> Result:
    """Run a flow in this process and return its result; what it raises is raised."""
    with get_client(sync_client=True) as client:
        close_dead_runs(client)
    with tags(HOST, f"{PROCESS}{os.getpid()}"):
        return flow(**parameters)


def close_dead_runs(client: SyncPrefectClient) -> int:
    """Mark running flow runs of this host whose process is gone as crashed; return their number."""
    running = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": ["RUNNING"]}}, "tags": {"all_": [HOST]}}
    )
    dead = [run for run in client.read_flow_runs(flow_run_filter=running) if not _is_alive(run.tags)]
    for flow_run in dead:
        client.set_flow_run_state(flow_run.id, Crashed(message="its process is gone"), force=True)
    return len(dead)


def _is_alive(run_tags: list[str]) -> bool:
    processes = [int(tag.removeprefix(PROCESS)) for tag in run_tags if tag.startswith(PROCESS)]
    return any(_exists(process) for process in processes)


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
