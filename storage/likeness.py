"""What makes two takes or two objects near-duplicates: signatures that a copy keeps, whatever it is called.

A signature is a short vector; those of a kind that differ in no value by more than its tolerance are alike.
It survives other names, formats, encodings and textures, another world frame or frame rate, and mirroring.
Letters: T frames, F faces, H rows, W columns; P points.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.cluster.hierarchy import DisjointSet
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation, Slerp

from render.scene import SIDES, Clip, HandMotion, Mesh, ObjectMotion

TOLERANCES = {
    "shape": 0.002,  # of moments of the surface, in units of its own size
    "hands": 0.03,  # radians, decimetres
    "objects": 0.03,
    "pictures": 0.03,  # of the range from black to white
}
PARTS = 8  # of a take's time
THUMBNAIL = 8  # pixels a side
DECIMALS = 5
# Dunavant (1985): six points in a triangle that integrate polynomials of degree four exactly.
_CORNER = ((0.445948490915965, 0.223381589678011), (0.091576213509771, 0.109951743655322))
_BARYCENTRIC = np.array([np.roll((a, a, 1 - 2 * a), k) for a, _ in _CORNER for k in range(3)])  # [6, 3]
_WEIGHTS = np.array([weight for _, weight in _CORNER for _ in range(3)])  # [6]


@dataclass(frozen=True)
class Signature:
    """A vector of one kind."""

    kind: str
    values: tuple[float, ...]


def shape_signature(mesh: Mesh) -> Signature:
    """Moments of a mesh's surface up to the fourth, in units of its size: its triangles do not matter."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)  # [F, 3, 3]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=-1) / 2  # [F]
    points = np.einsum("pc,fcx->fpx", _BARYCENTRIC, corners).reshape(-1, 3)  # [P, 3]
    weights = (areas[:, None] * _WEIGHTS).ravel() / areas.sum()  # [P]
    centred = points - weights @ points
    covariance = (centred * weights[:, None]).T @ centred
    size = np.sqrt(np.trace(covariance))
    centred /= size
    squares = (centred**2).sum(axis=-1)
    values = [
        *np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0.0)) / size,
        areas.sum() / size**2 / 10,
        np.linalg.norm((weights * squares) @ centred),
        weights @ squares**2 / 2,
    ]
    return _signature("shape", np.array(values))


def take_signatures(clip: Clip) -> tuple[Signature, ...]:
    """What moves in a clip: both hands, else the first object; nothing where all of it stands still.

    A mirrored take has its hands exchanged, so both orders are given.
    """
    if clip.hands:
        hands = [_hand(clip.hands.get(side)) for side in SIDES]
        vectors = [np.concatenate(order) for order in (hands, hands[::-1])]
        signatures = tuple(_signature("hands", vector) for vector in vectors)
    else:
        signatures = tuple(_signature("objects", _object(moving)) for moving in clip.objects[:1])
    return tuple(its for its in signatures if max(its.values) > TOLERANCES[its.kind])


def picture_signatures(frames: NDArray[np.uint8]) -> tuple[Signature, ...]:
    """The mean of frames [T, H, W, 3], grey and small, and its mirror picture."""
    grey = Image.fromarray(frames.mean(axis=(0, 3), dtype=np.float64).astype(np.float32) / 255.0)
    small = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX), np.float64)
    return tuple(_signature("pictures", picture.ravel()) for picture in (small, small[:, ::-1]))


def groups(signatures: Mapping[str, Iterable[Signature]]) -> dict[str, str]:
    """Name each thing's group by the first of its names: what is alike is in one, if through others."""
    sets: DisjointSet[str] = DisjointSet(signatures)
    for kind, tolerance in TOLERANCES.items():
        first: dict[tuple[float, ...], str] = {}
        for name, its in signatures.items():
            for signature in its:
                if signature.kind == kind:
                    sets.merge(name, first.setdefault(signature.values, name))
        names, vectors = list(first.values()), np.array(list(first))
        if len(names) > 1:
            for a, b in cKDTree(vectors).query_pairs(tolerance, p=np.inf):
                sets.merge(names[a], names[b])
    return _named(sets)


def joined(marks: Mapping[str, Iterable[Hashable]]) -> dict[str, str]:
    """Name each thing's group alike: what has a mark in common is in one, if through others."""
    sets: DisjointSet[str] = DisjointSet(marks)
    first: dict[Hashable, str] = {}
    for name, its in marks.items():
        for mark in its:
            sets.merge(name, first.setdefault(mark, name))
    return _named(sets)


def _named(sets: DisjointSet) -> dict[str, str]:
    firsts = {min(members): members for members in sets.subsets()}
    return {name: first for first, members in firsts.items() for name in members}


def _hand(hand: HandMotion | None) -> NDArray[np.float64]:
    """Mean and spread over time of how far each of 15 joints is bent, and how the wrist moves [46]."""
    if hand is None or not hand.valid.any():
        return np.zeros(2 * 15 + 2 * PARTS)
    pose = hand.pose[hand.valid].astype(np.float64)
    bent = np.linalg.norm(pose[:, 3:].reshape(-1, 15, 3), axis=-1)  # [T, 15]
    moves = _moves(Rotation.from_rotvec(pose[:, :3]), hand.translation[hand.valid])
    return np.concatenate([bent.mean(axis=0), bent.std(axis=0), moves])


def _object(moving: ObjectMotion) -> NDArray[np.float64]:
    """How an object moves [16]."""
    poses = moving.world_from_object[moving.valid].astype(np.float64)  # [T, 4, 4]
    if not len(poses):
        return np.zeros(2 * PARTS)
    return _moves(Rotation.from_matrix(poses[:, :3, :3]), poses[:, :3, 3])


def _moves(turned: Rotation, places: NDArray[np.floating]) -> NDArray[np.float64]:
    """By how much something turns (radians) and shifts (decimetres) in each part of its time [16].

    turned, places: T rotations, and [T, 3] in metres.
    """
    if len(places) == 1:
        return np.zeros(2 * PARTS)
    times, ends = np.arange(len(places)), np.linspace(0, len(places) - 1, PARTS + 1)
    turns = Slerp(times, turned)(ends)
    angles = (turns[:-1].inv() * turns[1:]).magnitude()
    shifts = np.diff([np.interp(ends, times, column) for column in places.T], axis=1)  # [3, 8]
    return np.concatenate([angles, 10.0 * np.linalg.norm(shifts, axis=0)])


def _signature(kind: str, values: NDArray[np.float64]) -> Signature:
    return Signature(kind, tuple(np.round(values, DECIMALS).tolist()))
