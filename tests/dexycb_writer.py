"""Writes a small data set in DexYCB's exact layout, with the labels that DexYCB has beside its pictures.

The labels come from smplx with PCA turned on, in the data set's own world: nothing of the reader is in them.
"""

from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import smplx
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation
from smplx.utils import Struct

from render.hands.model import KEYPOINTS, TIPS
from render.transforms import invert_rigid, look_at, rigid, transform

SERIALS = ("836212060125", "839512060362")
SUBJECT, SEQUENCE = "20200709-subject-01", "20200709_141754"
EXTRINSICS, CALIBRATION = "20200702_151821", "20200709-subject-01_right"
YCB_IDS, GRASPED = (5, 14, 18), 1  # a mustard bottle, a mug, a marker
NUM_FRAMES = 4
WIDTH, HEIGHT = 640, 480
COLOR = {"fx": 616.640869140625, "fy": 616.2581787109375, "ppx": 308.548095703125, "ppy": 248.52310180664062}


def write_dexycb(root: Path, hand: Mapping[str, NDArray], side: str = "right") -> Path:
    """Write a data set of one sequence, and return the sequence's folder.

    Frame 0 has no hand, frame 1 no object; the object is the mug, before two cameras that look down on it.
    """
    rng = np.random.default_rng(3)
    world_from_camera = {SERIALS[0]: np.eye(4), SERIALS[1]: _second_camera()}
    shape = rng.normal(0, 0.5, 10)
    _write_calibration(root, world_from_camera, shape)
    _write_mug(root / "models" / "025_mug")
    sequence = root / SUBJECT / SEQUENCE
    sequence.mkdir(parents=True)
    meta = {
        "serials": list(SERIALS),
        "num_frames": NUM_FRAMES,
        "extrinsics": EXTRINSICS,
        "mano_calib": [CALIBRATION],
        "mano_sides": [side],
        "ycb_ids": list(YCB_IDS),
        "ycb_grasp_ind": GRASPED,
    }
    (sequence / "meta.yml").write_text(yaml.safe_dump(meta))
    pose_m = np.zeros((NUM_FRAMES, 1, 51), np.float32)
    pose_m[1:, 0, :3] = rng.normal(0, 1, (NUM_FRAMES - 1, 3))
    pose_m[1:, 0, 3:47] = rng.normal(0, 0.3, (NUM_FRAMES - 1, 44))  # the last coefficient: see _joints
    pose_m[1:, 0, 48:] = np.array([0.02, 0.05, 0.8]) + rng.normal(0, 0.02, (NUM_FRAMES - 1, 3))
    pose_y = np.zeros((NUM_FRAMES, len(YCB_IDS), 7), np.float32)
    pose_y[..., :4] = Rotation.random(NUM_FRAMES * len(YCB_IDS), rng=rng).as_quat().reshape(NUM_FRAMES, -1, 4)
    pose_y[..., 4:] = np.array([0.05, 0.0, 0.85]) + rng.normal(0, 0.05, (NUM_FRAMES, len(YCB_IDS), 3))
    pose_y[1, GRASPED] = (0, 0, 0, 1, 0, 0, 0)
    np.savez(sequence / "pose.npz", pose_y=pose_y, pose_m=pose_m)
    joints = _joints(hand, side, pose_m[:, 0], shape)
    for serial, pose in world_from_camera.items():
        _write_view(sequence / serial, invert_rigid(pose), joints, pose_m, pose_y)
    return sequence


def _second_camera() -> NDArray[np.float64]:
    """A camera to the right, which sees the same place, in the first camera's frame."""
    return invert_rigid(look_at((0.5, -0.1, 0.3), (0.0, 0.0, 0.85), (0.0, -1.0, 0.0)))


def _write_calibration(
    root: Path, world_from_camera: Mapping[str, NDArray[np.float64]], shape: NDArray[np.float64]
) -> None:
    calibration = root / "calibration"
    for serial in world_from_camera:
        file = calibration / "intrinsics" / f"{serial}_{WIDTH}x{HEIGHT}.yml"
        file.parent.mkdir(parents=True, exist_ok=True)
        values = {"color": COLOR, "depth": COLOR, "extrinsics": _row(np.eye(4))}
        file.write_text(yaml.dump(values))
    # The table lies below the scene (+y of the first camera), its tag's z axis points down, into it.
    tag = rigid(np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), np.array([0.1, 0.25, 0.9]))
    poses = {**world_from_camera, "apriltag": tag}
    extrinsics = {"master": SERIALS[0], "extrinsics": {name: _row(pose) for name, pose in poses.items()}}
    file = calibration / f"extrinsics_{EXTRINSICS}" / "extrinsics.yml"
    file.parent.mkdir()
    file.write_text(yaml.dump(extrinsics))
    assert "!!python/tuple" in file.read_text()
    file = calibration / f"mano_{CALIBRATION}" / "mano.yml"
    file.parent.mkdir()
    file.write_text(yaml.safe_dump({"betas": shape.tolist()}))


