"""The peer of the renderer: the same surfaces drawn by pyrender through EGL, that is by Mesa on a CPU.

Letters: T frames, L layers, H rows, W columns, V vertices, F faces.
Meshes are uploaded beforehand and hold their normals as vertex colours, so that one unlit pass gives both
normals and depth: pyrender is timed at drawing and reading back only, which is in its favour.
"""

import os

import numpy as np
from numpy.typing import NDArray

from render.layers import RenderedLayers
from render.mlo import encode_depth
from render.posing import PosedClip
from render.scene import STORED_LAYERS, Camera

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")  # before pyrender imports OpenGL
import pyrender

FLAGS = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.SKIP_CULL_FACES
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


class PyrenderLayers:
    """Draws some frames of a clip, layer by layer."""

    def __init__(self, posed: PosedClip, camera: Camera, num_frames: int, rendered: RenderedLayers) -> None:
        self._near, self._far = rendered.near_m, rendered.far_m
        self._size = camera.height, camera.width
        self._renderer = pyrender.OffscreenRenderer(camera.width, camera.height)
        points, normals = posed.pose(slice(0, num_frames))
        self._scenes = [
            [
                self._scene(points[frame], normals[frame], posed.faces[first : first + count], camera)
                for first, count in posed.layer_ranges
            ]
            for frame in range(num_frames)
        ]

    def _scene(
        self, points: NDArray[np.float32], normals: NDArray[np.float32], faces: NDArray, camera: Camera
    ) -> pyrender.Scene:
        used, indices = np.unique(faces, return_inverse=True)
        primitive = pyrender.Primitive(
            positions=points[used],
            indices=indices.reshape(-1, 3).astype(np.uint32),
            color_0=np.column_stack([(normals[used] * 127 + 128) / 255, np.ones(len(used))]).astype(
                np.float32
            ),
            material=pyrender.MetallicRoughnessMaterial(
                baseColorFactor=(1.0, 1.0, 1.0, 1.0), doubleSided=True
            ),
        )
        scene = pyrender.Scene(bg_color=(0, 0, 0, 0))
        scene.add(pyrender.Mesh([primitive]), pose=OPENGL_FROM_OPENCV)
        focal, centre = camera.intrinsics[[0, 1], [0, 1]], camera.intrinsics[:2, 2] + 0.5
        scene.add(
            pyrender.IntrinsicsCamera(*focal, *centre, znear=0.999 * self._near, zfar=1.001 * self._far)
        )
        return scene

    def render(self) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
        """Return normals [T, L, H, W, 3] and depth [T, L, H, W] as the codes of `render.mlo`."""
        shape = len(self._scenes), len(STORED_LAYERS), *self._size
        normals, depth = np.empty((*shape, 3), np.uint8), np.empty(shape, np.uint16)
        for frame, scenes in enumerate(self._scenes):
            for layer, scene in enumerate(scenes):
                normals[frame, layer], depth_m = self._renderer.render(scene, FLAGS)
                depth[frame, layer] = encode_depth(depth_m, self._near, self._far)
        return normals, depth

    def close(self) -> None:
        """Free what OpenGL holds."""
        self._renderer.delete()
