"""Surfaces that procedural objects are made of: turned, swept, extruded and box-shaped, and their assembly.

Letters: V vertices, F faces, K points of a profile, path or outline. Frame: object, metres, +Y up, front +Z.
Faces are counter-clockwise seen from outside. Normals are smooth along a curve and hard where it bends by
more than `CREASE_DEG`. The front is at u = 0.5 and reads unmirrored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from render.scene import Material, Mesh

CREASE_DEG = 40.0
Curve = NDArray[np.float64] | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Part:
    """One surface with one material."""

    vertices: NDArray[np.float64]  # [V, 3]
    faces: NDArray[np.int64]  # [F, 3]
    normals: NDArray[np.float64]  # [V, 3] unit
    uvs: NDArray[np.float64]  # [V, 2] v = 0 is the picture's top row

    def placed(self, translation: ArrayLike, euler_deg: ArrayLike = (0, 0, 0)) -> "Part":
        """Return the part turned about x, y, z in that order, then moved."""
        rotation = Rotation.from_euler("xyz", np.asarray(euler_deg, float), degrees=True)
        moved = rotation.apply(self.vertices) + np.asarray(translation, float)
        return replace(self, vertices=moved, normals=rotation.apply(self.normals))

    def scaled(self, factors: ArrayLike) -> "Part":
        """Return the part stretched by positive factors along x, y, z."""
        factors = np.asarray(factors, float)
        return replace(self, vertices=self.vertices * factors, normals=_unit(self.normals / factors))


def revolve(profile: Curve, segments: int = 48) -> Part:
    """Turn a profile [K, 2] of (radius, y), bottom to top on the outside, about +Y; u goes round, v along."""
    profile = np.asarray(profile, float)
    points, normals, length = _creased(profile)  # [2(K - 1), 2]; normals point to the right of the direction
    angle = np.linspace(-np.pi, np.pi, segments + 1)  # 0 is the front
    around = np.stack([np.sin(angle), np.cos(angle)], axis=-1)  # [S + 1, 2] x and z
    vertices = _turned(points, around)
    uvs = _grid_uvs(np.linspace(0, 1, segments + 1), 1 - length)
    return _clean(Part(vertices, _strips(len(points) // 2, segments), _turned(normals, around), uvs))


def sweep(path: Curve, radii: ArrayLike, plane_normal: ArrayLike, *, closed: bool = False) -> Part:
    """Sweep an ellipse along a plane curve [K, 3]; radii [2] or [K, 2] lie in the plane and across it."""
    path, sides = np.asarray(path, float), 20
    radii = np.broadcast_to(np.asarray(radii, float), (len(path), 2))
    if closed:
        path, radii = np.concatenate([path, path[:1]]), np.concatenate([radii, radii[:1]])
    tangents = np.gradient(path, axis=0)
    if closed:
        tangents[[0, -1]] = path[1] - path[-2]
    across = _unit(np.asarray(plane_normal, float))
    inward = _unit(np.cross(across, tangents))  # [K, 3] in the plane
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # [S + 1, 2]
    axes = np.stack([inward, np.broadcast_to(across, inward.shape)], axis=1)  # [K, 2, 3]
    offsets = np.einsum("sa,ka,kac->ksc", ring, radii, axes)
    normals = _unit(np.einsum("sa,ka,kac->ksc", ring, 1 / radii, axes))
    vertices = (path[:, None] + offsets).reshape(-1, 3)
    rows = np.arange(len(path))
    faces = _quads(rows[:-1], rows[1:], sides)
    uvs = _grid_uvs(np.linspace(0, 1, sides + 1), np.linspace(0, 1, len(path)))
    tube = _clean(Part(vertices, faces, normals.reshape(-1, 3), uvs))
    if closed:
        return replace(tube, uvs=tube.uvs[:, ::-1])  # the picture goes round the loop
    ends = [_cap(offsets[k, :-1] + path[k], sign * _unit(tangents[k])) for k, sign in ((0, -1), (-1, 1))]
    return join([tube, *ends])


def extrude(outline: Curve, depth: float) -> Part:
    """Extrude an outline [K, 2] of (x, y), counter-clockwise and star-shaped about its mean, along z."""
    outline = np.asarray(outline, float)
    loop = np.concatenate([outline, outline[:1]])
    points, normals, length = _creased(loop, closed=True)  # [2K, 2]
    ends = np.array([depth / 2, -depth / 2])
    vertices = np.concatenate([np.column_stack([points, np.full(len(points), z)]) for z in ends])
    pairs = np.arange(0, len(points), 2)
    quad = np.stack([pairs, pairs + len(points), pairs + 1 + len(points), pairs + 1], axis=-1)
    faces = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    uvs = np.concatenate([np.column_stack([length, np.full(len(points), v)]) for v in (0.0, 1.0)])
    side_normals = np.tile(np.column_stack([normals, np.zeros(len(points))]), (2, 1))
    side = Part(vertices, faces, side_normals, uvs)
    front = _cap(np.column_stack([outline, np.full(len(outline), depth / 2)]), np.array([0.0, 0, 1]))
    back = _cap(np.column_stack([outline, np.full(len(outline), -depth / 2)]), np.array([0.0, 0, -1]))
    return join([side, front, back])


def box(extents: ArrayLike) -> Part:
    """Build a box; its texture is an atlas of 3 × 2 cells: front, back, left above right, top, bottom."""
    corners = np.array(
        [[-1, 1], [1, 1], [1, -1], [-1, -1]]
    )  # as seen: top left, top right, bottom right, left
    sides = (  # (right, up) as seen from outside
        ([1, 0, 0], [0, 1, 0]),
        ([-1, 0, 0], [0, 1, 0]),
        ([0, 0, 1], [0, 1, 0]),
        ([0, 0, -1], [0, 1, 0]),
        ([1, 0, 0], [0, 0, -1]),
        ([1, 0, 0], [0, 0, 1]),
    )
    vertices, normals, uvs = [], [], []
    for cell, axes in enumerate(sides):
        normal = np.cross(*axes)
        vertices.append((normal + corners @ np.array(axes)) * np.asarray(extents, float) / 2)
        normals.append(np.tile(normal, (4, 1)))
        inside = 0.5 + 0.49 * corners * (1, -1)  # a margin keeps a cell's neighbours out of its edge
        uvs.append((inside + divmod(cell, 3)[::-1]) / (3, 2))
    quads = np.arange(24).reshape(6, 4)
    faces = np.concatenate([quads[:, [0, 3, 2]], quads[:, [0, 2, 1]]])
    return Part(np.concatenate(vertices), faces, np.concatenate(normals).astype(float), np.concatenate(uvs))


def join(parts: Sequence[Part]) -> Part:
    """Return several parts as one."""
    first = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    return Part(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, first, strict=True)]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.uvs for part in parts]),
    )


def assemble(parts: Sequence[tuple[Part, Material]]) -> Mesh:
    """Return one mesh of parts and their materials, centred on its bounding box."""
    whole = join([part for part, _ in parts])
    middle = (whole.vertices.min(axis=0) + whole.vertices.max(axis=0)) / 2
    counts = [len(part.faces) for part, _ in parts]
    return Mesh(
        vertices=(whole.vertices - middle).astype(np.float32),
        faces=whole.faces.astype(np.int32),
        normals=whole.normals.astype(np.float32),
        uvs=whole.uvs.astype(np.float32),
        colors=np.ones((len(whole.vertices), 4), np.float32),
        material_ids=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        materials=tuple(material for _, material in parts),
    )


def arc(
    centre: ArrayLike, radius: float, start_deg: float, stop_deg: float, count: int = 12
) -> NDArray[np.float64]:
    """Return points [count, 2] of a circle's arc, angles from the first axis to the second."""
    angle = np.deg2rad(np.linspace(start_deg, stop_deg, count))
    return np.asarray(centre, float) + radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _creased(
    curve: NDArray[np.float64], *, closed: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Split a curve [K, 2] into its segments' ends [2(K - 1), 2], their normals, and length from 0 to 1."""
    steps = np.diff(curve, axis=0)
    normals = _unit(np.stack([steps[:, 1], -steps[:, 0]], axis=-1))  # to the right of the direction
    before, after = np.roll(normals, 1, axis=0), np.roll(normals, -1, axis=0)
    if not closed:
        before[0], after[-1] = normals[0], normals[-1]
    ends = []
    for neighbour in (before, after):
        smooth = (neighbour * normals).sum(axis=-1, keepdims=True) > np.cos(np.deg2rad(CREASE_DEG))
        ends.append(_unit(np.where(smooth, neighbour + normals, normals)))
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(steps, axis=-1))])
    return (
        np.stack([curve[:-1], curve[1:]], axis=1).reshape(-1, 2),
        np.stack(ends, axis=1).reshape(-1, 2),
        np.stack([length[:-1], length[1:]], axis=1).reshape(-1) / length[-1],
    )


