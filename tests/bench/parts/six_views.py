"""Six 512² views of an object, lit and supersampled, beside the six unlit views that pyrender draws of it."""

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np

from render.procedural_objects import procedural_object
from render.scene import Mesh
from render.six_views import VIEWS, SixViewConfig, canonicalize, render_six_views
from tests.bench.harness import Table, ratio, take_turns
from tests.bench.scene import torus

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")  # before pyrender imports OpenGL
import pyrender

SIZE = 512


def run(rounds: int, folder: Path) -> list[Table]:
    """Time a textured procedural object and a plain one of 50 000 triangles."""
    meshes = {
        "camera, textured": procedural_object("camera", np.random.default_rng(0)),
        "ring, plain": torus(50_000),
    }
    renderer = pyrender.OffscreenRenderer(SIZE, SIZE)
    config = SixViewConfig(size=SIZE, rasterizer="numba")
    rows, data = [], {}
    for name, mesh in meshes.items():
        canonical, _, _ = canonicalize(mesh)
        peers: dict[str, Callable[[], object]] = {
            "numba": lambda canonical=canonical: render_six_views(canonical, config),  # type: ignore[misc]
            "pyrender": pyrender_views(renderer, canonical, 1 + config.margin),
        }
        seconds = take_turns(peers, rounds)
        rows.append(
            [
                name,
                f"{len(mesh.faces):,}",
                *(f"{1e3 * median(seconds.wall[peer]):.0f}" for peer in peers),
                f"{ratio(seconds.wall, 'pyrender', 'numba'):.2f}",
                f"{ratio(seconds.processor, 'pyrender', 'numba'):.2f}",
            ]
        )
        data[name] = asdict(seconds)
    return [
        Table(
            f"Six {SIZE}² views of an object",
            ("object", "triangles", "numba, ms", "pyrender, ms", "pyrender / numba", "processor time's"),
            rows,
            notes=(
                f"numba: lit, textures filtered, supersampled {config.supersample} by {config.supersample}, "
                "alpha; pyrender: neither light nor textures, uploaded beforehand",
                f"{rounds} rounds",
            ),
            data=data,
        )
    ]


def pyrender_views(
    renderer: pyrender.OffscreenRenderer, mesh: Mesh, half_view: float
) -> Callable[[], object]:
    """Return what draws a canonical mesh's six views, and reads them back."""
    flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.SKIP_CULL_FACES
    primitive = pyrender.Primitive(positions=mesh.vertices, normals=mesh.normals, indices=mesh.faces)
    scene = pyrender.Scene()
    scene.add(pyrender.Mesh([primitive]))
    eye = scene.add(pyrender.OrthographicCamera(half_view, half_view, znear=0.5, zfar=3.5))
    poses = []
    for view in VIEWS.values():
        pose = np.eye(4)
        pose[:3, :3] = np.array(view).T  # columns: right, up, towards the viewer
        pose[:3, 3] = 2 * pose[:3, 2]
        poses.append(pose)

    def draw() -> None:
        for pose in poses:
            scene.set_pose(eye, pose)
            renderer.render(scene, flags)

    return draw
