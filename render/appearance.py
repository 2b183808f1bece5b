"""Surfaces and what they look like, as arrays that compiled code reads: faces, materials and textures.

Letters: V vertices, F faces, M materials, K textures.  Colours are linear RGB.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from render.scene import Mesh, Texture
from render.textures import TextureAtlas, build_atlas

ALPHA_MODES = {"opaque": 0, "mask": 1, "blend": 2}
NO_TEXTURE = -1


class Surfaces(NamedTuple):
    """One list of faces and its looks; where the vertices are is said apart, frame by frame."""

    faces: NDArray[np.int32]  # [F, 3]
    against_normals: NDArray[np.bool_]  # [F] winding and vertex normals point to opposite sides
    uvs: NDArray[np.float32]  # [V, 2]
    emissive_uvs: NDArray[np.float32]  # [V, 2]
    colors: NDArray[np.float32]  # [V, 4]
    material_ids: NDArray[np.int32]  # [F]
    factors: NDArray[np.float32]  # [M, 4] base colour
    emissive_factors: NDArray[np.float32]  # [M, 3]
    textures: NDArray[np.int64]  # [M, 2] base colour, emissive: index into the atlas or NO_TEXTURE
    alpha_modes: NDArray[np.int64]  # [M] values of ALPHA_MODES
    alpha_cutoffs: NDArray[np.float32]  # [M]
    unlit: NDArray[np.bool_]  # [M]
    double_sided: NDArray[np.bool_]  # [M]
    atlas: TextureAtlas

    @property
    def see_through(self) -> bool:
        """Whether a fragment can leave what is behind it visible."""
        return bool(np.any(self.alpha_modes != ALPHA_MODES["opaque"]))


def build_surfaces(
    meshes: Sequence[Mesh], faces: NDArray[np.int32], against_normals: NDArray[np.bool_]
) -> Surfaces:
    """Join the looks of meshes, in the order in which `faces` [F, 3] joins their faces.

    A texture that several materials share is kept once.
    """
    materials = [material for mesh in meshes for material in mesh.materials]
    textures: dict[int, Texture] = {}
    for material in materials:
        for texture in (material.base_color_texture, material.emissive_texture):
            if texture is not None:
                textures[id(texture)] = texture
    index_of = {key: index for index, key in enumerate(textures)}

    def index(texture: Texture | None) -> int:
        return NO_TEXTURE if texture is None else index_of[id(texture)]

    first_materials = np.cumsum([0, *(len(mesh.materials) for mesh in meshes)])
    emissive_uvs = [mesh.uvs if mesh.emissive_uvs is None else mesh.emissive_uvs for mesh in meshes]
    material_ids = [
        mesh.material_ids + first for mesh, first in zip(meshes, first_materials[:-1], strict=True)
    ]
    return Surfaces(
        faces=faces,
        against_normals=against_normals,
        uvs=_join([mesh.uvs for mesh in meshes], (0, 2), np.float32),
        emissive_uvs=_join(emissive_uvs, (0, 2), np.float32),
        colors=_join([mesh.colors for mesh in meshes], (0, 4), np.float32),
        material_ids=_join(material_ids, (0,), np.int32),
        factors=np.array([m.base_color_factor for m in materials], np.float32).reshape(-1, 4),
        emissive_factors=np.array([m.emissive_factor for m in materials], np.float32).reshape(-1, 3),
        textures=np.array(
            [(index(m.base_color_texture), index(m.emissive_texture)) for m in materials], np.int64
        ).reshape(-1, 2),
        alpha_modes=np.array([ALPHA_MODES[m.alpha_mode] for m in materials], np.int64),
        alpha_cutoffs=np.array([m.alpha_cutoff for m in materials], np.float32),
        unlit=np.array([m.unlit for m in materials], bool),
        double_sided=np.array([m.double_sided for m in materials], bool),
        atlas=build_atlas(list(textures.values())),
    )


def _join(arrays: list[NDArray], empty: tuple[int, ...], dtype: type) -> NDArray:
    return np.concatenate([np.zeros(empty, dtype), *arrays]).astype(dtype, copy=False)
