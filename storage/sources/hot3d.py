"""HOT3D recordings: two hands and objects, from the ground truth files (Banerjee et al., HOT3D, CVPR 2025).

    <recording>/
      mano_hand_pose_trajectory.jsonl   a line a frame: timestamp_ns, hand_poses: {"0" left, "1" right: {pose
                                        [15] components, wrist_xform: {t_xyz, q_wxyz}, betas [10]}}
      dynamic_objects.csv               object_uid, timestamp[ns], t_wo_{x,y,z}[m], q_wo_{w,x,y,z}
      metadata.json                     recording_name, participant_id
    <object library>/<object_uid>.glb   meshes, in metres

Letters: T frames.  World: metres, +Z up.  The headset's fisheye cameras move and are left out.
Some headsets stamp each frame twice, a tenth of a millisecond apart: one of the two is kept.
"""

import csv
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from render.scene import SIDES, Clip, HandMotion, ObjectMotion
from render.transforms import rigid
from storage.errors import InputError
from storage.sources.glb import digest_asset, load_glb
from storage.sources.hand_parameters import HandArrays, pose_from_components
from storage.sources.session import check_name

logger = logging.getLogger(__name__)

UP = (0.0, 0.0, 1.0)
LICENCE = "CC-BY-SA-4.0"
_SAME_FRAME_NS = 1_000_000
_HANDS_FILE, _OBJECTS_FILE = "mano_hand_pose_trajectory.jsonl", "dynamic_objects.csv"

Poses = dict[int, NDArray[np.float64]]  # of one object: [4, 4] by timestamp


def read_hot3d(path: Path, library: Path, hands: Mapping[str, HandArrays], *, keep_shape: bool) -> Clip:
    """Read a recording as a clip without cameras, in its own world.

    Of the objects those whose mesh is in `library` are read; the first is the one that hands come nearest to.
    keep_shape: betas belong to the hand that `hands` holds; else the hand has its mean shape.
    Raises InputError.
    """
    lines = _read_hands(path / _HANDS_FILE)
    times = np.array(sorted(lines))
    times = times[np.diff(times, prepend=-_SAME_FRAME_NS) >= _SAME_FRAME_NS]
    if len(times) < 2:
        raise InputError(f"{path / _HANDS_FILE}: {len(times)} frames, wanted 2 or more", code="frame-count")
    motions: dict[str, HandMotion] = {}
    for number, side in enumerate(SIDES):
        entries = [lines[time].get(str(number)) for time in times.tolist()]
        if any(entries):
            motions[side] = _hand(entries, hands[side], keep_shape, path / _HANDS_FILE)
    objects = [
        _object(uid, poses, times, library)
        for uid, poses in _read_objects(path / _OBJECTS_FILE).items()
        if _has_mesh(uid, library)
    ]
    if not objects:
        raise InputError(f"{library}: the mesh of no object of {path} is in it", code="missing-file")
    objects.sort(key=lambda moving: _nearest(moving, motions))
    name, participant = _read_names(path / "metadata.json")
    fps = round(1e9 / float(np.median(np.diff(times))), 2)
    return Clip(f"hot3d-{name}", fps, len(times), {}, motions, tuple(objects), participant=participant)


def _read_hands(path: Path) -> dict[int, dict[str, Any]]:
    """Return the hands of each frame by timestamp."""
    lines = {}
    for number, text in enumerate(_read_text(path).splitlines(), start=1):
        try:
            line = json.loads(text)
            lines[int(line["timestamp_ns"])] = dict(line["hand_poses"])
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path}: line {number}: {error!r}", code="hot3d") from error
    return lines


def _hand(entries: list[Any], hand: HandArrays, keep_shape: bool, path: Path) -> HandMotion:
    """Return the motion of one hand; it is invalid in the frames that say nothing of it."""
    valid = np.array([bool(entry) for entry in entries])
    some = next(entry for entry in entries if entry)
    try:
        filled = [entry or some for entry in entries]
        rotations = Rotation.from_quat([e["wrist_xform"]["q_wxyz"] for e in filled], scalar_first=True)
        components = np.array([entry["pose"] for entry in filled], np.float64)
        translation = np.array([entry["wrist_xform"]["t_xyz"] for entry in filled], np.float64)
        shape = np.array(some["betas"], np.float64) * (1.0 if keep_shape else 0.0)
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a hand's pose: {error!r}", code="hot3d") from error
    if components.shape != (len(entries), 15) or translation.shape != (len(entries), 3) or len(shape) != 10:
        found = f"{components.shape}, {translation.shape}, {shape.shape}"
        raise InputError.mismatch(
            path, "pose, t_xyz, betas", found=found, wanted="(T, 15), (T, 3), (10,)", code="shape"
        )
    pose = np.concatenate([rotations.as_rotvec(), pose_from_components(components, hand)], axis=1)
    if not (np.isfinite(pose).all() and np.isfinite(translation).all() and np.isfinite(shape).all()):
        raise InputError(f"{path}: numbers that are not finite", code="non-finite")
    return HandMotion(
        pose.astype(np.float32), shape.astype(np.float32), translation.astype(np.float32), valid
    )


def _read_objects(path: Path) -> dict[str, Poses]:
    """Return world_from_object of each object by timestamp."""
    objects: dict[str, Poses] = {}
    rows = csv.DictReader(_read_text(path).splitlines())
    for number, row in enumerate(rows, start=2):
        try:
            turn = Rotation.from_quat([float(row[f"q_wo_{axis}"]) for axis in "xyzw"]).as_matrix()
            shift = np.array([float(row[f"t_wo_{axis}[m]"]) for axis in "xyz"])
            objects.setdefault(row["object_uid"], {})[int(row["timestamp[ns]"])] = rigid(turn, shift)
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{path}: line {number}: {error!r}", code="hot3d") from error
    return objects


def _object(uid: str, poses: Poses, times: NDArray[np.int64], library: Path) -> ObjectMotion:
    path = library / f"{uid}.glb"
    valid = np.array([time in poses for time in times.tolist()])
    stacked = np.stack([poses.get(time, np.eye(4)) for time in times.tolist()])
    return ObjectMotion(
        name=uid,
        mesh=load_glb(path),
        world_from_object=stacked.astype(np.float32),
        valid=valid,
        digest=digest_asset(path),
        provenance={"source": f"HOT3D, object {uid}", "licence": LICENCE},
    )


def _has_mesh(uid: str, library: Path) -> bool:
    check_name(uid, Path(_OBJECTS_FILE))  # it becomes a part of a path
    found = (library / f"{uid}.glb").is_file()
    if not found:
        logger.warning("%s: no mesh of object %s, so it is left out", library, uid)
    return found


def _nearest(moving: ObjectMotion, hands: Mapping[str, HandMotion]) -> float:
    """Return the least distance in metres between an object's origin and a wrist, over all frames."""
    place = moving.world_from_object[:, :3, 3]
    gaps = [np.linalg.norm(place - hand.translation, axis=1)[hand.valid] for hand in hands.values()]
    return float(min((gap.min() for gap in gaps if len(gap)), default=np.inf))


def _read_names(path: Path) -> tuple[str, str]:
    """Return the recording's name and who is recorded."""
    try:
        values = json.loads(_read_text(path))
        name, participant = str(values["recording_name"]), str(values["participant_id"])
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: {error!r}", code="hot3d") from error
    check_name(name, path)
    return name, participant


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {error}", code="missing-file") from error
