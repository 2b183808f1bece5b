"""The kinds of records: their schemas, their keys, and reading and writing them.

Letters: T frames, L = 13 stored layers, H rows, W columns, P points, J = 21 joints, c channels and h×w cells
of a latent. Frames and layers of a clip have the same size, and cover the same crop of the camera's picture.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from render.camera import Crop
from render.scene import NUM_POINTS, STORED_LAYERS, Mesh
from render.skeleton import KEYPOINTS
from storage.digests import digest_arrays
from storage.recipe import Recipe
from storage.store import Store

_SIZES = {"K": len(KEYPOINTS), "L": len(STORED_LAYERS), "J": 21, "P": NUM_POINTS}


@dataclass(frozen=True)
class _RecordData:
    """A record in memory: the fields named in SCHEMA are its arrays, the others its attributes."""

    KIND: ClassVar[str]
    VERSION: ClassVar[int]
    SCHEMA: ClassVar[Mapping[str, tuple[str, str]]]  # name → dtype, shape in letters and numbers

    def write(self, store: Store, recipe: Recipe) -> None:
        """Write the record under its recipe's key; does nothing where it exists already."""
        assert recipe.kind == self.KIND
        arrays = {name: getattr(self, name) for name in self.SCHEMA}
        self._check(arrays)
        attrs = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.SCHEMA}
        store.write(recipe, arrays, attrs)

    @classmethod
    def read(cls, store: Store, key: str) -> Self:
        """Read a whole record."""
        record = store.open(cls.KIND, key)
        return cls(**record.attrs, **{name: record.read(name) for name in cls.SCHEMA})

    def _check(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Raise ValueError where an array is not as the schema says."""
        sizes: dict[str, int] = dict(_SIZES)
        for name, (dtype, letters) in self.SCHEMA.items():
            array, axes = arrays[name], letters.split()
            wanted = tuple(
                int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
                for axis, size in zip(axes, array.shape, strict=False)
            )
            if array.dtype != np.dtype(dtype) or len(array.shape) != len(axes) or array.shape != wanted:
                raise ValueError(
                    f"{self.KIND} record: {name} is {array.dtype} {array.shape}, wanted {dtype} [{letters}]"
                    f" with {sizes}"
                )


@dataclass(frozen=True)
class ObjectData(_RecordData):
    """An object's references: six views and a point cloud, in its canonical frame."""

    KIND = "object"
    VERSION = 2
    SCHEMA: ClassVar = {"views": ("u1", "6 H W 4"), "points": ("f4", "P 3"), "centre": ("f8", "3")}

    views: NDArray[np.uint8]  # [6, H, W, 4] sRGB, straight alpha: front, back, left, right, top, bottom
    points: NDArray[np.float32]  # [P, 3]
    centre: NDArray[np.float64]  # [3] metres: the canonical origin in the mesh's own frame
    scale_m: float  # radius of the bounding sphere: one unit of the canonical frame
    name: str
    provenance: dict[str, str] = field(default_factory=dict)  # source, licence, author, uid


@dataclass(frozen=True)
class LayersData(_RecordData):
    """A clip's multi-layer occlusion conditions seen by one cropped camera, with the motion they show."""

    KIND = "layers"
    VERSION = 2
    SCHEMA: ClassVar = {
        "normals": ("u1", "T L H W 3"),
        "depth": ("u2", "T L H W"),
        "joints_2d": ("f4", "T 2 J 2"),
        "joints_3d": ("f4", "T 2 J 3"),
        "world_from_object": ("f4", "T 4 4"),
        "intrinsics": ("f8", "3 3"),
        "camera_from_world": ("f8", "4 4"),
    }

    normals: NDArray[np.uint8]  # [T, L, H, W, 3] codes of render.mlo
    depth: NDArray[np.uint16]  # [T, L, H, W] codes of render.mlo
    joints_2d: NDArray[np.float32]  # [T, 2, J, 2] pixels, left then right hand; nan where invalid
    joints_3d: NDArray[np.float32]  # [T, 2, J, 3] metres, camera frame; nan where invalid
    world_from_object: NDArray[np.float32]  # [T, 4, 4] of the first object; nan where invalid
    intrinsics: NDArray[np.float64]  # [3, 3] pixels of the crop
    camera_from_world: NDArray[np.float64]  # [4, 4]
    near_m: float
    far_m: float


@dataclass(frozen=True)
class FramesData(_RecordData):
    """A clip's pictures seen by one cropped camera."""

    KIND = "frames"
    VERSION = 2
    SCHEMA: ClassVar = {"rgb": ("u1", "T H W 3"), "background": ("u1", "H W 3")}

    rgb: NDArray[np.uint8]  # [T, H, W, 3] sRGB
    background: NDArray[np.uint8]  # [H, W, 3] the clean plate; zeros where there is none
    has_plate: bool


@dataclass(frozen=True)
class LatentsData(_RecordData):
    """A clip's pictures as a model's codec encodes them."""

    KIND = "latents"
    VERSION = 1
    SCHEMA: ClassVar = {"latents": ("f4", "T c h w")}

    latents: NDArray[np.float32]  # [T, c, h, w]


@dataclass(frozen=True)
class SkeletonData(_RecordData):
    """A person's keypoints, COCO's seventeen, as a clip's pictures show them."""

    KIND = "skeleton"
    VERSION = 1
    SCHEMA: ClassVar = {"keypoints": ("f4", "T K 3")}

    keypoints: NDArray[np.float32]  # [T, K, 3] column, row, confidence; pixels of the crop


def object_recipe(
    mesh: str,
    name: str,
    provenance: Mapping[str, str],
    config: BaseModel,
    off_centre: tuple[int, ...] = (0, 0, 0),
) -> Recipe:
    """Return the recipe of an object record from its mesh file's digest and the six views' config.

    Name and provenance count, because the record holds them: equal files under two licences are two records.
    So does where the mesh's middle is in the frame that it moves in: a session's is the file's own, objects
    that move at random are centred.
    """
    settings = {**config.model_dump(mode="json"), "origin": {"name": name, **provenance}}
    if any(off_centre):
        settings["off_centre"] = list(off_centre)
    return Recipe(ObjectData.KIND, ObjectData.VERSION, {"mesh": mesh}, settings)


def layers_recipe(
    digests: Mapping[str, str], camera: str, hand_model: str, crop: Crop, config: BaseModel
) -> Recipe:
    """Return the recipe of a layers record from a clip's part digests (of its camera, hands and objects).

    Of an object it takes the geometry and the motion: layers show no colours. Which is the first counts too,
    because the record holds its motion: `digests` has them in their order.
    """
    inputs = {"camera": digests[f"cameras/{camera}"], **_motion(digests, "geometry")}
    if "hands" in digests:
        inputs["hand_model"] = hand_model
    settings = {**config.model_dump(mode="json"), "crop": asdict(crop)}
    moving = [part for part in digests if part.endswith("/motion")]
    if len(moving) > 1:
        settings["first_object"] = moving[0].split("/")[1]
    return Recipe(LayersData.KIND, LayersData.VERSION, inputs, settings)


def frames_recipe(digests: Mapping[str, str], camera: str, crop: Crop, size: int) -> Recipe:
    """Return the recipe of a frames record that is decoded from a clip's video."""
    parts = {"video": f"videos/{camera}", "background": f"backgrounds/{camera}"}
    inputs = {name: digests[part] for name, part in parts.items() if part in digests}
    return Recipe(FramesData.KIND, FramesData.VERSION, inputs, {"crop": asdict(crop), "size": size})


def skeleton_recipe(digests: Mapping[str, str], camera: str, crop: Crop, size: int) -> Recipe:
    """Return the recipe of a skeleton record that is moved into a crop of the camera's picture."""
    inputs = {"skeleton": digests[f"skeletons/{camera}"]}
    settings = {"crop": asdict(crop), "size": size}
    return Recipe(SkeletonData.KIND, SkeletonData.VERSION, inputs, settings)


def rendered_frames_recipe(digests: Mapping[str, str], camera: str, config: BaseModel) -> Recipe:
    """Return the recipe of a frames record that is rendered from a clip's scene."""
    inputs = {"camera": digests[f"cameras/{camera}"], **_motion(digests, "mesh")}
    return Recipe(FramesData.KIND, FramesData.VERSION, inputs, config.model_dump(mode="json"))


def latents_recipe(frames_key: str, codec: str, device: str) -> Recipe:
    """Return the recipe of a latents record from its frames' key and the codec's digest.

    device: the kind of processor, whose rounding shows.
    """
    return Recipe(
        LatentsData.KIND, LatentsData.VERSION, {"frames": frames_key, "codec": codec}, {"device": device}
    )


def digest_geometry(mesh: Mesh) -> str:
    """Return the sha256 of what layers show of a mesh: its surface, without colours."""
    return digest_arrays({"vertices": mesh.vertices, "faces": mesh.faces, "normals": mesh.normals})


def _motion(digests: Mapping[str, str], shape: str) -> dict[str, str]:
    """Return the digests of what moves: hands, and each object's motion and `shape` (mesh or geometry)."""
    wanted = {shape, "motion"}
    objects = {part for part in digests if part.startswith("objects/") and part.rpartition("/")[2] in wanted}
    return {part: digests[part] for part in digests if part == "hands" or part in objects}
