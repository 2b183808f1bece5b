"""Fixtures that every test folder shares."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real meshes and motion: $MANIVIDEO_SHARED_DATA, else ../shared/data beside the checkout."""
    beside_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MANIVIDEO_SHARED_DATA", beside_checkout))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set MANIVIDEO_SHARED_DATA to its folder")
    return folder
