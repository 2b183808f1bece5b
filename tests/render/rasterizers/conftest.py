"""Every contract test runs once per back end; those that need a GPU carry its marker."""

import pytest

from render.rasterizers.protocol import Rasterizer, get_rasterizer


@pytest.fixture(params=["numba", pytest.param("nvdiffrast", marks=pytest.mark.gpu)])
def rasterizer(request: pytest.FixtureRequest) -> Rasterizer:
    return get_rasterizer(request.param)
