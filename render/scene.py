"""Scene types: what every source yields and every renderer takes.

Letters: T frames, V vertices, F faces, J joints, H rows, W columns, P points.
Frames: world is right-handed with +Y up, in metres; a camera is OpenCV's (+x right, +y down, +z forward).
A transform is named `target_from_source` and is a 4×4 that multiplies column vectors.
Pixel coordinates are (column, row) with whole numbers at pixel centres, as in OpenCV; row 0 is the top.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")
NUM_POINTS = 2048  # P of Eq. 4 (paper, Sec. 3.1.2)


class Layer(IntEnum):
    """The seven layers of the multi-layer occlusion structure (paper, Sec. 3.1.1), in the model's order."""

    OBJECT = 0
    PALM = 1
    THUMB = 2
    INDEX = 3
    MIDDLE = 4
    RING = 5
    LITTLE = 6


HAND_LAYERS = tuple(layer for layer in Layer if layer is not Layer.OBJECT)

# Storage keeps both hands apart: object, six layers of the left hand, six of the right.
STORED_LAYERS: tuple[str, ...] = (
    "object",
    *(f"{side}_{layer.name.lower()}" for side in SIDES for layer in HAND_LAYERS),
)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera that does not move during a clip."""

    width: int
    height: int
    intrinsics: NDArray[np.float64]  # [3, 3] pixels
    camera_from_world: NDArray[np.float64]  # [4, 4] metres
    distortion: NDArray[np.float64] | None = None  # OpenCV order (k1, k2, p1, p2[, k3…]); None: none


@dataclass(frozen=True)
class Texture:
    """One glTF texture with its sampler."""

    pixels: NDArray[np.uint8]  # [H, W, 4] sRGB colour, linear alpha; row 0 is v = 0
    wrap: tuple[str, str] = ("repeat", "repeat")  # along u and v: repeat, clamp or mirror
    nearest: bool = False  # magnification filter: nearest instead of linear


@dataclass(frozen=True)
class Material:
    """The part of a glTF material that decides its colour."""

    name: str = ""
    base_color_factor: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)  # linear
    base_color_texture: Texture | None = None
    emissive_factor: tuple[float, float, float] = (0.0, 0.0, 0.0)  # linear
    emissive_texture: Texture | None = None
    alpha_mode: Literal["opaque", "mask", "blend"] = "opaque"
    alpha_cutoff: float = 0.5
    double_sided: bool = True
    unlit: bool = False


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh with one material a face; everything is in the mesh's own frame, in metres."""

    vertices: NDArray[np.float32]  # [V, 3]
    faces: NDArray[np.int32]  # [F, 3]
    normals: NDArray[np.float32]  # [V, 3] unit, as authored, else computed
    uvs: NDArray[np.float32]  # [V, 2] glTF: v = 0 is the picture's top row; zeros where there are none
    colors: NDArray[np.float32]  # [V, 4] linear factor; ones where there are none
    material_ids: NDArray[np.int32]  # [F] index into materials
    materials: tuple[Material, ...]
    emissive_uvs: NDArray[np.float32] | None = None  # [V, 2] where they differ from uvs


@dataclass(frozen=True)
class HandMotion:
    """One hand's MANO parameters over a clip."""

    pose: NDArray[np.float32]  # [T, 48] axis-angle in radians: global 3, then 15 joints (no mean pose added)
    shape: NDArray[np.float32]  # [10]
    translation: NDArray[np.float32]  # [T, 3] metres, added after rotating about the wrist (smplx)
    valid: NDArray[np.bool_]  # [T]


@dataclass(frozen=True)
class ObjectMotion:
    """One object's mesh and motion over a clip."""

    name: str
    mesh: Mesh
    world_from_object: NDArray[np.float32]  # [T, 4, 4] rigid
    valid: NDArray[np.bool_]  # [T]
    digest: str  # sha256 of the mesh's own bytes: names the object wherever it is used
    provenance: Mapping[str, str] = field(default_factory=dict)  # source, licence, author, uid


class Video(Protocol):
    """Frames that are read when asked for."""

    @property
    def num_frames(self) -> int: ...

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every frame, [H, W, 3] sRGB."""
        ...


@dataclass(frozen=True)
class Clip:
    """Hands and objects in motion, seen by one or several cameras; what is absent is empty or None."""

    id: str
    fps: float
    num_frames: int
    cameras: Mapping[str, Camera]
    hands: Mapping[str, HandMotion]  # by side; empty: no hands (object-only data)
    objects: tuple[ObjectMotion, ...]  # all of them make the object layer; the first gives the references
    videos: Mapping[str, Video] = field(default_factory=dict)  # by camera
    backgrounds: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)  # [H, W, 3] plate
    skeletons: Mapping[str, NDArray[np.float32]] = field(
        default_factory=dict
    )  # by camera: [T, 17, 3], COCO's
    participant: str = ""
    split: str | None = None  # a split that the source itself fixes, else None
    camera_splits: Mapping[str, str] = field(default_factory=dict)  # by camera, where it fixes those
