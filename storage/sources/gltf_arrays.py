"""The attributes and triangles of a glTF primitive, decompressed (KHR_draco_mesh_compression) where need be.

Letters: V vertices, F triangles.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import DracoPy
import numpy as np
from numpy.typing import NDArray
from trimesh.util import triangle_strips_to_faces

from storage.errors import InputError
from storage.sources.gltf import Gltf

_DRACO = "KHR_draco_mesh_compression"
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


@dataclass
class PrimitiveArrays:
    """One primitive of a file; what is compressed is decompressed once."""

    gltf: Gltf
    tree: dict[str, Any]

    @property
    def has_triangles(self) -> bool:
        """Whether it is made of triangles, not of points or lines."""
        return self.tree.get("mode", _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN)

    def names(self, prefix: str) -> list[str]:
        """Return the names of its attributes that start with `prefix`."""
        return [name for name in self.tree["attributes"] if name.startswith(prefix)]

    def attribute(self, name: str) -> NDArray[Any]:
        """Return an attribute's values [V, columns]."""
        index = self.tree["attributes"][name]
        if name not in self._draco_ids:
            return self.gltf.accessor(index)
        accessor = self.gltf.tree["accessors"][index]
        values = self._draco.get_attribute_by_unique_id(self._draco_ids[name])["data"]
        if len(values) != accessor["count"]:
            self._fail(f"{name}: found {len(values)} values, wanted {accessor['count']}")
        return self.gltf.unpacked(values.reshape(len(values), -1), accessor)

    def target(self, number: int, name: str) -> NDArray[Any] | None:
        """Return a morph target's displacements [V, 3] of an attribute; None where it leaves it alone."""
        targets = self.tree.get("targets", [])
        if number >= len(targets) or name not in targets[number]:
            return None
        return self.gltf.accessor(targets[number][name])

    def faces(self) -> NDArray[np.int64]:
        """Return vertex indices [F, 3] of triangles, whatever mode they are stored in."""
        num_vertices = self.gltf.count(self.tree["attributes"]["POSITION"])
        if self._draco_ids:
            indices, mode = self._draco.faces.reshape(-1).astype(np.int64), _TRIANGLES
        else:
            mode = self.tree.get("mode", _TRIANGLES)
            indices = (
                self.gltf.accessor(self.tree["indices"])[:, 0].astype(np.int64)
                if "indices" in self.tree
                else np.arange(num_vertices)
            )
        if len(indices) and indices.max() >= num_vertices:
            found, wanted = f"index {indices.max()}", f"below {num_vertices}"
            raise InputError.mismatch(
                self.gltf.path, "indices", found=found, wanted=wanted, code="index-range"
            )
        return _triangles(indices, mode)

    @cached_property
    def _draco_ids(self) -> dict[str, int]:
        """Return the attributes that are in the Draco bitstream, and their numbers there."""
        return dict(self.tree.get("extensions", {}).get(_DRACO, {}).get("attributes", {}))

    @cached_property
    def _draco(self) -> DracoPy.DracoMesh:
        data = self.gltf.view(self.tree["extensions"][_DRACO]["bufferView"])
        try:
            mesh = DracoPy.decode(data)
        except (DracoPy.FileTypeException, RuntimeError, ValueError) as error:
            raise InputError(f"{self.gltf.path}: {_DRACO}: {error}", code="draco") from error
        if not isinstance(mesh, DracoPy.DracoMesh):
            self._fail("a point cloud in a primitive of triangles")
        return mesh

    def _fail(self, reason: str) -> None:
        raise InputError(f"{self.gltf.path}: {_DRACO}: {reason}", code="draco")


def _triangles(indices: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    if len(indices) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == _STRIP:
        return triangle_strips_to_faces([indices])
    if mode == _FAN:
        return np.stack([np.full(len(indices) - 2, indices[0]), indices[1:-1], indices[2:]], axis=1)
    return indices[: len(indices) // 3 * 3].reshape(-1, 3)
