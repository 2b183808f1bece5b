"""GraspXL recordings: one simulated right hand grasps one object (Zhang et al., GraspXL, ECCV 2024).

    <uid>/<name>.npy    {right_hand: {rot [T, 3], trans [T, 3], pose [T, 45]}, <uid>: {rot, trans, angle}}
    <uid>/<uid>.obj     the object's mesh, of Objaverse, in metres

Letters: T frames.  World: metres, +Z up.  Rotations are axis-angle; the pose is about MANO's mean pose, trans
is smplx's translation of the hand and the place of the object's origin.  The hand has its mean shape.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from render.scene import Clip, HandMotion, ObjectMotion
from render.transforms import rigid
from storage.digests import digest_file
from storage.errors import InputError
from storage.pickles import read_pickled_npy
from storage.sources.arrays import wanted_array
from storage.sources.hand_parameters import HandArrays
from storage.sources.obj import load_obj

UP = (0.0, 0.0, 1.0)
FPS = 30.0  # the files state none
LICENCE = "CC-BY-NC-4.0"


def read_graspxl(path: Path, hands: Mapping[str, HandArrays]) -> Clip:
    """Read a recording as a clip without cameras, in its own world; its folder names the object.

    Raises InputError.
    """
    uid = path.resolve().parent.name
    content = read_pickled_npy(path)
    hand, thing = _part(content, "right_hand", path), _part(content, uid, path)
    pose = _finite(path, hand, "pose", ("T", 45))
    rows = (len(pose), 3)
    turn, shift = (_finite(path, hand, key, rows) for key in ("rot", "trans"))
    object_turn, object_shift = (_finite(path, thing, key, rows) for key in ("rot", "trans"))
    full_pose = np.concatenate([turn, hands["right"]["hands_mean"] + pose], axis=1)
    world_from_object = rigid(Rotation.from_rotvec(object_turn).as_matrix(), object_shift)
    valid = np.ones(len(pose), np.bool_)
    mesh_path = path.parent / f"{uid}.obj"
    motion = HandMotion(
        full_pose.astype(np.float32), np.zeros(10, np.float32), shift.astype(np.float32), valid
    )
    moving = ObjectMotion(
        name=uid,
        mesh=load_obj(mesh_path),
        world_from_object=world_from_object.astype(np.float32),
        valid=valid,
        digest=digest_file(mesh_path),
        provenance={"source": f"GraspXL, Objaverse {uid}", "licence": LICENCE, "uid": uid},
    )
    return Clip(f"graspxl-{uid}-{path.stem}", FPS, len(pose), {}, {"right": motion}, (moving,))


def _part(content: Any, name: str, path: Path) -> dict[str, NDArray]:
    """Return the arrays of the hand or of the object."""
    part = content.get(name) if isinstance(content, dict) else None
    if not isinstance(part, dict):
        raise InputError(f"{path}: missing key '{name}'", code="missing-key")
    return {key: np.asarray(value) for key, value in part.items()}


def _finite(
    path: Path, arrays: dict[str, NDArray], key: str, shape: tuple[int | str, ...]
) -> NDArray[np.float64]:
    array = wanted_array(path, arrays, key, shape).astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{path}: {key}: numbers that are not finite", code="non-finite")
    return array
