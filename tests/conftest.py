"""Fixtures that every test folder shares."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import absl.logging
import httpx
import pytest
from hypothesis import settings

# MediaPipe logs by absl, whose handler closes the stream that it was made with, here pytest's, when Prefect
# configures logging; the process' own stream it leaves alone.
absl.logging.get_absl_handler().python_handler.setStream(sys.__stderr__)
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """End what Prefect does in the background before a test of hypothesis, which fails where anything draws
    from Python's own random numbers meanwhile, as websockets do to keep in touch with the server."""
    if item.get_closest_marker("hypothesis"):
        from prefect.events.worker import EventsWorker  # takes seconds to load

        EventsWorker.drain_all()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real meshes and motion: $MANIVIDEO_SHARED_DATA, else ../shared/data beside the checkout."""
    beside_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MANIVIDEO_SHARED_DATA", beside_checkout))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set MANIVIDEO_SHARED_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def s3_address() -> Iterator[str]:
    """A local server that speaks S3."""
    from moto.s3.responses import S3Response
    from moto.server import ThreadedMotoServer  # takes seconds to load

    put, turns = S3Response.put_object, Lock()

    def put_in_turn(request: S3Response) -> Any:
        with turns:
            return put(request)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        # S3 looks at the condition of a write and writes in one step; Moto lets another write in between.
        patch.setattr(S3Response, "put_object", put_in_turn)
        server.start()
        yield "http://{}:{}".format(*server.get_host_and_port())
        server.stop()


@pytest.fixture
def bucket(s3_address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in an empty bucket, which the environment's variables lead to."""
    variables = {
        "AWS_ENDPOINT_URL": s3_address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "reader",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{uuid4().hex}"
    httpx.put(f"{s3_address}/{name}").raise_for_status()
    return f"s3://{name}/some/prefix"
