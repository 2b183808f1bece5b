"""Datasets join records into windows; what a clip lacks is zero."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel

from render.camera import Crop
from render.mlo import encode_depth, encode_normals
from render.scene import NUM_POINTS
from storage.dataset import Dataset, dilate
from storage.errors import InputError
from storage.manifest import ClipRow, Manifest
from storage.recipe import Recipe
from storage.records import (
    FramesData,
    LayersData,
    ObjectData,
    frames_recipe,
    layers_recipe,
    object_recipe,
    rendered_frames_recipe,
)
from storage.store import Store
from storage.upkeep import status

T, L, SIZE = 6, 13, 16
NEAR_M, FAR_M = 0.5, 1.0
LEFT_PALM, RIGHT_PALM, PALM = 1, 7, 1  # the first two as stored, the last as folded


class Settings(BaseModel, frozen=True):
    size: int = SIZE


def layers_data() -> LayersData:
    """One object pixel at 0.6 m; the palms meet at pixel (8, 8): left at 0.9 m, right at 0.7 m."""
    depth_m = np.zeros((T, L, SIZE, SIZE), np.float32)
    depth_m[:, 0, 2, 3] = 0.6
    depth_m[:, LEFT_PALM, 8, 8] = 0.9
    depth_m[1:, RIGHT_PALM, 8, 8] = 0.7
    normals = np.zeros((T, L, SIZE, SIZE, 3), np.float32)
    normals[..., 2] = np.where(depth_m > 0, -1, 0)
    normals[:, RIGHT_PALM] = normals[:, RIGHT_PALM][..., [2, 0, 1]]
    rng = np.random.default_rng(0)
    return LayersData(
        normals=encode_normals(normals),
        depth=encode_depth(depth_m, NEAR_M, FAR_M),
        joints_2d=rng.normal(size=(T, 2, 21, 2)).astype(np.float32),
        joints_3d=rng.normal(size=(T, 2, 21, 3)).astype(np.float32),
        world_from_object=np.tile(np.eye(4, dtype=np.float32), (T, 1, 1)),
        intrinsics=np.eye(3),
        camera_from_world=np.eye(4),
        near_m=NEAR_M,
        far_m=FAR_M,
    )


def frames_data(*, has_plate: bool) -> FramesData:
    rgb = np.random.default_rng(1).integers(1, 256, (T, SIZE, SIZE, 3), dtype=np.uint8)
    plate = np.full((SIZE, SIZE, 3), 77 if has_plate else 0, np.uint8)
    return FramesData(rgb, plate, has_plate)


def object_data() -> ObjectData:
    rng = np.random.default_rng(2)
    views = rng.integers(0, 256, (6, 32, 32, 4), dtype=np.uint8)
    points = rng.normal(size=(NUM_POINTS, 3)).astype(np.float32)
    return ObjectData(views, points, np.zeros(3), 0.1, "mug", {"licence": "CC0"})


def write(store: Store, data: ObjectData | LayersData | FramesData, name: str) -> str:
    recipe = Recipe(data.KIND, data.VERSION, {"name": name}, {})
    data.write(store, recipe)
    return recipe.key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def row(store: Store) -> ClipRow:
    return ClipRow(
        id="take/front",
        session="take",
        camera="front",
        split="train",
        source="hoi",
        object_keys=(write(store, object_data(), "mug"),),
        layers_key=write(store, layers_data(), "layers"),
        frames_key=write(store, frames_data(has_plate=True), "frames"),
        has_hands=True,
        has_object=True,
        num_frames=T,
        fps=30.0,
    )


def dataset_of(store: Store, *rows: ClipRow) -> Dataset:
    Manifest("demo", rows).write(store)
    return Dataset.open(store, "demo", mask_margin_px=1)


def test_window_holds_what_was_stored(store: Store, row: ClipRow) -> None:
    window = dataset_of(store, row).read(row, 1, 2, stride=3)
    assert np.array_equal(window.frames, frames_data(has_plate=True).rgb[[1, 4]])
    assert np.array_equal(window.joints_2d, layers_data().joints_2d[[1, 4]])
    assert np.array_equal(window.views, object_data().views)
    assert np.array_equal(window.points, object_data().points)
    assert (window.background == 77).all()
    assert window.normals.shape == (2, 7, SIZE, SIZE, 3)
    assert window.confidence.dtype == window.normals.dtype == np.float32
    assert np.allclose(window.confidence[:, 0, 2, 3], 1 - 0.9 * 0.2, atol=1e-4)
    assert np.count_nonzero(window.confidence) == 2 * 2


def test_a_metre_at_a_joint_s_depth_is_f_over_z_pixels(store: Store, row: ClipRow) -> None:
    px_per_m = dataset_of(store, row).joint_px_per_m(row, 1, 2, stride=3)
    assert px_per_m == pytest.approx(1.0 / layers_data().joints_3d[[1, 4], ..., 2])
    human = replace(row, layers_key=None)
    assert np.isnan(dataset_of(store, human).joint_px_per_m(human, 0, 3)).all()


def test_folding_takes_the_nearer_hand(store: Store, row: ClipRow) -> None:
    window = dataset_of(store, row).read(row, 0, 2)
    nearer = 1 - 0.9 * np.array([0.8, 0.4])  # frame 0 has the left palm alone
    assert np.allclose(window.confidence[:, PALM, 8, 8], nearer, atol=1e-4)
    assert np.allclose(window.normals[:, PALM, 8, 8], [(0, 0, -1), (-1, 0, 0)])


def test_thirteen_layers_keep_both_hands(store: Store, row: ClipRow) -> None:
    dataset = Dataset(store, Manifest("demo", (row,)), layers=13)
    window = dataset.read(row, 1, 1)
    assert window.normals.shape == (1, 13, SIZE, SIZE, 3)
    assert np.allclose(window.confidence[0, [LEFT_PALM, RIGHT_PALM], 8, 8], [0.28, 0.64], atol=1e-4)


def test_mask_is_the_union_of_layers_dilated(store: Store, row: ClipRow) -> None:
    mask = dataset_of(store, row).read(row, 0, 1).mask[0]
    wanted = np.zeros((SIZE, SIZE), bool)
    wanted[1:4, 2:5] = wanted[7:10, 7:10] = True
    assert np.array_equal(mask, wanted)


def test_dilation_stays_inside_the_picture_and_the_frame() -> None:
    mask = np.zeros((3, 5, 5), bool)
    mask[1, 0, 0] = True
    assert np.argwhere(dilate(mask, 1)).tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 0], [1, 1, 1]]
    assert np.array_equal(dilate(mask, 0), mask)


def test_background_without_plate_is_the_first_frame_without_its_area(store: Store, row: ClipRow) -> None:
    row = replace(row, frames_key=write(store, frames_data(has_plate=False), "no plate"))
    dataset = dataset_of(store, row)
    background, mask = dataset.read(row, 3, 1).background, dataset.read(row, 0, 1).mask[0]
    assert (background[mask] == 0).all()
    assert np.array_equal(background[~mask], frames_data(has_plate=False).rgb[0][~mask])


def test_human_video_has_background_and_nothing_else(store: Store, row: ClipRow) -> None:
    frames_key = write(store, frames_data(has_plate=False), "human")
    row = replace(row, layers_key=None, object_keys=(), frames_key=frames_key, source="human")
    window = dataset_of(store, row).read(row, 0, 3)
    for name in ("normals", "confidence", "mask", "views", "points"):
        assert not getattr(window, name).any(), name
    assert window.normals.shape == (3, 7, SIZE, SIZE, 3)
    assert np.array_equal(window.background, window.frames[0])
    assert np.isnan(window.joints_2d).all()


def test_motion_alone_has_no_frames(store: Store, row: ClipRow) -> None:
    row = replace(row, frames_key=None)
    window = dataset_of(store, row).read(row, 0, 2)
    assert window.frames.shape == (0, SIZE, SIZE, 3)
    assert window.normals.shape == (2, 7, SIZE, SIZE, 3)
    assert not window.background.any()


@pytest.mark.parametrize("window", [(-1, 2, 1), (0, 0, 1), (0, 7, 1), (3, 2, 3), (0, 2, 0)])
def test_window_must_lie_in_the_clip(store: Store, row: ClipRow, window: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="take/front"):
        dataset_of(store, row).read(row, *window)


def test_rows_by_split_and_id(store: Store, row: ClipRow) -> None:
    other = replace(row, id="a/front", session="a", split="test")
    dataset = dataset_of(store, row, other)
    assert [r.id for r in dataset.rows()] == ["a/front", "take/front"]
    assert dataset.rows("test") == [other]
    assert dataset.row("a/front") == other
    with pytest.raises(InputError, match="no clip 'b'"):
        dataset.row("b")


def test_rows_by_the_split_of_participants(store: Store, row: ClipRow) -> None:
    other = replace(row, id="a/front", session="a", participant_split="test")
    dataset = dataset_of(store, row, other)
    assert dataset.rows("participant:test") == [other]
    assert dataset.rows("participant:train") == []  # nobody knows whose hands the first are


def test_rows_by_the_split_of_objects(store: Store, row: ClipRow) -> None:
    other = replace(row, id="a/front", session="a", object_split="test")
    dataset = dataset_of(store, row, other)
    assert dataset.rows("object:test") == [other]
    assert dataset.rows("object:train") == [row]
    assert len(dataset.rows("train")) == 2
    with pytest.raises(InputError, match="object:NAME"):
        dataset.rows("camera:test")


def test_records_read_back_equal(store: Store) -> None:
    for data in (object_data(), layers_data(), frames_data(has_plate=True)):
        key = write(store, data, "x")
        read = type(data).read(store, key)
        for name in data.__dataclass_fields__:
            got, wanted = getattr(read, name), getattr(data, name)
            assert np.array_equal(got, wanted) if name in data.SCHEMA else got == wanted, name


def test_record_that_breaks_its_schema_is_refused(store: Store) -> None:
    wrong = [
        replace(frames_data(has_plate=True), rgb=np.zeros((T, SIZE, SIZE, 4), np.uint8)),
        replace(frames_data(has_plate=True), background=np.zeros((SIZE, 8, 3), np.uint8)),
        replace(layers_data(), depth=np.zeros((T, L, SIZE, SIZE), np.float32)),
        replace(layers_data(), depth=np.zeros((T, 7, SIZE, SIZE), np.uint16)),
        replace(object_data(), points=np.zeros((NUM_POINTS,), np.float32)),
    ]
    for data in wrong:
        with pytest.raises(ValueError, match=r"record: .* wanted"):
            write(store, data, "x")
    assert status(store) == {}


def test_what_a_change_reaches() -> None:
    digests = {"cameras/front": "c", "cameras/side": "d", "hands": "h", "objects/mug/mesh": "m"}
    digests |= {"objects/mug/geometry": "g", "objects/mug/motion": "o", "videos/front": "v"}
    refitted, moved = {**digests, "hands": "h2"}, {**digests, "cameras/side": "d2"}
    crop, settings = Crop(0, 0, 10), Settings()

    def keys(parts: dict[str, str]) -> list[str]:
        return [
            layers_recipe(parts, "front", "model", crop, settings).key,
            frames_recipe(parts, "front", crop, SIZE).key,
            object_recipe(parts["objects/mug/mesh"], "mug", {"licence": "CC0"}, settings).key,
            rendered_frames_recipe(parts, "front", settings).key,
        ]

    assert [a == b for a, b in zip(keys(digests), keys(refitted), strict=True)] == [False, True, True, False]
    painted = keys({**digests, "objects/mug/mesh": "m2"})
    assert [a == b for a, b in zip(keys(digests), painted, strict=True)] == [True, True, False, False]
    assert keys(digests) == keys(moved)
    assert (
        layers_recipe(digests, "front", "model", Crop(1, 0, 10), settings).key
        != layers_recipe(digests, "front", "model", crop, settings).key
    )
