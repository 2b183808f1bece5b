"""A run that cannot end well does not begin, and all that is wrong is said at once."""

import re
import shutil
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from model import preflight
from model.memory import MemoryEstimate, estimate_memory, least_bytes, num_bytes
from model.preflight import prepare
from model.start import starting_pipeline
from model.train import train
from model.trainer import Trainer
from model.training_config import TrainConfig
from storage.config import load_config
from storage.errors import InputError
from storage.manifest import Manifest
from storage.store import Store

REPOSITORY = Path(__file__).parents[3]
CONFIGS = REPOSITORY / "configs" / "train"
Usage = namedtuple("Usage", "total used free")


def changed(config: TrainConfig, **update: object) -> TrainConfig:
    return TrainConfig.model_validate(config.model_dump() | update)


def test_a_run_that_can_begin_says_what_it_found_and_writes_nothing(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "image"
    ready = prepare(changed(image_config, memory_estimate=True), store, out, resume=False)
    assert ready.facts["clips"] == "2 hoi, 1 human, 3 object"
    assert ready.facts["size"].startswith("16 by 16")
    assert {"memory", f"disk of {tmp_path}"} < ready.facts.keys()
    assert not out.parent.exists()


def test_a_run_is_told_what_it_would_encode_and_of_a_validation_clip_that_it_trains_on(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    ready = prepare(image_config, store, tmp_path, resume=False)
    assert not {"stored latents", "validation"} & ready.facts.keys()
    config = changed(
        image_config, stored_latents=True, iterations=1, validation={"every": 1, "clip": "hoi0/cam0"}
    )
    facts = prepare(config, store, tmp_path, resume=False).facts
    drawn = ready.batches.draws.rows_of(1)
    frames = sum(row.num_frames for row in drawn)
    assert facts["stored latents"].startswith(f"{frames} frames to encode, 0.00 GiB; the run draws 4 frames")
    assert facts["validation"] == "hoi0/cam0, of a sequence that is trained on"


def test_stored_latents_need_a_disk_that_holds_them(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {store.root: 1000}  # bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda there: Usage(2**40, 0, free.get(there, 2**40)))
    config = changed(image_config, stored_latents=True)
    wanted = rf"^disk of {store.root}: found 0\.00 GiB free, wanted .* \(or stored_latents false\)$"
    with pytest.raises(InputError, match=wanted):
        prepare(config, store, tmp_path / "out", resume=False)


def test_all_that_is_wrong_is_said_at_once(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2**40, 2**40, 1000))
    (tmp_path / "model").mkdir()
    config = changed(image_config, batch={"shares": {"hoi": 1, "object": 1, "human": 1, "robot": 1}})
    with pytest.raises(InputError) as raised:
        prepare(config, store, tmp_path, resume=False)
    assert re.fullmatch(
        r"3 things to put right: "
        rf"\(1\) disk of {tmp_path}: found 0\.00 GiB free, wanted .* \(or a smaller keep\); "
        r"\(2\) batch\.shares: found clips {.*}, wanted clips of robot; "
        rf"\(3\) {tmp_path / 'model'} is there already: name another folder",
        str(raised.value),
    )


def test_too_little_memory_is_named_with_what_would_help(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "available_memory", lambda: 2**29)
    monkeypatch.setattr(preflight, "estimate_memory", lambda *_: MemoryEstimate(0, 0, 0, step=2**30))
    config = changed(image_config, memory_estimate=True, device="cpu")
    wanted = (
        r"memory: found 0\.50 GiB free, wanted 1\.\d+ GiB "
        r"\(or a smaller batch, accumulate, read_ahead or cache_gib\)"
    )
    with pytest.raises(InputError, match=wanted):
        prepare(config, store, tmp_path, resume=False)


def test_batches_that_wait_take_memory(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readies = [
        prepare(changed(image_config, device="cpu", read_ahead=ahead), store, tmp_path, resume=False)
        for ahead in (0, 3)
    ]
    needed: list[int] = []
    monkeypatch.setattr(preflight, "compare", lambda what, size, *_: needed.append(size))
    for ready in readies:
        preflight.check_memory(ready.trainer, ready.batches, preflight.Findings())
    assert needed[1] - needed[0] == 3 * readies[1].batches.num_bytes() > 0


def test_validation_videos_that_the_model_cannot_make_are_refused(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    train(image_config, store, tmp_path / "image")
    config = changed(
        image_config,
        stage="temporal",
        model=None,
        init_from=tmp_path / "image" / "model",
        batch=image_config.batch.model_dump() | {"pick": "window"},
        validation={"every": 1, "sampling": {"window": {"length": 64}}},
    )
    with pytest.raises(InputError, match=r"validation.sampling.window.length: found 64, wanted at most 32"):
        prepare(config, store, tmp_path / "temporal", resume=False)
    many = changed(image_config, validation={"every": 1, "sampling": {"num_inference_steps": 2000}})
    wanted = r"validation.sampling.num_inference_steps: found 2000, wanted at most 1000, the noise levels"
    with pytest.raises(InputError, match=wanted):
        prepare(many, store, tmp_path / "many", resume=False)


def test_a_model_that_memory_cannot_hold_is_refused_before_it_is_built(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = REPOSITORY / "configs/model/sd15.yaml"
    sd15 = changed(image_config, memory_estimate=True, device="cpu", model=model)
    monkeypatch.setattr(preflight, "available_memory", lambda: 24 * 2**30)
    monkeypatch.setattr(preflight, "starting_pipeline", lambda _: pytest.fail("was built"))
    wanted = r"memory: found 24\.00 GiB free, wanted \d\d\.\d\d GiB \(or a smaller model, optimizer muon or "
    with pytest.raises(InputError, match=wanted):
        prepare(sd15, store, tmp_path, resume=False)


@pytest.mark.parametrize("change", [{}, {"optimizer": "muon", "ema_decay": 0}])
@pytest.mark.parametrize("stage", ["image", "temporal"])
def test_the_least_a_run_takes_is_known_without_its_weights(
    stage: str, change: dict[str, object], image_config: TrainConfig, tmp_path: Path
) -> None:
    config = changed(image_config, stage=stage, batch={"pick": "window"}, **change)
    pipeline = starting_pipeline(config)
    trainer = Trainer(config, pipeline)
    gradients = sum(parameter.nbytes for parameter in trainer.parameters)
    whole = estimate_memory(trainer, 16, 16)
    weights = num_bytes(trainer.network)
    held = weights + whole.moments + whole.average + gradients
    assert least_bytes(config) == (weights, held)
    assert held < whole.total
    pipeline.save_pretrained(tmp_path / "saved")
    assert least_bytes(changed(config, model=None, init_from=tmp_path / "saved")) == (weights, held)


def test_a_file_in_the_folder_s_place_is_named(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match=f"{tmp_path / 'run'}: found a file, wanted a folder"):
        prepare(image_config, store, tmp_path / "run", resume=False)


def test_a_container_s_limit_counts_without_what_its_cache_would_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "CGROUP", tmp_path)
    assert preflight.available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.5)
    (tmp_path / "memory.max").write_text("50000\n")
    (tmp_path / "memory.current").write_text("30000\n")
    (tmp_path / "memory.stat").write_text("anon 20000\ninactive_file 4000\n")
    assert preflight.available_memory() == 24_000
    (tmp_path / "memory.max").write_text("max\n")
    assert preflight.available_memory() > 50_000


def test_records_that_the_store_lacks_are_named(
    store: Store, image_config: TrainConfig, tmp_path: Path
) -> None:
    rows = Manifest.read(store, "toy").rows
    copy = Store(tmp_path / "store")
    shutil.copytree(store.root, copy.root)
    lost = next(row for row in rows if row.id == "hoi1/cam0")
    copy.discard("frames", str(lost.frames_key))
    wanted = "dataset toy: found records of 1 clips missing, the first hoi1/cam0, wanted all of them"
    with pytest.raises(InputError, match=wanted):
        prepare(image_config, copy, tmp_path / "run", resume=False)


def test_clips_of_two_sizes_do_not_train_together(
    store: Store, image_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([(16, 16), (15, 15)] * 3)
    monkeypatch.setattr("storage.dataset.Dataset.size", lambda *_: next(sizes))
    with pytest.raises(
        InputError, match=r"2 things .*wanted one size for all clips; .*wanted multiples of 2"
    ):
        prepare(image_config, store, tmp_path, resume=False)


@pytest.mark.parametrize("stage", ["image", "temporal", "human"])
def test_each_stage_of_tiny_wants_data_and_the_stage_before_it(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    before = None if stage == "image" else str(tmp_path / "before")
    config = load_config(TrainConfig, CONFIGS / f"tiny_{stage}.yaml")
    config = changed(config, init_from=before)
    with pytest.raises(InputError) as raised:
        prepare(config, Store(tmp_path / "store"), tmp_path / "run", resume=False)
    no_data = f"{tmp_path / 'store'}: no dataset 'captures'"
    assert no_data in str(raised.value)
    assert ("no saved model in it" in str(raised.value)) == (stage != "image")
