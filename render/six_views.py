"""Six pictures and a point cloud of an object: what tells the network what it looks like (paper, Sec. 3.1.2).

Letters: V vertices, F faces, P points, H rows, W columns.
Canonical frame: glTF (front +Z, up +Y), centred on the bounding box, bounding-sphere radius 1.
Views are orthographic, all to one scale. Left and right are the viewer's, as in engineering drawings: the
left view is seen from −X. The top view has the object's back upwards, the bottom view its front.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from render.appearance import build_surfaces
from render.lighting import DirectionalLight, LightingConfig, lights_in_camera
from render.painting import Painter, PaintingConfig, PosedSurfaces
from render.posing import winding_against_normals
from render.scene import NUM_POINTS, Mesh

# By view: the directions in the object's frame that are right, up and towards the viewer in the picture.
VIEWS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "front": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "back": ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "left": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    "right": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "top": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "bottom": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
}


class SixViewConfig(PaintingConfig, frozen=True, extra="forbid"):
    """How the six views are rendered."""

    size: int = 256
    """Pixels on a side of each view."""
    background: tuple[int, int, int] = (127, 127, 127)
    """sRGB colour of pixels that the object does not cover at all; at its outline colours are its own."""
    margin: float = 0.04
    """Empty border, as a share of the half view; 0 lets the bounding sphere touch the picture's sides."""
    lighting: LightingConfig = LightingConfig(
        sky=(0.62, 0.62, 0.62),
        ground=(0.45, 0.45, 0.45),
        lights=(DirectionalLight(towards=(-0.4, 0.6, 1.0), color=(0.45, 0.45, 0.45)),),
    )
    """Light that turns with the view (+X right, +Y up, +Z to the viewer): every side is lit alike."""
    shadow_texels: int = 0
    """None: references show an object's own colours."""


def canonicalize(mesh: Mesh) -> tuple[Mesh, float, NDArray[np.float32]]:
    """Return the mesh in its canonical frame, the radius in metres that became 1, and the old centre [3]."""
    used = mesh.vertices[np.unique(mesh.faces)].astype(np.float64)
    if not len(used) or not np.isfinite(used).all():
        raise ValueError("mesh has no faces" if not len(used) else "mesh has vertices that are not finite")
    centre = (used.min(axis=0) + used.max(axis=0)) / 2
    scale_m = float(np.linalg.norm(used - centre, axis=1).max())
    if scale_m == 0:
        raise ValueError("mesh is a single point")
    vertices = ((mesh.vertices - centre) / scale_m).astype(np.float32)
    return replace(mesh, vertices=vertices), scale_m, centre.astype(np.float32)


def render_six_views(mesh: Mesh, config: SixViewConfig) -> NDArray[np.uint8]:
    """Return [6, H, W, 4] of a canonical mesh in the order of VIEWS: sRGB, and coverage as alpha.

    Alpha is straight: where the object covers a part of a pixel, the colour is still its own, so that the
    views can be put before any background without a fringe.
    """
    view_from_object = np.array(list(VIEWS.values()), np.float32)  # [6, 3, 3], rows right, up, towards
    camera_from_view = np.diag([1.0, -1.0, -1.0]).astype(np.float32)  # OpenCV: y down, z away from the viewer
    rotation = np.swapaxes(camera_from_view @ view_from_object, 1, 2)
    points = mesh.vertices @ rotation  # [6, V, 3] camera axes, in radii
    half_view = 1 + config.margin
    clip_vertices = np.concatenate([points / half_view, np.ones_like(points[..., :1])], axis=-1)
    surfaces = build_surfaces([mesh], mesh.faces, winding_against_normals(mesh))
    lights = lights_in_camera(config.lighting, camera_from_view)
    background = np.full((config.size, config.size, 3), config.background, np.uint8)
    posed = PosedSurfaces(points, mesh.normals @ rotation, clip_vertices)
    return Painter(surfaces, lights, config).paint(posed, background, straight_alpha=True)


def sample_points(mesh: Mesh, rng: np.random.Generator, count: int = NUM_POINTS) -> NDArray[np.float32]:
    """Draw points [P, 3] from the surface, uniformly by area."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]].astype(np.float64) for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.sum() > 0:
        raise ValueError("mesh has no area")
    face = rng.choice(len(area), size=count, p=area / area.sum())
    # The square root spreads points evenly over a triangle (Osada et al. 2002, Shape distributions, Eq. 1).
    root, along = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    return ((1 - root) * a[face] + root * (1 - along) * b[face] + root * along * c[face]).astype(np.float32)
