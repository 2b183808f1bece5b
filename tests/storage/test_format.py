"""Records are read by a program that has Zarr and nothing of this project, as docs/records.md says."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from render.mlo import decode_depth, decode_normals
from storage.manifest import ClipRow, Manifest
from storage.recipe import Recipe
from storage.records import LayersData, ObjectData
from storage.store import Store

T, L, SIZE = 3, 13, 64
PAGE = Path(__file__).parents[2] / "docs" / "records.md"
PROGRAM = """
import hashlib, sys
from pathlib import Path

def sha256(data):
    return hashlib.sha256(data).hexdigest()

def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

out = {"version": header["version"], "clip": clip["id"], "sound": []}
for kind, key in (("layers", clip["layers_key"]), ("object", clip["object_keys"][0])):
    folder = Path(store, kind, key[:2], key)
    group = zarr.open_group(folder, mode="r")
    files = {path.relative_to(folder).as_posix(): sha256(path.read_bytes())
             for path in folder.rglob("*") if path.is_file() and path.name != "content.sha256"}
    written = (folder / "content.sha256").read_text()
    recipe = group.attrs["recipe"]
    out["sound"].append([sha256(canonical(files)) == written, sha256(canonical(recipe)) == key])
normals = layers["normals"][0].astype(np.float64)
np.savez("out.npz", depth=depth_m, normals=np.where(code[..., None] == 0, 0, (normals - 128) / 127))
out["licence"] = group.attrs["attrs"]["provenance"]["licence"]
out["views"] = list(group["views"].shape)
assert not {"storage", "render"} & set(sys.modules)
assert "zarrs" not in zarr.config.get("codec_pipeline.path")
print(json.dumps(out))
"""


def test_another_program_reads_a_dataset_with_zarr_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "data" / "store")
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 65536, (T, L, SIZE, SIZE), dtype=np.uint16)
    normals = rng.integers(1, 256, (T, L, SIZE, SIZE, 3), dtype=np.uint8)
    depth[:, 4:] = normals[:, 4:] = 0
    joints = np.zeros((T, 2, 21, 3), np.float32)
    motion = np.tile(np.eye(4, dtype=np.float32), (T, 1, 1))
    layers = LayersData(normals, depth, joints[..., :2], joints, motion, np.eye(3), np.eye(4), 0.4, 0.9)
    views = rng.integers(0, 256, (6, 32, 32, 4), dtype=np.uint8)
    mug = ObjectData(views, np.zeros((2048, 3), np.float32), np.zeros(3), 0.1, "mug", {"licence": "CC0-1.0"})
    recipes = [
        Recipe(kind, 1, {"part": "ab" * 32}, {"size": SIZE, "é": 0.5}) for kind in ("layers", "object")
    ]
    layers.write(store, recipes[0])
    mug.write(store, recipes[1])
    keys = {"layers_key": recipes[0].key, "object_keys": (recipes[1].key,), "frames_key": None}
    row = ClipRow(
        "take/a", "take", "a", "train", "hoi", **keys, has_hands=True, has_object=True, num_frames=T, fps=30
    )
    manifest = Manifest("captures", (row,))
    manifest.write(store)

    (lines,) = re.findall("```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    command = [sys.executable, "-I", "-c", lines + PROGRAM]
    told = json.loads(
        subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    )
    assert told == {
        "version": manifest.version,
        "clip": "take/a",
        "sound": [[True, True], [True, True]],
        "licence": "CC0-1.0",
        "views": [6, 32, 32, 4],
    }
    with np.load(tmp_path / "out.npz") as read:
        assert np.allclose(read["depth"], decode_depth(depth, 0.4, 0.9)[0], atol=1e-6)
        assert np.allclose(read["normals"], decode_normals(normals)[0], atol=1e-6)
