"""Records are read by a program that has Zarr and nothing of this project, as docs/records.md says."""

import json
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
PROGRAM = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
import zarr

store = Path(sys.argv[1])
def sha256(data):
    return hashlib.sha256(data).hexdigest()

def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

header, *lines = [json.loads(line) for line in (store / "datasets" / "demo.jsonl").open(encoding="utf-8")]
(clip,) = [line["clip"] for line in lines if "clip" in line]
out = {"version": header["version"], "clip": clip["id"], "sound": []}
for kind, key in (("layers", clip["layers_key"]), ("object", clip["object_keys"][0])):
    folder = store / kind / key[:2] / key
    group = zarr.open_group(folder, mode="r")
    files = {path.relative_to(folder).as_posix(): sha256(path.read_bytes())
             for path in folder.rglob("*") if path.is_file() and path.name != "content.sha256"}
    written = (folder / "content.sha256").read_text()
    recipe = group.attrs["recipe"]
    out["sound"].append([sha256(canonical(files)) == written, sha256(canonical(recipe)) == key])
    if kind == "layers":
        near, far = group.attrs["attrs"]["near_m"], group.attrs["attrs"]["far_m"]
        depth, normals = group["depth"][1], group["normals"][1].astype(np.float64)
        empty = depth == 0
        metres = np.where(empty, 0, near + (depth.astype(np.float64) - 1) * (far - near) / 65534)
        components = np.where(empty[..., None], 0, (normals - 128) / 127)
        np.savez(sys.argv[2], depth=metres, normals=components)
    else:
        out["licence"] = group.attrs["attrs"]["provenance"]["licence"]
        out["views"] = list(group["views"].shape)
assert not {"storage", "render"} & set(sys.modules)
assert "zarrs" not in zarr.config.get("codec_pipeline.path")
print(json.dumps(out))
"""


def test_another_program_reads_a_dataset_with_zarr_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
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
    manifest = Manifest("demo", (row,))
    manifest.write(store)

    command = [sys.executable, "-I", "-c", PROGRAM, str(store.root), str(tmp_path / "out.npz")]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert told == {
        "version": manifest.version,
        "clip": "take/a",
        "sound": [[True, True], [True, True]],
        "licence": "CC0-1.0",
        "views": [6, 32, 32, 4],
    }
    with np.load(tmp_path / "out.npz") as read:
        assert np.allclose(read["depth"], decode_depth(depth, 0.4, 0.9)[1], atol=1e-6)
        assert np.allclose(read["normals"], decode_normals(normals)[1], atol=1e-6)
