"""Six 512² views of an object beside those that pyrender draws of it, with the same features on both sides.

As in records: lit, textured, four samples a pixel, coverage as alpha. Bare: neither light nor textures.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from render.lighting import UNLIT
from render.procedural_objects import procedural_object
from render.scene import Material, Mesh
from render.six_views import VIEWS, SixViewConfig, canonicalize, render_six_views
from tests.bench.harness import Table, ratio, take_turns
from tests.bench.scene import torus

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")  # before pyrender imports OpenGL
import pyrender

SIZE = 512
RECORDED = SixViewConfig(size=SIZE, rasterizer="numba")
BARE = SixViewConfig(size=SIZE, supersample=1, lighting=UNLIT, rasterizer="numba")


def run(rounds: int, folder: Path) -> list[Table]:
    """Time a textured procedural object and a plain one of 50 000 triangles."""
    camera = procedural_object("camera", np.random.default_rng(0))
    cases = {
        "camera, as in records": (camera, RECORDED),
        "ring, as in records": (torus(50_000), RECORDED),
        "camera, bare": (replace(camera, materials=(Material(),) * len(camera.materials)), BARE),
        "ring, bare": (torus(50_000), BARE),
    }
    rows, data = [], {}
    for name, (mesh, config) in cases.items():
        canonical, _, _ = canonicalize(mesh)
        peer = PyrenderViews(canonical, config)
        peers: dict[str, Callable[[], object]] = {
            "numba": lambda mesh=canonical, config=config: render_six_views(mesh, config),  # type: ignore[misc]
            "pyrender": peer.render,
        }
        seconds = take_turns(peers, rounds)
        peer.close()
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
                "as in records: lit, textures filtered, two by two samples, "
                "alpha; pyrender draws them larger and Pillow halves what it reads back",
                "bare: neither light nor textures; pyrender multisamples always, and uploads beforehand",
                f"{rounds} rounds",
            ),
            data=data,
        )
    ]


class PyrenderViews:
    """Draws a canonical mesh's six views and reads them back; the mesh is uploaded beforehand."""

    def __init__(self, mesh: Mesh, config: SixViewConfig) -> None:
        self._config = config
        self._renderer = pyrender.OffscreenRenderer(config.supersample * SIZE, config.supersample * SIZE)
        self._flags = pyrender.RenderFlags.RGBA | pyrender.RenderFlags.SKIP_CULL_FACES
        self._scene = pyrender.Scene(bg_color=(0, 0, 0, 0), ambient_light=(0.5, 0.5, 0.5))
        self._scene.add(pyrender.Mesh(_primitives(mesh)))
        half_view = 1 + config.margin
        self._eye = self._scene.add(pyrender.OrthographicCamera(half_view, half_view, znear=0.5, zfar=3.5))
        self._light = None
        if config.lighting.lights:
            self._light = self._scene.add(pyrender.DirectionalLight(intensity=2.0))
        else:
            self._flags |= pyrender.RenderFlags.FLAT

    def render(self) -> list[Image.Image]:
        """Return the views, RGBA."""
        views = []
        for view in VIEWS.values():
            pose = np.eye(4)
            pose[:3, :3] = np.array(view).T  # columns: right, up, towards the viewer
            pose[:3, 3] = 2 * pose[:3, 2]
            self._scene.set_pose(self._eye, pose)
            if self._light is not None:
                self._scene.set_pose(self._light, pose)
            color, _ = self._renderer.render(self._scene, self._flags)
            views.append(Image.fromarray(color).reduce(self._config.supersample))
        return views

    def close(self) -> None:
        """Free what OpenGL holds."""
        self._renderer.delete()


def _primitives(mesh: Mesh) -> list[pyrender.Primitive]:
    """Return a primitive for each material that a face has."""
    primitives = []
    for number in np.unique(mesh.material_ids):
        material = mesh.materials[number]
        used, indices = np.unique(mesh.faces[mesh.material_ids == number], return_inverse=True)
        texture = None
        if material.base_color_texture is not None:
            texture = pyrender.Texture(source=material.base_color_texture.pixels, source_channels="RGBA")
        primitives.append(
            pyrender.Primitive(
                positions=mesh.vertices[used],
                normals=mesh.normals[used],
                texcoord_0=None if texture is None else mesh.uvs[used] * (1, -1) + (0, 1),
                color_0=mesh.colors[used],
                indices=indices.reshape(-1, 3),
                material=pyrender.MetallicRoughnessMaterial(
                    baseColorFactor=material.base_color_factor,
                    baseColorTexture=texture,
                    metallicFactor=0.0,
                    doubleSided=True,
                ),
            )
        )
    return primitives
