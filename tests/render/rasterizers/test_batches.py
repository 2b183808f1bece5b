"""Batches follow memory and what a call can count; the memory is a made-up figure."""

import numpy as np
import pytest

from render.rasterizers.batches import MAX_ELEMENTS, MAX_TRIANGLES, frames_at_once, images_at_once
from render.rasterizers.numba import TRIANGLES_AT_ONCE, NumbaRasterizer
from render.rasterizers.protocol import get_rasterizer
from render.scene import STORED_LAYERS
from tests.render.rasterizers.oracle import each_of, perspective_soup

GIB = 1 << 30
LAYERS = len(STORED_LAYERS)


@pytest.mark.parametrize("free", [GIB, 8 * GIB, 24 * GIB])
def test_images_fill_the_memory_and_no_more(free: int) -> None:
    images = images_at_once((512, 512), free, bytes_per_pixel=60)
    assert images * 512 * 512 * 60 <= free < (images + 1) * 512 * 512 * 60


def test_more_memory_means_more_images_until_the_elements_run_out() -> None:
    counts = [images_at_once((512, 512), memory * GIB, 60) for memory in (1, 2, 8, 32, 80, 140)]
    assert counts == sorted(counts)
    assert counts[-1] == counts[-2]
    assert counts[-1] * 512 * 512 * 4 < MAX_ELEMENTS <= (counts[-1] + 1) * 512 * 512 * 4


def test_one_image_is_drawn_however_little_memory_there_is() -> None:
    assert images_at_once((512, 512), 0, 60) == 1
    assert frames_at_once(1, LAYERS, 50_000) == 1


def test_an_image_of_too_many_elements_is_an_error() -> None:
    with pytest.raises(ValueError, match="32768 by 16384"):
        images_at_once((32768, 16384), 140 * GIB, 60)


@pytest.mark.parametrize("triangles", [1, 3_000, 50_000, 1_000_000])
def test_the_triangles_of_a_call_can_be_numbered(triangles: int) -> None:
    frames = frames_at_once(10**9, LAYERS, triangles)
    assert frames * triangles < MAX_TRIANGLES <= (frames + 1) * triangles


def test_frames_are_whole() -> None:
    assert frames_at_once(5 * LAYERS + LAYERS - 1, LAYERS, 3_000) == 5


def test_a_clip_without_triangles_has_frames_too() -> None:
    assert frames_at_once(26, LAYERS, 0) == 2


def test_numba_keeps_its_threads_busy_and_its_vertices_few() -> None:
    rasterizer = NumbaRasterizer(num_threads=64)
    assert rasterizer.frames_at_once(LAYERS, 5_000, (64, 64)) == 8 * 64
    frames = rasterizer.frames_at_once(LAYERS, 50_000, (512, 512))
    assert 1 < frames < 8 * 64
    assert frames * 50_000 <= TRIANGLES_AT_ONCE
    assert rasterizer.frames_at_once(LAYERS, 100_000_000, (512, 512)) == 1


@pytest.mark.gpu
def test_nvdiffrast_draws_the_same_in_many_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rasterizer = get_rasterizer("nvdiffrast")
    vertices, triangles = perspective_soup(np.random.default_rng(0), 30, 1.0)
    at_once = rasterizer.rasterize(vertices, triangles, each_of(triangles), (40, 40))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (3 * 4 * 40 * 40 * 60, 0))
    assert rasterizer.frames_at_once(2, 10, (40, 40)) == 2
    few = rasterizer.rasterize(vertices, triangles, each_of(triangles), (40, 40))
    np.testing.assert_array_equal(few, at_once)
