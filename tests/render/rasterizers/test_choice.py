"""`auto` is nvdiffrast where it works, else numba, and says which and why."""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from render.rasterizers.numba import NumbaRasterizer
from render.rasterizers.protocol import get_rasterizer, why_not_nvdiffrast


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What is said about the choice, which every test makes anew."""
    caplog.set_level(logging.INFO, logger="render.rasterizers.protocol")
    why_not_nvdiffrast.cache_clear()
    yield caplog
    why_not_nvdiffrast.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, rasterizer: type) -> None:
    """Make `rasterizer` the class that the nvdiffrast file defines."""
    module = ModuleType("render.rasterizers.nvdiffrast")
    module.NvdiffrastRasterizer = rasterizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "render.rasterizers.nvdiffrast", module)


class Working(NumbaRasterizer):
    name = "nvdiffrast"


class WithoutDevice(Working):
    def __init__(self) -> None:
        raise RuntimeError("torch sees no CUDA device")


class Blind(Working):
    def nearest_ids(
        self, clip_vertices: NDArray, triangles: NDArray, ranges: NDArray, *_: object
    ) -> Iterator[NDArray[np.int32]]:
        yield np.zeros((len(ranges), 8, 8), np.int32)


def test_auto_takes_nvdiffrast_where_it_works(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, Working)
    assert get_rasterizer("auto").name == "nvdiffrast"
    assert log.messages == ["rasterizer: auto is nvdiffrast, which works here"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(WithoutDevice, "torch sees no CUDA device"), (Blind, "a triangle that fills the picture does not")],
)
def test_auto_takes_numba_where_nvdiffrast_does_not_work_and_says_why(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, broken: type, reason: str
) -> None:
    install(monkeypatch, broken)
    assert get_rasterizer("auto").name == "numba"
    assert log.messages == [f"rasterizer: auto is numba, for nvdiffrast does not work here: {reason}"]


def test_auto_takes_numba_where_nvdiffrast_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "render.rasterizers.nvdiffrast", raising=False)
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    assert get_rasterizer("auto").name == "numba"
    assert "nvdiffrast" in log.messages[0].partition("does not work here: ")[2]


def test_the_choice_is_tried_and_said_once(
    monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    install(monkeypatch, WithoutDevice)
    assert get_rasterizer("auto") is not get_rasterizer("auto")  # an instance serves one caller
    assert len(log.messages) == 1


def test_nvdiffrast_by_name_is_an_error_where_it_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, WithoutDevice)
    with pytest.raises(ValueError, match="does not work here: torch sees no CUDA device"):
        get_rasterizer("nvdiffrast")


def test_numba_by_name_tries_nothing_else(log: pytest.LogCaptureFixture) -> None:
    assert get_rasterizer("numba").name == "numba"
    assert not log.messages
