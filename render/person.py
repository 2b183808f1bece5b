"""A synthetic person: an articulated upper body of tapered limbs whose arms end at the hands.

Letters: T frames, K = 17 keypoints in COCO's order. Frame: world in metres, +Y up, a table's top at y = 0;
the person stands behind the table at -Z and looks along +Z, so the right hand is at -X.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from render.camera import project
from render.procedural_shapes import Part, arc, assemble, revolve
from render.procedural_textures import plain
from render.scene import SIDES, Camera, Material, ObjectMotion
from render.skeleton import KEYPOINTS
from render.transforms import rigid

FloatArray = NDArray[np.float64]

STANDS_AT = np.array([0.0, 0.0, -0.46])  # between the hips, level with the table's top
NECK_M, HEAD_M, HEAD_RADIUS_M = 0.50, 0.66, 0.105  # heights above the hips; the head is longer than wide
SHOULDER_M = (0.18, 0.45)  # half the width, height above the hips
HIP_HALF_M = 0.11
UPPER_ARM_M, FOREARM_M = 0.29, 0.27
HAND_M = 0.14  # that a hand reaches beyond its wrist
FACE = {  # from the middle of the head: aside (to the person's left is +X), up, ahead
    "nose": (0.0, 0.0, 0.11),
    "left_eye": (0.035, 0.03, 0.095),
    "right_eye": (-0.035, 0.03, 0.095),
    "left_ear": (0.09, 0.01, 0.0),
    "right_ear": (-0.09, 0.01, 0.0),
}


@dataclass(frozen=True)
class Limb:
    """A rigid part between two joints."""

    start: str
    end: str
    radii_m: tuple[float, float]
    skin: bool  # else clothes


LIMBS = (
    Limb("hips", "neck", (0.135, 0.15), skin=False),
    Limb("neck", "head", (0.055, 0.05), skin=True),
    *(Limb(f"{side}_shoulder", f"{side}_elbow", (0.055, 0.045), skin=False) for side in SIDES),
    *(Limb(f"{side}_elbow", f"{side}_wrist", (0.042, 0.028), skin=True) for side in SIDES),
)


def body_joints(wrists: Mapping[str, FloatArray], sway_m: FloatArray) -> dict[str, FloatArray]:
    """Return world joints [T, 3] by name, of wrists [T, 3] by side and head and shoulders that sway along x.

    Elbows follow from the lengths of the arms and hang down and outwards; a wrist out of reach pulls its
    shoulder along.
    """
    sway = np.zeros((len(sway_m), 3))
    sway[:, 0] = sway_m
    hips = np.broadcast_to(STANDS_AT, sway.shape)
    neck = hips + np.array([0, NECK_M, 0]) + sway
    joints = {"hips": hips, "neck": neck, "head": hips + np.array([0, HEAD_M, 0]) + 1.2 * sway}
    for side, aside in (("left", 1.0), ("right", -1.0)):
        shoulder = hips + np.array([aside * SHOULDER_M[0], SHOULDER_M[1], 0]) + sway
        shoulder, elbow = _bent_arm(shoulder, wrists[side], np.array([aside, -1.0, -0.3]))
        joints |= {f"{side}_shoulder": shoulder, f"{side}_elbow": elbow, f"{side}_wrist": wrists[side]}
        joints[f"{side}_hip"] = hips + np.array([aside * HIP_HALF_M, 0, 0])
    for name, offset in FACE.items():
        joints[name] = joints["head"] + offset
    return joints


def _bent_arm(shoulder: FloatArray, wrist: FloatArray, towards: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return shoulder and elbow [T, 3] of an arm that bends towards a direction [3]."""
    reach = 0.999 * (UPPER_ARM_M + FOREARM_M)
    span = wrist - shoulder
    distance = np.linalg.norm(span, axis=-1, keepdims=True)
    shoulder = wrist - span * np.minimum(1, reach / distance)
    distance = np.minimum(distance, reach)
    forward = span / np.linalg.norm(span, axis=-1, keepdims=True)
    along = (distance**2 + UPPER_ARM_M**2 - FOREARM_M**2) / (
        2 * distance
    )  # of the elbow's foot, law of cosines
    aside = towards - forward * (forward @ towards)[:, None]
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    height = np.sqrt(np.maximum(UPPER_ARM_M**2 - along**2, 0))
    return shoulder, shoulder + along * forward + height * aside


