"""Runs under Prefect: what a killed process leaves behind is closed; tasks take shards, not items."""

import os
import subprocess
import sys
from uuid import UUID

import pytest
from prefect import Flow, flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import Running

from flows import data_dag, model_dag, refresh_dag
from flows.data_dag import MOST_TASKS, SHARD, shards
from flows.runs import CLOCK_STEP_S, HOST, PROCESS, claim, close_dead_runs, own_tags, process_tag, run


@flow
def nothing() -> str:
    return "done"


@pytest.mark.usefixtures("prefect_server")
def test_the_run_of_a_process_that_is_gone_is_closed_and_others_are_not() -> None:
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    own = process_tag(os.getpid())
    began_s = float(own.rpartition(":")[2])
    processes = {
        "gone": process_tag(gone.pid),
        "another, which had this number before": f"{PROCESS}{os.getpid()}:{began_s - 2 * CLOCK_STEP_S}",
        "alive": own,
    }
    gone.communicate(b"\n")
    with get_client(sync_client=True) as client:
        runs = {
            name: client.create_flow_run(nothing, state=Running(), tags=[HOST, tag]).id
            for name, tag in processes.items()
        }
        assert close_dead_runs(client) == 2
        assert close_dead_runs(client) == 0
        states = {name: client.read_flow_run(run_id).state_type for name, run_id in runs.items()}
    assert states == dict.fromkeys(processes, StateType.CRASHED) | {"alive": StateType.RUNNING}


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_a_worker_starts_is_tagged_with_its_process_and_closes_dead_ones() -> None:
    with get_client(sync_client=True) as client:
        dead = client.create_flow_run(nothing, state=Running(), tags=[HOST, f"{PROCESS}{os.getpid()}:0"])

        @flow(on_running=[claim])
        def started_by_a_worker() -> UUID:
            assert flow_run.id is not None
            return UUID(flow_run.id)

        assert own_tags() <= set(client.read_flow_run(started_by_a_worker()).tags)
        assert client.read_flow_run(dead.id).state_type == StateType.CRASHED


def test_every_flow_that_is_deployed_claims_its_run() -> None:
    modules = (data_dag, model_dag, refresh_dag)
    flows = [made for module in modules for made in vars(module).values() if isinstance(made, Flow)]
    assert [made.name for made in flows if claim not in made.on_running_hooks] == []


@pytest.mark.usefixtures("prefect_server")
def test_a_flow_returns_its_result_and_raises_its_error() -> None:
    @flow
    def failing() -> None:
        raise ValueError("what went wrong")

    assert run(nothing) == "done"
    with pytest.raises(ValueError, match="what went wrong"):
        run(failing)


def test_many_inputs_make_few_tasks() -> None:
    assert shards([]) == []
    assert [len(shard) for shard in shards(list(range(SHARD + 1)))] == [SHARD, 1]
    many = shards(list(range(800_000)))
    assert len(many) <= MOST_TASKS
    assert sum(len(shard) for shard in many) == 800_000
