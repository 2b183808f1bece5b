"""A small dataset, written as a build would write it, and a network of the smallest size to train on it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.utils import logging as diffusers_logging

from model.config import ModelConfig
from model.train import train
from model.training_config import TrainConfig
from render.scene import NUM_POINTS, STORED_LAYERS
from storage.config import load_config, save_config
from storage.dataset import Dataset
from storage.manifest import ClipRow, Manifest
from storage.recipe import Recipe
from storage.records import FramesData, LayersData, ObjectData
from storage.store import Store

SIZE, FRAMES, LAYERS = 16, 6, len(STORED_LAYERS)
TINY = Path(__file__).parents[3] / "configs" / "model" / "tiny.yaml"
OVERRIDES = (
    "network.unet.block_out_channels=[8, 16]",
    "network.unet.down_block_types=[DownBlock2D, CrossAttnDownBlock2D]",
    "network.unet.up_block_types=[CrossAttnUpBlock2D, UpBlock2D]",
    "network.unet.norm_num_groups=4",
    "network.unet.cross_attention_dim=8",
    "network.guider.channels=[4, 4, 4, 8]",
    "network.tokens={channels: [4, 8], grid: 2, points: 2}",
)


@pytest.fixture(autouse=True, scope="module")  # before the runs that a module's tests share
def _quiet_single_thread() -> Iterator[None]:
    diffusers_logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Dataset `toy`, see `write_toy`."""
    store = Store(tmp_path_factory.mktemp("store"))
    write_toy(store)
    return store


@pytest.fixture
def dataset(store: Store) -> Dataset:
    return Dataset.open(store, "toy")


@pytest.fixture(scope="session")
def model_yaml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "smallest.yaml"
    save_config(load_config(ModelConfig, TINY, OVERRIDES), path)
    return path


@pytest.fixture(scope="session")
def image_config(model_yaml: Path) -> TrainConfig:
    return TrainConfig(
        stage="image",
        dataset="toy",
        model=model_yaml,
        iterations=6,
        learning_rate=2e-3,
        decay="cosine",
        warmup=2,
        batch={"clips": 2, "frames": 2},
        memory_estimate=False,
    )


def write_toy(store: Store) -> None:
    """Write dataset `toy`: HOI, object and human clips to train on and two HOI clips to test on."""
    rows = [write_clip(store, f"hoi{k}", "hoi", split="train", seed=k) for k in range(2)]
    rows += [write_clip(store, f"object{k}", "object", split="train", seed=10 + k) for k in range(3)]
    rows += [write_clip(store, "human0", "human", split="train", seed=20)]
    rows += [write_clip(store, f"held{k}", "hoi", split="test", seed=30 + k) for k in range(2)]
    Manifest("toy", tuple(rows)).write(store)


def write_clip(store: Store, name: str, source: str, *, split: str, seed: int, size: int = SIZE) -> ClipRow:
    """Write squares, an object and two palms, that jump about; a human clip has pictures alone."""
    rng = np.random.default_rng(seed)
    background = np.broadcast_to(rng.integers(0, 255, 3, dtype=np.uint8), (size, size, 3)).copy()
    rgb = np.broadcast_to(background, (FRAMES, size, size, 3)).copy()
    normals = np.zeros((FRAMES, LAYERS, size, size, 3), np.uint8)
    depth = np.zeros((FRAMES, LAYERS, size, size), np.uint16)
    shown = {"hoi": [0, 1, 7], "object": [0], "human": []}[source]
    for layer in shown:
        color = rng.integers(0, 255, 3)
        for frame, (x, y) in enumerate(rng.integers(0, size - 6, (FRAMES, 2))):
            box = (frame, slice(y, y + 6), slice(x, x + 6))
            rgb[box] = color
            normals[(frame, layer, *box[1:])] = rng.integers(1, 255, 3)
            depth[(frame, layer, *box[1:])] = 1000 * (1 + layer)
    frames = Recipe("frames", 1, {"clip": name}, {})
    FramesData(rgb, background, has_plate=True).write(store, frames)
    if not shown:
        return _row(name, source, split, (), None, frames.key)
    layers, thing = Recipe("layers", 1, {"clip": name}, {}), Recipe("object", 1, {"clip": name}, {})
    views = rng.integers(0, 255, (6, 8, 8, 4), dtype=np.uint8)
    points = rng.normal(size=(NUM_POINTS, 3)).astype(np.float32)
    ObjectData(views, points, np.zeros(3), scale_m=1.0, name=name).write(store, thing)
    LayersData(
        normals,
        depth,
        joints_2d=np.full((FRAMES, 2, 21, 2), np.nan, np.float32),
        joints_3d=np.full((FRAMES, 2, 21, 3), np.nan, np.float32),
        world_from_object=np.tile(np.eye(4, dtype=np.float32), (FRAMES, 1, 1)),
        intrinsics=np.eye(3),
        camera_from_world=np.eye(4),
        near_m=0.5,
        far_m=2.0,
    ).write(store, layers)
    return _row(name, source, split, (thing.key,), layers.key, frames.key)


def _row(
    name: str, source: str, split: str, objects: tuple[str, ...], layers: str | None, frames: str | None
) -> ClipRow:
    return ClipRow(
        id=f"{name}/cam0",
        session=name,
        camera="cam0",
        split=split,
        source=source,
        object_keys=objects,
        layers_key=layers,
        frames_key=frames,
        has_hands=source == "hoi",
        has_object=bool(objects),
        num_frames=FRAMES,
        fps=30.0,
    )


@pytest.fixture(scope="module")
def image_run(store: Store, image_config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the image stage."""
    folder = tmp_path_factory.mktemp("image")
    train(image_config, store, folder)
    return folder
