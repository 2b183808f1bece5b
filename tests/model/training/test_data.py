"""Draws, caching and the tensors that conditions are made of."""

import logging
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from model.clip_tensors import (
    NUM_VIEWS,
    FrameTensors,
    ReferenceTensors,
    assemble,
    composite,
    conditions_from_window,
    first_object_crop,
    num_bytes,
    resize,
    stack,
)
from model.codec import PixelUnshuffleCodec
from model.conditions import BACKGROUND_SLOT, FIRST_OBJECT_SLOT
from model.data import Batch, BatchConfig, ClipCache, Draws, LeastRecent, StepBatches, read_steps
from storage.dataset import ClipWindow, Dataset
from storage.errors import InputError
from storage.store import Store
from tests.model.training.conftest import write_toy

LARGE, NOTHING = 2**30, 0  # bytes of cache


def equal(a: Batch, b: Batch) -> bool:
    tensors = [(a.dropped, b.dropped)]
    tensors += [(getattr(a.clips, name), getattr(b.clips, name)) for name in vars(a.clips)]
    tensors += [(getattr(a.references, name), getattr(b.references, name)) for name in vars(a.references)]
    return a.ids == b.ids and all(torch.equal(x, y) for x, y in tensors)


def window_of(dataset: Dataset, clip: str, count: int = 1) -> ClipWindow:
    return dataset.read(dataset.row(f"{clip}/cam0"), 0, count)


