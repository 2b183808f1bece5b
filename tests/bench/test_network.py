"""The benchmarks of the model at the smallest size: the code that measures `sd15` on a GPU, on a CPU."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from model.config import ModelConfig
from storage.config import load_config, save_config
from tests.bench.network import seams, sizes, speed, work
from tests.bench.parts import model as part
from tests.model.training.conftest import OVERRIDES


@pytest.fixture(autouse=True)
def _short_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(work.BATCHES, "temporal", {"clips": 1, "frames": 4, "pick": "window"})
    monkeypatch.setattr(speed, "STEPS", 2)
    monkeypatch.setattr(torch, "compile", lambda module: module)  # takes a minute
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> work.Scale:
    path = tmp_path_factory.mktemp("model") / "smallest.yaml"
    save_config(load_config(ModelConfig, work.TINY.config, OVERRIDES), path)
    return replace(work.TINY, model=str(path.with_suffix("")), size=16)


def test_every_piece_of_work_is_timed_beside_a_matrix_product(smallest: work.Scale) -> None:
    table, seconds = speed.stages(smallest, rounds=1)
    assert [row[0] for row in table.rows] == ["image", "temporal", "video"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert min(seconds.values()) > 0
    hours = sizes.schedule(smallest, {"image": 1.8, "temporal": 1.2})
    assert hours.rows == [["measured steps", "10.0", "10.0", "20.0"]]


def test_every_way_to_save_is_held_against_the_plain_one(smallest: work.Scale) -> None:
    savings, faster = speed.savings(smallest, rounds=1), speed.accelerations(smallest, rounds=1)
    assert {row[0] for row in savings.rows} == set(speed.SAVINGS)
    assert {row[0] for row in faster.rows} == {
        "plain", "channels last", "compiled", "attention not fused", "conditions encoded at every step",
    }  # fmt: skip
    for table in (savings, faster):
        assert [row[2] for row in table.rows if row[0] == "plain"] == ["1.00"]


def test_operations_are_two_for_a_multiply_and_add() -> None:
    left, right = torch.empty(3, 5), torch.empty(5, 7)
    assert work.count_flops(lambda: left @ right)[0] == 2 * 3 * 5 * 7


def test_memory_of_a_model_that_is_not_there_is_that_of_one_that_is(
    smallest: work.Scale, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "STAGES", ("image",))
    table = sizes.memory(smallest)
    assert [row[0] for row in table.rows] == ["image stage", "image stage, recomputed"]
    real = sizes.estimate_memory(work.build_trainer(smallest, "image"), 16, 16)
    assert table.data["image stage"] == vars(real)


def test_what_is_not_run_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert work.available() == [work.TINY]
    assert {told for _, told in part.not_run(work.PAPER).rows} == {"not run: no CUDA device"}


def test_blended_windows_leave_no_seam_and_the_measure_sees_those_that_are_there() -> None:
    blended, apart = seams.table().data.values()
    assert isinstance(blended, float)
    assert isinstance(apart, float)
    assert blended < 1.1
    assert apart > 5
