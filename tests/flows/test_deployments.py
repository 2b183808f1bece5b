"""Deployments on a real Prefect server with a worker: a new session starts a refresh, a schedule trains."""

import inspect
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.client.schemas.schedules import IntervalSchedule

from flows.runs import PROCESS
from storage.dataset import Dataset
from storage.store import Store
from storage.upkeep import verify
from tests.flows.conftest import CHECKOUT, NUM_FRAMES, PATIENCE_S, MakeSession, Serving, wait_for

SMALL = ("--set", "layers.size=32", "--set", "six_views.size=32")
NIGHTLY, ON_NEW_SESSION = "retrain/nightly", "refresh/on_new_session"
BATCH = {"clips": 1, "frames": NUM_FRAMES, "pick": "scattered"}
TINY = {"iterations": 2, "batch": BATCH, "warmup": 0, "memory_estimate": False}

pytestmark = pytest.mark.timeout(4 * PATIENCE_S)


@pytest.fixture(scope="module")
def working(serving: Serving) -> Iterator[Serving]:
    """The server with two deployments, and a worker."""
    serving.run("prefect", "work-pool", "create", "local", "--type", "process")
    serving.run("prefect", "--no-prompt", "deploy", "-n", NIGHTLY, "-n", ON_NEW_SESSION)
    worker = serving.start("prefect", "worker", "start", "--pool", "local")
    yield serving
    worker.send_signal(signal.SIGINT)
    worker.wait(PATIENCE_S)


def runs(serving: Serving, deployment: str, states: set[str]) -> list[FlowRun]:
    """Return a deployment's runs that are in one of these states."""
    _, _, name = deployment.partition("/")
    return serving.client.read_flow_runs(
        deployment_filter=DeploymentFilter.model_validate({"name": {"any_": [name]}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": sorted(states)}}}),
    )


def wait_for_run(serving: Serving, deployment: str) -> FlowRun:
    """Return a run of a deployment that has come to its end, which must be a good one."""
    ends = {state.value for state in TERMINAL_STATES}
    run = wait_for(lambda: runs(serving, deployment, ends), f"a run of {deployment}")[0]
    assert run.state is not None
    assert run.state.is_completed(), run.state.message
    return run


def test_a_session_dropped_into_a_watched_folder_is_ingested_and_a_schedule_trains_on_it(
    working: Serving, make_session: MakeSession, tmp_path: Path
) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "watched"
    folder.mkdir()
    watcher = working.start("manivideo", "watch", folder, "--store", store.root, "--settle", "1", *SMALL)
    make_session("cup-1").rename(folder / "cup-1")
    run = wait_for_run(working, ON_NEW_SESSION)
    watcher.send_signal(signal.SIGINT)
    assert watcher.wait(PATIENCE_S) == 130
    assert run.parameters["folder"] == str(folder)
    assert any(tag.startswith(PROCESS) for tag in run.tags)  # so that it is closed if its process is killed
    assert [row.id for row in Dataset.open(store, "captures").rows()] == ["cup-1/front", "cup-1/side"]
    assert verify(store) == []

    nightly = working.client.read_deployment_by_name(NIGHTLY)
    parameters = {
        "config": nightly.parameters["config"] | TINY,
        "store": str(store.root),
        "out_dir": str(tmp_path / "models"),
    }
    often = IntervalSchedule(interval=timedelta(seconds=20))
    (schedule,) = working.client.create_deployment_schedules(
        nightly.id, [(often, True)], parameters=parameters
    )
    wait_for_run(working, NIGHTLY)
    working.client.delete_deployment_schedule(nightly.id, schedule.id)
    version = Dataset.open(store, "captures").manifest.version
    assert (tmp_path / "models" / version / "model").is_dir()


def test_the_nightly_schedule_has_its_next_run_at_two(working: Serving) -> None:
    def look() -> set[str]:
        starts = [run.expected_start_time for run in runs(working, NIGHTLY, {"SCHEDULED"})]
        soon = [start for start in starts if start and start - datetime.now(UTC) <= timedelta(days=1)]
        return {start.astimezone(UTC).strftime("%H:%M") for start in soon}

    wait_for(lambda: "02:00" in look(), "a run at two")


def test_each_deployment_s_parameters_are_those_of_its_flow() -> None:
    deployments = yaml.safe_load((CHECKOUT / "prefect.yaml").read_text())["deployments"]
    deployed = set()
    for deployment in deployments:
        path, _, name = deployment["entrypoint"].partition(":")
        flow = getattr(import_module(path.removesuffix(".py").replace("/", ".")), name)
        assert isinstance(flow, Flow)
        deployed.add(flow.name)
        given = deployment.get("parameters", {})
        wanted = inspect.signature(flow.fn).parameters
        assert given.keys() <= wanted.keys(), deployment["entrypoint"]
        for trigger in deployment.get("triggers", ()):
            assert trigger["parameters"].keys() <= wanted.keys()
    assert {"build_dataset", "ingest_session", "train", "generate", "evaluate", "refresh"} <= deployed
