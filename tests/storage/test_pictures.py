"""Cropped and resized pictures stay where the cropped camera projects."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from render.camera import Crop, crop_camera, project
from render.scene import Camera
from storage.errors import InputError
from storage.pictures import crop_and_resize, read_picture


@pytest.mark.parametrize("size", [24, 40, 80, 200])
@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.05, -0.06), (-0.11, 0.08)])
def test_dot_lands_where_the_cropped_camera_projects_it(size: int, x: float, y: float) -> None:
    intrinsics = np.array([[300.0, 0, 79.3], [0, 310.0, 58.8], [0, 0, 1]])
    camera = Camera(160, 120, intrinsics, np.eye(4))
    crop = Crop(38, 17, 80)
    point = np.array([x, y, 1.0])
    (column, row), _ = project(point, camera)
    columns, rows = np.meshgrid(np.arange(160), np.arange(120))
    blob = 255 * np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * 3.0**2))
    picture = np.repeat(np.rint(blob).astype(np.uint8)[..., None], 3, axis=-1)

    small = crop_and_resize(picture, crop, size)[..., 0].astype(np.float64)
    weights = small / small.sum()
    found = np.array(
        [(weights.sum(axis=0) * np.arange(size)).sum(), (weights.sum(axis=1) * np.arange(size)).sum()]
    )
    wanted, _ = project(point, crop_camera(camera, crop, size))
    assert np.abs(found - wanted).max() < 0.05 * max(1, size / 80)


def test_crop_of_the_same_size_is_a_plain_cut() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(crop_and_resize(picture, Crop(7, 3, 12), 12), picture[3:15, 7:19])


def test_shrinking_averages_instead_of_skipping() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = crop_and_resize(stripes, Crop(0, 0, 64), 16)
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() <= 3


def test_read_picture_drops_alpha_and_names_what_is_none(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 3), (10, 20, 30, 40)).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png"), np.full((3, 4, 3), (10, 20, 30), np.uint8))
    (tmp_path / "b.png").write_bytes(b"no")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "d.png")  # Pillow takes it for a decompression bomb
    for name in ("b.png", "c.png", "d.png"):
        with pytest.raises(InputError, match=name):
            read_picture(tmp_path / name)


def test_a_picture_cannot_start_a_program(tmp_path: Path) -> None:
    path = tmp_path / "plate.png"
    Image.new("RGB", (4, 4)).save(path, "EPS")  # Pillow decodes it by running Ghostscript
    with pytest.raises(InputError, match="not a picture"):
        read_picture(path)
