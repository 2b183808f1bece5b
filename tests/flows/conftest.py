"""What the tests of the flows share: a folder of objects, capture sessions, Prefect's test server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.testing.utilities import prefect_test_harness

from flows.runtime import prepare
from render.procedural_objects import procedural_object
from render.scene import SIDES, Camera, Clip, HandMotion, ObjectMotion
from render.trajectories import seed_generator
from render.transforms import look_at
from storage.sources.glb_writer import write_glb
from storage.sources.session_writer import write_session

NUM_FRAMES = 4
WIDTH, HEIGHT = 64, 48
CHECKOUT = Path(__file__).parents[2]
PATIENCE_S = 240  # with a server, a worker or a flow run to start: seconds, on a busy machine minutes

Found = TypeVar("Found")

MakeSession = Callable[..., Path]


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server and database of the tests' own."""
    prepare(debug=False)  # nothing is sent anywhere
    with prefect_test_harness(server_startup_timeout=120):
        yield


@dataclass(frozen=True)
class Serving:
    """A Prefect server like that of `make serve`: its environment for programs, and a client of it."""

    environment: dict[str, str]
    client: SyncPrefectClient

    def start(self, program: str, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program of the environment in the checkout, silently unless `options` say otherwise."""
        defaults = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "preexec_fn": take_interrupts}
        command = [str(Path(sys.executable).parent / program), *map(str, arguments)]
        return subprocess.Popen(command, env=self.environment, cwd=CHECKOUT, **(defaults | options))

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run a program to its end, which must be a good one."""
        assert self.start(program, *arguments).wait(PATIENCE_S) == 0, f"{program} {arguments}"


def take_interrupts() -> None:
    """Let a new process be interrupted where the tests themselves, in the background of a shell, are not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A real Prefect server on a port of its own, with a database of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
        # What is due is looked for every second.
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    }
    with SyncPrefectClient(url) as client:
        serving = Serving(environment, client)
        server = serving.start("prefect", "server", "start", "--port", str(port))
        try:
            wait_for(lambda: client.api_healthcheck() is None, "the server")
            yield serving
        finally:
            server.terminate()
            server.wait(PATIENCE_S)


def wait_for(look: Callable[[], Found], what: str) -> Found:
    """Return what `look` finds, once it finds something."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(1)  # to look takes a server's time, too
    return found


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """Two objects that can be built and one that cannot."""
    folder = tmp_path / "objects"
    folder.mkdir()
    for kind in ("mug", "box"):
        write_glb(procedural_object(kind, seed_generator(kind)), folder / f"{kind}.glb", copyright="CC0-1.0")
    whole = (folder / "mug.glb").read_bytes()
    (folder / "torn.glb").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture
def make_session(tmp_path: Path) -> MakeSession:
    """Write a session of a hand beside a still box, seen by two cameras; `split` as its source fixes it."""

    def make(name: str, split: str | None = None) -> Path:
        clip = replace(still_clip(name), split=split)
        grey = np.full((NUM_FRAMES, HEIGHT, WIDTH, 3), 90, np.uint8)
        path = tmp_path / "sessions" / name
        path.parent.mkdir(exist_ok=True)
        write_session(path, clip, dict.fromkeys(clip.cameras, grey))
        return path

    return make


def still_clip(name: str) -> Clip:
    """A hand and a box that stay where they are, at the world's origin."""
    intrinsics = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    up, origin = np.array([0.0, 1, 0]), np.zeros(3)
    eyes = {"front": np.array([0.0, 0.1, 0.5]), "side": np.array([0.5, 0.1, 0.0])}
    cameras = {
        camera: Camera(WIDTH, HEIGHT, intrinsics, look_at(eye, origin, up)) for camera, eye in eyes.items()
    }
    valid = np.ones(NUM_FRAMES, np.bool_)
    pose = np.zeros((NUM_FRAMES, 48), np.float32)
    translation = np.full((NUM_FRAMES, 3), 0.02, np.float32)
    hand = HandMotion(pose, np.zeros(10, np.float32), translation, valid)
    mesh = procedural_object("box", seed_generator("box"))
    still = np.tile(np.eye(4, dtype=np.float32), (NUM_FRAMES, 1, 1))
    moving = ObjectMotion("box", mesh, still, valid, "", {"licence": "CC0-1.0"})
    return Clip(name, 24.0, NUM_FRAMES, cameras, {SIDES[1]: hand}, (moving,))
