"""Layers shaded by torch, as on a GPU, are those of the numba kernels.

Letters: B frames, L layers, H rows, W columns.  nvdiffrast's own kernel is played by the numba rasterizer.
"""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from render.camera import clip_vertices
from render.hands.model import default_hands
from render.posing import PosedClip
from render.rasterizers.numba import NumbaRasterizer
from render.rasterizers.protocol import Rasterizer
from render.shading import PosedLayers
from tests.bench.scene import bimanual_clip, front_camera

SIZE = 192
DEPTH_RANGE = (0.3, 0.8)
Codes = tuple[NDArray[np.uint8], NDArray[np.uint16]]


@pytest.fixture
def nvdiffrast(monkeypatch: pytest.MonkeyPatch) -> Rasterizer:
    """The back end on the CPU."""

    def rasterize(
        _: object, vertices: torch.Tensor, triangles: torch.Tensor, resolution: list[int], **options: object
    ) -> tuple[torch.Tensor, None]:
        ranges: torch.Tensor = options["ranges"]  # type: ignore[assignment]
        assert not vertices.isnan().any()  # undefined there
        image = NumbaRasterizer().rasterize(
            vertices.numpy(), triangles.numpy(), ranges.numpy(), (resolution[0], resolution[1])
        )
        return torch.from_numpy(image), None

    package, module = ModuleType("nvdiffrast"), ModuleType("nvdiffrast.torch")
    module.rasterize, module.RasterizeCudaContext = rasterize, lambda _: None  # type: ignore[attr-defined]
    package.torch = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
    monkeypatch.delitem(sys.modules, "render.rasterizers.nvdiffrast", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(
        "torch.cuda.mem_get_info", lambda _: (20 * 3 * 60 * SIZE * SIZE, 0)
    )  # 20 images at once
    from render.rasterizers.nvdiffrast import NvdiffrastRasterizer

    rasterizer = NvdiffrastRasterizer("cpu")
    monkeypatch.delitem(sys.modules, "render.rasterizers.nvdiffrast")
    return rasterizer


def posed_layers() -> PosedLayers:
    """Two frames; one has an object whose vertices are not finite, as where it is not valid."""
    camera = front_camera(SIZE)
    posed = PosedClip(bimanual_clip(20_000, num_frames=2), camera, default_hands())
    points, normals = posed.pose(slice(0, 2))
    points[1, : posed.first_hand_vertex["left"] // 2] = np.nan
    vertices = clip_vertices(points, camera, *DEPTH_RANGE)
    turned = np.random.default_rng(0).random(len(posed.faces)) < 0.1
    return PosedLayers(vertices, normals, posed.faces, posed.against_normals ^ turned, posed.layer_ranges)


def codes_of(rasterizer: Rasterizer, posed: PosedLayers) -> Codes:
    shape = len(posed.clip_vertices), len(posed.ranges), SIZE, SIZE
    normals, depth = np.zeros((*shape, 3), np.uint8), np.zeros(shape, np.uint16)
    rasterizer.draw_layers(posed, DEPTH_RANGE, normals, depth)
    return normals, depth


def test_codes_are_numbas(nvdiffrast: Rasterizer) -> None:
    posed = posed_layers()
    normals, depth = codes_of(nvdiffrast, posed)
    expected_normals, expected_depth = codes_of(NumbaRasterizer(), posed)
    np.testing.assert_array_equal(depth > 0, expected_depth > 0)
    assert (depth > 0).any(axis=(2, 3)).all()
    covered = expected_depth > 0
    off_normals = np.abs(normals.astype(int) - expected_normals)[covered].max(axis=-1)
    off_depth = np.abs(depth.astype(int) - expected_depth)[covered]
    assert max(off_normals.max(), off_depth.max()) <= 1
    assert max((off_normals > 0).mean(), (off_depth > 0).mean()) < 1e-3
    assert not normals[~covered].any()


def test_opposite_normals_are_seen_head_on(nvdiffrast: Rasterizer) -> None:
    posed = posed_layers()
    posed.normals[:] = 0
    for rasterizer in (nvdiffrast, NumbaRasterizer()):
        normals, depth = codes_of(rasterizer, posed)
        np.testing.assert_array_equal(np.unique(normals[depth > 0], axis=0), [[128, 128, 1]])


def test_few_pixels_at_once_change_nothing(nvdiffrast: Rasterizer, monkeypatch: pytest.MonkeyPatch) -> None:
    posed = posed_layers()
    at_once = codes_of(nvdiffrast, posed)
    monkeypatch.setitem(type(nvdiffrast).draw_layers.__globals__, "PIXELS_AT_ONCE", 1000)
    for few, all_of_them in zip(codes_of(nvdiffrast, posed), at_once, strict=True):
        np.testing.assert_array_equal(few, all_of_them)