def _row(pose: NDArray[np.float64]) -> tuple[float, ...]:
    """The first three rows of a transform, in a tuple as the data set has them."""
    return tuple(pose[:3].ravel().tolist())


def _write_mug(folder: Path) -> None:
    """A textured tetrahedron as textured_simple.obj; v of a texture runs upwards."""
    folder.mkdir(parents=True)
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[0], picture[3] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(picture).save(folder / "texture_map.png")
    (folder / "textured_simple.obj.mtl").write_text("newmtl material_0\nKd 1 1 1\nmap_Kd texture_map.png\n")
    vertices = "v 0 0 0\nv 0.05 0 0\nv 0 0.05 0\nv 0 0 0.05\n"
    uvs = "vt 0 0.9\nvt 0.9 0.9\nvt 0 0.1\n"
    faces = "f 1/1 3/2 2/3\nf 1/1 2/2 4/3\nf 1/1 4/2 3/3\nf 2/1 3/2 4/3\n"
    (folder / "textured_simple.obj").write_text(
        f"mtllib textured_simple.obj.mtl\n{vertices}{uvs}usemtl material_0\n{faces}"
    )


def _joints(
    hand: Mapping[str, NDArray], side: str, pose_m: NDArray[np.float32], shape: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Keypoints [T, 21, 3] by smplx's own PCA; of 45 components it would take coefficients for angles."""
    with redirect_stdout(StringIO()):
        mano = smplx.MANO(
            model_path="",
            data_struct=Struct(**hand),
            is_rhand=side == "right",
            use_pca=True,
            num_pca_comps=44,
            flat_hand_mean=False,
        )
    values = torch.from_numpy(pose_m)
    betas = torch.from_numpy(shape.astype(np.float32)).expand(len(values), -1)
    with torch.no_grad():
        output = mano(
            betas=betas, global_orient=values[:, :3], hand_pose=values[:, 3:47], transl=values[:, 48:]
        )
    joints = torch.cat([output.joints, output.vertices[:, TIPS]], dim=1)[:, KEYPOINTS]
    return joints.numpy()


def _write_view(
    folder: Path,
    camera_from_world: NDArray[np.float64],
    joints: NDArray[np.float32],
    pose_m: NDArray[np.float32],
    pose_y: NDArray[np.float32],
) -> None:
    """Pictures and labels of one camera."""
    folder.mkdir()
    joint_3d = transform(camera_from_world, joints).astype(np.float32)
    world_from_object = rigid(
        Rotation.from_quat(pose_y[..., :4].reshape(-1, 4)).as_matrix(), pose_y[..., 4:].reshape(-1, 3)
    ).reshape(*pose_y.shape[:2], 4, 4)
    camera_from_object = camera_from_world @ world_from_object
    for frame in range(len(joints)):
        grey = np.full((HEIGHT, WIDTH, 3), 60 + 40 * frame, np.uint8)
        Image.fromarray(grey).save(folder / f"color_{frame:06d}.jpg", quality=95)
        there = pose_m[frame].any()
        x, y, z = joint_3d[frame].T
        pixels = np.stack([COLOR["fx"] * x / z + COLOR["ppx"], COLOR["fy"] * y / z + COLOR["ppy"]], axis=1)
        np.savez(
            folder / f"labels_{frame:06d}.npz",
            seg=np.zeros((HEIGHT, WIDTH), np.uint8),
            pose_y=camera_from_object[frame, :, :3].astype(np.float32),
            pose_m=pose_m[frame],
            joint_3d=joint_3d[frame][None] if there else np.full((1, 21, 3), -1, np.float32),
            joint_2d=pixels[None].astype(np.float32) if there else np.full((1, 21, 2), -1, np.float32),
        )


def labels(sequence: Path, serial: str, key: str) -> NDArray:
    """Return one label of every frame of a camera."""
    files: Sequence[Path] = sorted((sequence / serial).glob("labels_*.npz"))
    return np.stack([np.load(file)[key] for file in files])
