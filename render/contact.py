"""Signed distance from points to a surface, for hands that touch it.

Letters: V vertices, F faces, P samples of the surface. Frame: the surface's own, metres; negative inside.
Real scans are not closed, are wound both ways and have hidden inner surfaces: what is outside is decided by a
flood through a voxel grid, and only surface that the flood reaches counts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, label, map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

VOXELS_ALONG = 72  # of the flood's grid, along the object's greatest extent
SAMPLES = 24_000
REACH_M = 0.02  # farther is not told apart: a bounded search is several times faster


@dataclass(frozen=True)
class ContactField:
    """An outer surface as dense oriented samples."""

    points: NDArray[np.float64]  # [P, 3]
    normals: NDArray[np.float64]  # [P, 3] unit, outwards
    tree: cKDTree
    spacing_m: float  # typical distance between neighbouring samples

    def distance(self, query: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return signed distances [...] of points [..., 3], `REACH_M` where they are farther than that.

        Right beside a sample the distance is to the sample's plane.
        """
        reach, nearest = self.tree.query(query, k=4, distance_upper_bound=REACH_M)  # [..., 4]
        found = np.isfinite(reach)
        nearest, reach = np.where(found, nearest, 0), np.where(found, reach, REACH_M)
        offset = query[..., None, :] - self.points[nearest]
        along = np.where(found, np.einsum("...kc,...kc->...k", offset, self.normals[nearest]), REACH_M)
        # Past an edge the nearest samples may be on the side that does not see the point: four vote, and the
        # inside needs a clear vote.
        votes = (along / np.maximum(reach, 1e-9)).mean(axis=-1)
        sign = np.where(votes < -0.3, -1.0, 1.0)
        reach, along = reach[..., 0], along[..., 0]
        beside = np.sqrt(np.maximum(reach**2 - along**2, 0)) < 2 * self.spacing_m
        return np.where(beside, along, sign * reach)

    def nearest_normals(self, query: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the outward normals [..., 3] of the surface nearest to points [..., 3]."""
        return self.normals[self.tree.query(query)[1]]


def contact_field(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], rng: np.random.Generator
) -> ContactField:
    """Sample what can be reached from outside of vertices [V, 3] and faces [F, 3], however they are wound."""
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    normals = np.cross(b - a, c - a)  # [F, 3], twice the area long
    areas = np.linalg.norm(normals, axis=-1)
    drawn = rng.choice(len(areas), SAMPLES, p=areas / areas.sum())  # [P]
    u, v = rng.uniform(size=(2, SAMPLES, 1))
    u, v = np.where(u + v > 1, (1 - u, 1 - v), (u, v))
    points = a[drawn] + u * (b - a)[drawn] + v * (c - a)[drawn]
    normals = normals[drawn] / areas[drawn, None]
    spacing = float(np.sqrt(areas.sum() / 2 / SAMPLES))
    reached, openness = _flood(points, normals, spacing)
    # Where walls are thin or corners tight one sample's vote is not safe: a connected piece turns as a whole.
    pieces = _pieces(len(vertices), faces)[drawn]
    votes = np.bincount(pieces, weights=openness) / np.maximum(np.bincount(pieces), 1)
    normals = np.where(votes[pieces, None] < -0.25, -normals, normals)  # a thin sheet is open on both sides
    return ContactField(points[reached], normals[reached], cKDTree(points[reached]), spacing)


def _flood(
    points: NDArray[np.float64], normals: NDArray[np.float64], spacing_m: float
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Flood space from outside; return whether it reaches each sample [P], and how much more in front [P]."""
    voxel = max(np.ptp(points, axis=0).max() / VOXELS_ALONG, 2.5 * spacing_m)  # samples leave no cell empty
    origin = points.min(axis=0) - 5 * voxel
    cells = np.floor((points - origin) / voxel).astype(int)
    solid = np.zeros(cells.max(axis=0) + 6, bool)
    solid[tuple(cells.T)] = True
    regions, _ = label(
        ~binary_dilation(solid)
    )  # dilated: no leak between samples or through a scan's pinholes
    outside = regions == regions[0, 0, 0]
    reached = binary_dilation(outside, np.ones((3, 3, 3), bool), iterations=2)[tuple(cells.T)]
    front, behind = (
        map_coordinates(outside.astype(float), ((points + side * normals - origin) / voxel - 0.5).T, order=1)
        for side in (3 * voxel, -3 * voxel)
    )
    return reached, front - behind


def _pieces(num_vertices: int, faces: NDArray[np.integer]) -> NDArray[np.int32]:
    """Return the connected piece [F] that each face belongs to."""
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    joined = coo_array((np.ones(len(ends)), ends.T), shape=(num_vertices, num_vertices))
    return connected_components(joined, directed=False)[1][faces[:, 0]]
