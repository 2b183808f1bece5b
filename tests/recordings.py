"""Small recordings in the layouts of TACO-style arrays and of HOT3D's ground truth."""

import json
from pathlib import Path

import numpy as np

from render.procedural_objects import procedural_object
from render.trajectories import seed_generator
from storage.sources.glb_writer import write_glb

NUM_FRAMES = 3
HOT3D_UID = "223371871635142"
BOX = """v 0 0 0\nv .04 0 0\nv .04 .06 0\nv 0 .06 0\nv 0 0 .1\nv .04 0 .1\nv .04 .06 .1\nv 0 .06 .1
f 1 3 2\nf 1 4 3\nf 5 6 7\nf 5 7 8\nf 1 2 6\nf 1 6 5\nf 4 8 7\nf 4 7 3\nf 1 5 8\nf 1 8 4\nf 2 3 7\nf 2 7 6
"""


def write_taco(folder: Path, side: str = "right") -> Path:
    """A half-closed hand beside a box that stands on a table at z = 0.3 and is lifted by 10 cm a frame."""
    rng = np.random.default_rng(0)
    pose = rng.normal(0, 0.1, (NUM_FRAMES, 16, 3))
    pose[:, 1:, 2] += 0.5 if side == "right" else -0.5
    world_from_object = np.tile(np.eye(4, dtype=np.float32), (NUM_FRAMES, 1, 1))
    world_from_object[:, :3, 3] = [(1.0, 2.0, 0.3 + 0.1 * frame) for frame in range(NUM_FRAMES)]
    path = folder / "20231104_017.npz"
    np.savez(
        path,
        hand_pose=pose.reshape(NUM_FRAMES, 48).astype(np.float32),
        hand_trans=(world_from_object[:, :3, 3] + (0.1, -0.1, 0.08)).astype(np.float32),
        hand_shape=rng.normal(0, 1, 10).astype(np.float32),
        obj_pose=world_from_object,
    )
    path.with_suffix(".obj").write_text(BOX)
    return path


def write_hot3d(folder: Path, uid: str = HOT3D_UID) -> tuple[Path, Path]:
    """Three frames, each stamped twice, the second without a left hand; return recording and library."""
    recording, library = folder / "P0001_abcd", folder / "library"
    recording.mkdir()
    library.mkdir()
    write_glb(procedural_object("box", seed_generator("box")), library / f"{HOT3D_UID}.glb")
    half = float(np.sqrt(0.5))
    hand = {
        "pose": [0.5] + [0.0] * 14,
        "wrist_xform": {"t_xyz": [0.1, 0.0, 0.5], "q_wxyz": [half, half, 0.0, 0.0]},
        "betas": [0.1] * 10,
    }
    lines, rows = [], ["object_uid,timestamp[ns],t_wo_x[m],t_wo_y[m],t_wo_z[m],q_wo_w,q_wo_x,q_wo_y,q_wo_z"]
    for frame in range(NUM_FRAMES):
        for time in (frame * 33_333_333, frame * 33_333_333 + 91_000):
            poses = {"1": hand} if frame == 1 else {"0": hand, "1": hand}
            lines.append(json.dumps({"timestamp_ns": time, "hand_poses": poses}))
            rows += [f"{name},{time},0,0,{0.5 + frame / 100},1,0,0,0" for name in (uid, "999")]
    (recording / "mano_hand_pose_trajectory.jsonl").write_text("\n".join(lines) + "\n")
    (recording / "dynamic_objects.csv").write_text("\n".join(rows) + "\n")
    names = {"recording_name": "P0001_abcd", "participant_id": "P0001"}
    (recording / "metadata.json").write_text(json.dumps(names))
    return recording, library