def test_a_draw_depends_on_seed_step_and_slot_alone(dataset: Dataset) -> None:
    rows = dataset.rows("train")
    config = BatchConfig(frames=3)
    forwards = [Draws(rows, config, seed=1)(step, 0) for step in range(20)]
    backwards = [Draws(rows, config, seed=1)(step, 0) for step in reversed(range(20))][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert (a.row, a.dropped, a.first_object) == (b.row, b.dropped, b.first_object)
        assert np.array_equal(a.frames, b.frames)
    assert len({(draw.row.id, *draw.frames) for draw in forwards}) > 10
    other_seed = [Draws(rows, config, seed=2)(step, 0).row.id for step in range(20)]
    assert other_seed != [draw.row.id for draw in forwards]


def test_sources_have_equal_shares_whatever_their_number_of_clips(dataset: Dataset) -> None:
    draws = Draws(dataset.rows("train"), BatchConfig(clips=1), seed=0)
    drawn = Counter(draws(step, 0).row.source for step in range(900))
    assert all(250 < drawn[source] < 350 for source in ("hoi", "object", "human"))


def test_named_shares_are_kept_and_a_source_without_clips_must_not_have_one(dataset: Dataset) -> None:
    no_human = [row for row in dataset.rows("train") if row.source != "human"]
    draws = Draws(no_human, BatchConfig(shares={"hoi": 3, "object": 1, "human": 0}), seed=0)
    drawn = Counter(draws(step, 0).row.source for step in range(400))
    assert 260 < drawn["hoi"] < 340
    with pytest.raises(InputError, match=r"found clips {.*'object': 3.*}, wanted clips of human$"):
        Draws(no_human, BatchConfig(shares={"hoi": 3, "object": 1, "human": 9}), seed=0)
    with pytest.raises(InputError, match="no share for source human"):
        Draws(dataset.rows("train"), BatchConfig(shares={"hoi": 1, "object": 1}), seed=0)
    with pytest.raises(InputError, match="wanted a share above 0 of one of them"):
        Draws(no_human, BatchConfig(shares={"hoi": 0, "object": 0}), seed=0)


def test_clips_without_a_share_are_neither_drawn_nor_prepared(dataset: Dataset) -> None:
    rows = dataset.rows("train")
    alone = Draws(rows, BatchConfig(shares={"hoi": 1, "object": 0, "human": 0}), seed=0)
    assert {row.source for row in alone.rows} == {"hoi"}  # what is encoded, kept in memory and looked at
    some, others = (
        Draws(chosen, BatchConfig(shares={"hoi": 2, "object": 1, "human": 0}), seed=4)
        for chosen in (rows, [row for row in rows if row.source != "human"])
    )
    assert [some(step, 0).row.id for step in range(50)] == [others(step, 0).row.id for step in range(50)]


def test_windows_are_in_a_row_and_their_stride_shrinks_to_fit(dataset: Dataset) -> None:
    rows = dataset.rows("train")  # clips of six frames
    config = BatchConfig(frames=3, pick="window", stride=2)
    frames = [Draws(rows, config, seed=0)(step, 0).frames for step in range(40)]
    assert {tuple(np.diff(positions)) for positions in frames} == {(2, 2)}
    assert {int(positions[0]) for positions in frames} == {0, 1}
    whole = Draws(rows, BatchConfig(frames=6, pick="window", stride=4), seed=0)(0, 0).frames
    assert np.array_equal(whole, np.arange(6))


def test_scattered_frames_are_different_frames_of_the_clip(dataset: Dataset) -> None:
    draws = Draws(dataset.rows("train"), BatchConfig(frames=4), seed=0)
    for step in range(20):
        frames = draws(step, 0).frames
        assert len(set(frames)) == 4
        assert 0 <= frames.min() <= frames.max() < 6


def test_clips_too_short_to_draw_from_are_named(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    rows = dataset.rows("train")
    with pytest.raises(InputError, match="no pictures of 7 frames"):
        Draws(rows, BatchConfig(frames=7), seed=0)
    motion_alone = [type(rows[0])(**{**vars(rows[0]), "frames_key": None}), *rows[1:]]
    with caplog.at_level(logging.WARNING):
        draws = Draws(motion_alone, BatchConfig(), seed=0)
    assert rows[0].id in caplog.text
    assert rows[0].id not in {row.id for row in draws.rows}


@pytest.mark.parametrize("pick", ["scattered", "window"])
def test_batches_are_the_same_with_and_without_memory(dataset: Dataset, pick: str) -> None:
    config = BatchConfig(clips=2, frames=3, pick=pick)
    draws = Draws(dataset.rows("train"), config, seed=3)
    cached, read = (StepBatches(dataset, draws, size) for size in (LARGE, NOTHING))
    assert cached.cache.holds_clips
    assert not read.cache.holds_clips
    assert all(equal(cached(step), read(step)) for step in range(6))


@pytest.mark.parametrize(("ahead", "threads"), [(0, 1), (1, 1), (9, 1), (3, 2), (9, 4)])
@pytest.mark.parametrize("max_bytes", [LARGE, NOTHING])
def test_reading_ahead_gives_the_same_steps(
    dataset: Dataset, max_bytes: int, ahead: int, threads: int
) -> None:
    batches, read = (
        StepBatches(dataset, Draws(dataset.rows("train"), BatchConfig(clips=2), seed=0), max_bytes)
        for _ in range(2)
    )
    steps = list(read_steps(read, 2, 8, ahead, threads))
    assert len(steps) == 6
    assert all(equal(batches(2 + k), batch) for k, batch in enumerate(steps))


def test_threads_read_steps_at_the_same_time(dataset: Dataset) -> None:
    batches = StepBatches(dataset, Draws(dataset.rows("train"), BatchConfig(clips=2), seed=0), LARGE)
    together = Barrier(2)

    def read(step: int) -> Batch:
        together.wait(timeout=30)  # fails where nobody else reads
        return batches(step)

    assert len(list(read_steps(read, 0, 4, ahead=2, threads=2))) == 4


class Steps(TorchDataset[Batch]):
    """The first steps of a run, as torch's DataLoader wants them."""

    def __init__(self, batches: StepBatches) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Batch:
        return self.batches(step)

    def __len__(self) -> int:
        return 3


def test_a_worker_process_gives_the_same_steps_from_a_bucket(bucket: str) -> None:
    write_toy(Store(bucket))
    dataset = Dataset.open(Store(bucket), "toy")
    batches = StepBatches(dataset, Draws(dataset.rows("train"), BatchConfig(frames=2), seed=5), NOTHING)
    loader = DataLoader(Steps(batches), batch_size=None, num_workers=1, multiprocessing_context="spawn")
    assert all(equal(batch, batches(step)) for step, batch in enumerate(loader))


def test_dropout_and_the_first_object_are_drawn_for_each_sample(dataset: Dataset) -> None:
    config = BatchConfig(
        clips=1, condition_dropout=0.3, first_object=0.5, shares={"hoi": 1, "object": 0, "human": 0}
    )
    draws = Draws(dataset.rows("train"), config, seed=0)
    batches = StepBatches(dataset, draws, LARGE)
    drawn = [batches(step) for step in range(200)]
    assert 40 < sum(bool(batch.dropped) for batch in drawn) < 80
    assert 50 < sum(bool(batch.references.present[0, FIRST_OBJECT_SLOT]) for batch in drawn) < 130
    assert all(batch.references.present[0, :FIRST_OBJECT_SLOT].all() for batch in drawn)


def test_normals_survive_repacking_bit_by_bit(dataset: Dataset) -> None:
    window = window_of(dataset, "hoi0", count=6)
    clips = stack([FrameTensors.from_window(window)])
    conditions = assemble(clips, torch.zeros(1, 8, 48, 4, 4), torch.zeros(1, 0, 0), torch.zeros(1, 5, 3))
    assert np.array_equal(conditions.normals[0].movedim(2, -1).numpy(), window.normals)
    assert np.allclose(conditions.confidence[0].numpy(), window.confidence, atol=5e-4)
    assert not conditions.skeleton.any()


def test_object_only_clips_have_no_hand_layers_and_human_clips_only_a_background(dataset: Dataset) -> None:
    codec = PixelUnshuffleCodec()
    thing = conditions_from_window(window_of(dataset, "object0"), codec)
    assert thing.normals[:, :, 0].any()
    assert not thing.normals[:, :, 1:].any()
    human = conditions_from_window(window_of(dataset, "human0"), codec, first_object=True)
    given = human.references[0].flatten(1).any(dim=1)
    assert given.nonzero().flatten().tolist() == [BACKGROUND_SLOT]
    assert not any(tensor.any() for tensor in (human.normals, human.confidence, human.points))


def test_the_first_object_is_absent_unless_asked_for(dataset: Dataset) -> None:
    window = window_of(dataset, "object0")
    codec = PixelUnshuffleCodec()
    without = conditions_from_window(window, codec)
    given = conditions_from_window(window, codec, first_object=True)
    assert not without.references[:, FIRST_OBJECT_SLOT].any()
    assert given.references[:, FIRST_OBJECT_SLOT].any()
    assert torch.equal(without.references[:, :FIRST_OBJECT_SLOT], given.references[:, :FIRST_OBJECT_SLOT])


def test_the_first_object_can_be_a_picture_of_any_size(dataset: Dataset) -> None:
    window, codec = window_of(dataset, "hoi0"), PixelUnshuffleCodec()
    size = window.mask.shape[1:]
    picture = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    given = conditions_from_window(window, codec, first_object=picture)
    wanted = codec.encode(resize(picture[None], size) / 127.5 - 1)
    torch.testing.assert_close(given.references[:, FIRST_OBJECT_SLOT], wanted)
    without = conditions_from_window(window, codec)
    assert torch.equal(without.references[:, :FIRST_OBJECT_SLOT], given.references[:, :FIRST_OBJECT_SLOT])


def test_references_are_in_the_paper_s_order_at_the_frames_size(dataset: Dataset) -> None:
    window = window_of(dataset, "hoi1")
    references = ReferenceTensors.from_window(window)
    assert references.pictures.shape == (8, 3, *window.mask.shape[1:])
    assert torch.equal(
        references.pictures[:NUM_VIEWS], resize(composite(window.views), window.mask.shape[1:])
    )
    background = references.pictures[BACKGROUND_SLOT].permute(1, 2, 0).numpy()
    assert np.array_equal(background, window.background)


def test_the_first_object_s_crop_leaves_out_what_hides_it() -> None:
    confidence = np.zeros((1, 7, 8, 8), np.float32)
    confidence[0, 0, 2:6, 1:5] = 0.5  # object
    confidence[0, 2, 2:6, 1:3] = 0.9  # a nearer thumb over its left half
    frames = np.full((1, 8, 8, 3), 7, np.uint8)
    crop = first_object_crop(_window(frames, confidence))
    assert crop is not None
    assert crop.shape == (4, 4, 3)
    assert (crop[:, 1:3] == 7).all()  # two columns are left, centred
    assert (crop[:, [0, 3]] == 255).all()


def test_a_hidden_object_and_motion_without_pictures_have_no_crop() -> None:
    confidence = np.zeros((1, 7, 8, 8), np.float32)
    confidence[0, 0, 3, 3], confidence[0, 1, 3, 3] = 0.5, 0.6
    assert first_object_crop(_window(np.zeros((1, 8, 8, 3), np.uint8), confidence)) is None
    confidence[0, 1] = 0
    assert first_object_crop(_window(np.zeros((0, 8, 8, 3), np.uint8), confidence)) is None


def test_views_stand_on_white() -> None:
    pictures = np.array([[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 127]], np.uint8)[None, None]
    assert composite(pictures)[0, 0].tolist() == [[10, 20, 30], [255, 255, 255], [128, 128, 128]]


def test_shrinking_a_picture_averages_instead_of_skipping() -> None:
    checks = np.zeros((1, 32, 32, 3), np.uint8)
    checks[:, ::2, ::2] = checks[:, 1::2, 1::2] = 255
    assert (resize(checks, (8, 8)).float() - 127.5).abs().max() < 2


def test_the_longest_unused_value_leaves_first() -> None:
    made: list[str] = []

    def make(key: str) -> str:
        made.append(key)
        return key

    cache = LeastRecent[str](max_bytes=2, size_of=len)
    for key in ("a", "b", "a", "c", "a", "b"):
        assert cache.get(key, lambda key=key: make(key)) == key
    assert made == ["a", "b", "c", "b"]


def test_a_value_that_two_threads_make_is_kept_once() -> None:
    cache, together = LeastRecent[list[int]](max_bytes=9, size_of=len), Barrier(2)

    def make() -> list[int]:
        together.wait(timeout=30)
        return [1, 2]

    with ThreadPoolExecutor(max_workers=2) as threads:
        one, other = threads.map(lambda _: cache.get("a", make), range(2))
    assert one is other
    assert cache.bytes == 2


def test_a_clip_is_read_from_the_store_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = dataset.rows("train")
    cache = ClipCache(dataset, rows, LARGE)
    first = cache.frames(rows[0], np.array([1, 4]))
    monkeypatch.setattr(dataset, "read", None)  # any further read would fail
    assert torch.equal(cache.frames(rows[0], np.array([1, 4])).frames, first.frames)


def test_a_clip_of_another_size_is_named_when_it_is_drawn(dataset: Dataset) -> None:
    rows = dataset.rows("train")
    cache = ClipCache(dataset, rows, LARGE)
    cache.height = 32  # as if the first clip were that high
    with pytest.raises(
        InputError, match=f"clip {rows[0].id} of dataset toy: size: found 16 by 16, wanted 32 by"
    ):
        cache.frames(rows[0], np.array([1, 4]))


def test_memory_kept_is_that_of_frames_and_references(dataset: Dataset) -> None:
    rows = dataset.rows("train")
    frames, references = (
        [read(dataset.read(row, 0, row.num_frames)) for row in rows]
        for read in (FrameTensors.from_window, ReferenceTensors.from_window)
    )
    kept = sum(map(num_bytes, frames)) + sum(map(num_bytes, references))
    assert ClipCache(dataset, rows, LARGE).most_bytes == kept
    assert ClipCache(dataset, rows, 4000).most_bytes == 1000  # references alone, a quarter


@pytest.mark.parametrize("max_bytes", [LARGE, NOTHING])
def test_memory_of_a_batch_is_known_before_it_is_read(dataset: Dataset, max_bytes: int) -> None:
    draws = Draws(dataset.rows("train"), BatchConfig(clips=4, frames=3), seed=0)
    batches = StepBatches(dataset, draws, max_bytes, slots=[0, 2])
    batch = batches(0)
    assert batches.num_bytes() == num_bytes(batch.clips) + num_bytes(batch.references)


def _window(frames: NDArray[np.uint8], confidence: NDArray[np.float32]) -> ClipWindow:
    size = confidence.shape[-1]
    return ClipWindow(
        normal_steps=np.zeros((*confidence.shape, 3), np.int8),
        confidence=confidence,
        frames=frames,
        mask=confidence.max(axis=1) > 0,
        background=np.zeros((size, size, 3), np.uint8),
        views=np.zeros((6, size, size, 4), np.uint8),
        points=np.zeros((5, 3), np.float32),
        joints_2d=np.zeros((1, 2, 21, 2), np.float32),
    )