def body_objects(
    joints: Mapping[str, FloatArray], skin_color: NDArray[np.floating], rng: np.random.Generator
) -> tuple[ObjectMotion, ...]:
    """Return limbs and head as moving objects in clothes of a random colour; the skin's [3] is linear RGB."""
    red, green, blue = map(float, skin_color)
    cloth, skin = plain(rng), Material(name="skin", base_color_factor=(red, green, blue, 1.0))
    valid = np.ones(len(joints["hips"]), np.bool_)
    objects = []
    for limb in LIMBS:
        start, end = joints[limb.start], joints[limb.end]
        length = float(np.linalg.norm(end - start, axis=-1).mean())
        mesh = assemble([(tapered_limb(length, limb.radii_m), skin if limb.skin else cloth)])
        turned = _along(end - start)  # [T, 3, 3]
        middle = (length + limb.radii_m[1] - limb.radii_m[0]) / 2  # of the mesh, which is centred on its box
        poses = rigid(turned, start + middle * turned[:, :, 1]).astype(np.float32)
        objects.append(ObjectMotion(f"{limb.start}-{limb.end}", mesh, poses, valid, ""))
    head = assemble([(revolve(arc((0, 0), HEAD_RADIUS_M, -90, 90, 25)).scaled((0.85, 1.15, 0.95)), skin)])
    upright = np.broadcast_to(np.eye(3), (len(valid), 3, 3))
    poses = rigid(upright, joints["head"]).astype(np.float32)
    return (*objects, ObjectMotion("head", head, poses, valid, ""))


def tapered_limb(length_m: float, radii_m: tuple[float, float]) -> Part:
    """Return a limb from the origin up to (0, length, 0), round at both ends."""
    start, end = radii_m
    below, above = arc((0, 0), start, -90, 0, 9), arc((0, length_m), end, 0, 90, 9)
    return revolve(np.concatenate([below, above]), segments=24)


def body_bounds(joints: Mapping[str, FloatArray]) -> FloatArray:
    """Return world points [P, 3] that a picture of the upper body with its hands has in it."""
    around = np.concatenate([np.eye(3), -np.eye(3)])[:, None]  # [6, 1, 3]
    head = joints["head"] + 1.3 * HEAD_RADIUS_M * around
    hands = [joints[f"{side}_wrist"] + HAND_M * around for side in SIDES]
    return np.concatenate(
        [part.reshape(-1, 3) for part in (head, *hands, joints["left_elbow"], joints["right_elbow"])]
    )


def person_keypoints(joints: Mapping[str, FloatArray], camera: Camera) -> NDArray[np.float32]:
    """Return what a perfect pose detector sees: [T, K, 3] column, row, confidence; legs are never seen."""
    keypoints = np.zeros((len(joints["hips"]), len(KEYPOINTS), 3), np.float32)
    for index, name in enumerate(KEYPOINTS):
        if name in joints:
            pixels, depth = project(joints[name], camera)
            keypoints[:, index, :2] = pixels
            keypoints[:, index, 2] = depth > 0
    return keypoints


def _along(directions: FloatArray) -> FloatArray:
    """Return rotations [T, 3, 3] that turn +Y into directions [T, 3], +Z staying ahead as far as it can."""
    up = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    side = np.cross(up, [0.0, 0.0, 1.0])
    short = np.linalg.norm(side, axis=-1, keepdims=True) < 1e-6
    side = np.where(short, [1.0, 0.0, 0.0], side)
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    return np.stack([side, up, np.cross(side, up)], axis=-1)