def _turned(points: NDArray[np.float64], around: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (radius, y) pairs [R, 2] at every direction (x, z) [S, 2] as vertices [R S, 3]."""
    radius, height = points[:, :1], np.broadcast_to(points[:, 1:], (len(points), len(around)))
    return np.stack([radius * around[:, 0], height, radius * around[:, 1]], axis=-1).reshape(-1, 3)


def _grid_uvs(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)


def _quads(low: NDArray[np.int_], high: NDArray[np.int_], segments: int) -> NDArray[np.int64]:
    """Return triangles between rows `low` and `high` [R] of a vertex grid that is `segments` + 1 wide."""
    column = np.arange(segments)
    a, d = low[:, None] * (segments + 1) + column, high[:, None] * (segments + 1) + column
    return np.concatenate([np.stack([a, a + 1, d + 1], -1), np.stack([a, d + 1, d], -1)]).reshape(-1, 3)


def _strips(count: int, segments: int) -> NDArray[np.int64]:
    """Return the triangles of `count` strips that own two rows each."""
    return _quads(2 * np.arange(count), 2 * np.arange(count) + 1, segments)


def _cap(outline: NDArray[np.float64], normal: NDArray[np.float64]) -> Part:
    """Close a plane outline [K, 3], star-shaped about its mean, with a fan that faces along `normal`."""
    middle, count = outline.mean(axis=0), len(outline)
    ring = np.arange(count)
    faces = np.stack([np.full(count, count), ring, (ring + 1) % count], axis=-1)
    turns = np.cross(outline - middle, np.roll(outline, -1, axis=0) - middle).sum(axis=0) @ normal
    right = _unit(np.cross([0.0, 1, 0] if abs(normal[1]) < 0.9 else [0.0, 0, -1], normal))
    seen = (outline - middle) @ np.stack([right, -np.cross(normal, right)], axis=-1)  # [K, 2] right, down
    uvs = 0.5 + np.concatenate([seen, [[0, 0]]]) / (2 * np.abs(seen).max())
    vertices = np.concatenate([outline, middle[None]])
    return Part(vertices, faces if turns > 0 else faces[:, ::-1], np.tile(normal, (count + 1, 1)), uvs)


def _clean(part: Part) -> Part:
    """Drop the triangles that the axis of a turned part squeezes to nothing."""
    a, b, c = (part.vertices[part.faces[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    return replace(part, faces=part.faces[area > 1e-12])


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
