"""What the tests of the flows share: a folder of objects, capture sessions, Prefect's test server."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prefect.testing.utilities import prefect_test_harness

from render.procedural_objects import procedural_object
from render.scene import SIDES, Camera, Clip, HandMotion, ObjectMotion
from render.trajectories import seed_generator
from render.transforms import look_at
from storage.sources.glb_writer import write_glb
from storage.sources.session_writer import write_session

NUM_FRAMES = 4
WIDTH, HEIGHT = 64, 48

MakeSession = Callable[..., Path]


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server and database of the tests' own."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


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
