"""TACO-style recordings: one hand and one object (Liu et al., TACO, CVPR 2024, as arrays).

    <name>.npz    hand_pose [T, 48] axis-angle about the flat hand, hand_trans [T, 3] metres, hand_shape [10],
                  obj_pose [T, 4, 4] world_from_object, metres
    <name>.obj    the object's mesh, in metres

Letters: T frames.  World: metres, +Z up.  hand_trans is where the wrist is: the model was centred on it.
Which hand it is the arrays do not say, but fingers bend towards the palm: about +z of a right hand at rest,
about -z of a left one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from render.scene import Clip, HandMotion, ObjectMotion
from storage.digests import digest_file
from storage.errors import InputError
from storage.sources.arrays import read_arrays, wanted_array
from storage.sources.hand_parameters import HandArrays, rest_wrist
from storage.sources.obj import load_obj

UP = (0.0, 0.0, 1.0)
FPS = 30.0
LICENCE = "CC-BY-4.0"


def read_taco(path: Path, hands: Mapping[str, HandArrays], *, keep_shape: bool) -> Clip:
    """Read a recording as a clip without cameras, in its own world.

    keep_shape: hand_shape belongs to the hand that `hands` holds; else the hand has its mean shape.
    Raises InputError.
    """
    arrays = read_arrays(path)
    pose = wanted_array(path, arrays, "hand_pose", ("T", 48))
    wrist = wanted_array(path, arrays, "hand_trans", (len(pose), 3))
    shape = wanted_array(path, arrays, "hand_shape", (10,)) * (1.0 if keep_shape else 0.0)
    world_from_object = wanted_array(path, arrays, "obj_pose", (len(pose), 4, 4))
    if not all(np.isfinite(array).all() for array in (pose, wrist, shape, world_from_object)):
        raise InputError(f"{path}: numbers that are not finite", code="non-finite")
    side = bending_side(pose)
    valid = np.ones(len(pose), np.bool_)
    mesh_path = path.with_suffix(".obj")
    hand = HandMotion(
        pose=pose.astype(np.float32),
        shape=shape.astype(np.float32),
        translation=(wrist - rest_wrist(hands[side], shape)).astype(np.float32),
        valid=valid,
    )
    moving = ObjectMotion(
        name="object",
        mesh=load_obj(mesh_path),
        world_from_object=world_from_object.astype(np.float32),
        valid=valid,
        digest=digest_file(mesh_path),
        provenance={"source": f"TACO, {path.stem}", "licence": LICENCE},
    )
    return Clip(f"taco-{path.stem}", FPS, len(pose), {}, {side: hand}, (moving,))


def bending_side(pose: NDArray) -> Literal["left", "right"]:
    """Tell which hand has poses [T, 48] that bend its fingers towards its palm."""
    fingers = pose[:, 3:39].reshape(
        -1, 12, 3
    )  # index, middle, little, ring; not the thumb, which swings about other axes
    return "right" if fingers[..., 2].mean() > 0 else "left"
