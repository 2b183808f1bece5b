"""DexYCB sequences, read as the data set is distributed (Chao et al., CVPR 2021).

    <root>/<date>-subject-NN/<sequence>/
      meta.yml      serials, num_frames, extrinsics, mano_calib, mano_sides, ycb_ids, ycb_grasp_ind
      pose.npz      pose_y [T, O, 7] quaternion xyzw and metres, pose_m [T, N, 51]
      <serial>/color_%06d.jpg
    <root>/calibration/intrinsics/<serial>_640x480.yml, extrinsics_<id>/extrinsics.yml, mano_<name>/mano.yml
    <root>/models/<ycb>/textured_simple.obj

Letters: T frames, O objects, N hands (one), C = 45 components.  The data set's world is its master camera's
frame; here it is upright: origin and x axis of the tag on the table, +Y from the table towards the cameras.
pose_m is a global rotation (axis-angle), C coefficients of MANO's own components about its mean pose, and a
translation; they were fitted with the published left hand (see `storage.mano`).
Only the object that is grasped moves; the others are part of the background.
"""

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError
from scipy.spatial.transform import Rotation

from render.scene import Camera, Clip, HandMotion, ObjectMotion
from render.transforms import invert_rigid, rigid
from storage.digests import digest_arrays, digest_json
from storage.errors import InputError, one_line
from storage.pictures import PictureSequence
from storage.sources.arrays import read_arrays, wanted_array
from storage.sources.dexycb_splits import Setup, official_split
from storage.sources.hand_parameters import HandArrays, move_hand, pose_from_components, rest_wrist
from storage.sources.obj import digest_obj, load_obj
from storage.sources.session import check_name

logger = logging.getLogger(__name__)

FPS = 30.0
WIDTH, HEIGHT = 640, 480
LICENCE = "CC-BY-NC-4.0"
TAG = "apriltag"
# Of ids 1 to 21.
YCB_CLASSES = (
    "002_master_chef_can",
    "003_cracker_box",
    "004_sugar_box",
    "005_tomato_soup_can",
    "006_mustard_bottle",
    "007_tuna_fish_can",
    "008_pudding_box",
    "009_gelatin_box",
    "010_potted_meat_can",
    "011_banana",
    "019_pitcher_base",
    "021_bleach_cleanser",
    "024_bowl",
    "025_mug",
    "035_power_drill",
    "036_wood_block",
    "037_scissors",
    "040_large_marker",
    "051_large_clamp",
    "052_extra_large_clamp",
    "061_foam_brick",
)


class _Loader(yaml.SafeLoader):
    """YAML without objects, but for the tuples that DexYCB's calibration is tagged with."""


def _read_tuple(loader: _Loader, node: yaml.SequenceNode) -> tuple[Any, ...]:
    return tuple(loader.construct_sequence(node))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _read_tuple)


class _Meta(BaseModel, frozen=True):
    """The part of meta.yml that is used."""

    serials: list[str]
    num_frames: int = Field(gt=0)
    extrinsics: str
    mano_calib: list[str] = Field(min_length=1)
    mano_sides: list[Literal["left", "right"]] = Field(min_length=1)
    ycb_ids: list[int] = Field(min_length=1)
    ycb_grasp_ind: int = Field(ge=0)


def find_sequences(root: Path) -> list[Path]:
    """Return the sequences of a copy of the data set, sorted; none where the folder is something else."""
    if not (root / "calibration").is_dir():
        return []
    return sorted(meta.parent for meta in root.glob("*/*/meta.yml"))


def sequence_id(path: Path) -> str:
    """Return the name of a sequence: its subject and its time."""
    path = path.resolve()
    return f"{path.parent.name}_{path.name}"


class DexYcbSequence:
    """One sequence, seen by the cameras whose folders are there."""

    def __init__(self, path: Path, hands: Mapping[str, HandArrays], setup: Setup | None = None) -> None:
        """Open a sequence; `setup` names the official split to use, None leaves it to the dataset."""
        self.setup = setup
        self.path = path.resolve()
        self.root = self.path.parents[1]
        self.id = sequence_id(path)
        self._mano = hands
        self._meta = self._read_meta()

    def load(self) -> Clip:
        """Read everything but the pictures, which are read when asked for."""
        side = self._meta.mano_sides[0]
        return Clip(
            id=self.id,
            fps=FPS,
            num_frames=self._meta.num_frames,
            cameras={serial: self._camera(serial) for serial in self._serials},
            hands={side: self._hand(self._mano[side])},
            objects=(self._object(),),
            videos={serial: self._video(serial) for serial in self._serials},
            participant=self.path.parent.name,
            camera_splits=self._splits(),
        )

    def digests(self) -> dict[str, str]:
        """Return the sha256 of each part, named as a capture session's."""
        upright = self._upright_from_world.tolist()
        parts = {
            f"cameras/{serial}": digest_json([self._intrinsics(serial), self._extrinsics[serial], upright])
            for serial in self._serials
        }
        pose_m, pose_y = self._poses
        hand = {f"{self._meta.mano_sides[0]}_pose_m": pose_m, "shape": self._shape}
        parts["hands"] = digest_arrays({**hand, "upright": np.array(upright)})
        name = self._object_name
        parts[f"objects/{name}/mesh"] = digest_obj(self._mesh_path)
        parts[f"objects/{name}/motion"] = digest_arrays({"pose_y": pose_y, "upright": np.array(upright)})
        return parts | {f"videos/{serial}": self._video(serial).digest() for serial in self._serials}

    def _read_meta(self) -> _Meta:
        file = self.path / "meta.yml"
        try:
            meta = _Meta.model_validate(_read_yaml(file))
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, d['loc']))}: {d['msg']}" for d in error.errors()]
            raise InputError(f"{file}: {'; '.join(problems)}", code="meta") from error
        for name in (*meta.serials, meta.extrinsics, *meta.mano_calib):
            check_name(name, file)  # each becomes a part of a path
        if meta.ycb_grasp_ind >= len(meta.ycb_ids):
            found, wanted = meta.ycb_grasp_ind, f"below {len(meta.ycb_ids)}, the number of ycb_ids"
            raise InputError.mismatch(file, "ycb_grasp_ind", found=found, wanted=wanted, code="meta")
        if not 1 <= meta.ycb_ids[meta.ycb_grasp_ind] <= len(YCB_CLASSES):
            found = meta.ycb_ids[meta.ycb_grasp_ind]
            raise InputError.mismatch(file, "ycb_ids", found=found, wanted="ids 1 to 21", code="meta")
        return meta

    @cached_property
    def _serials(self) -> list[str]:
        here = [serial for serial in self._meta.serials if (self.path / serial).is_dir()]
        if not here:
            raise InputError(f"{self.path}: no folder of any camera in meta.yml", code="no-cameras")
        if len(here) < len(self._meta.serials):
            logger.warning("%s: %d of %d cameras are here", self.path, len(here), len(self._meta.serials))
        return here

    @cached_property
    def _poses(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return pose_m [T, 51] of the hand and pose_y [T, 7] of the grasped object, as distributed."""
        file, meta = self.path / "pose.npz", self._meta
        arrays = read_arrays(file)
        pose_m = wanted_array(file, arrays, "pose_m", (meta.num_frames, len(meta.mano_sides), 51))
        pose_y = wanted_array(file, arrays, "pose_y", (meta.num_frames, len(meta.ycb_ids), 7))
        hand, thing = pose_m[:, 0].astype(np.float64), pose_y[:, meta.ycb_grasp_ind].astype(np.float64)
        if not (np.isfinite(hand).all() and np.isfinite(thing).all()):
            raise InputError(f"{file}: poses that are not finite", code="non-finite")
        return hand, thing

    @cached_property
    def _extrinsics(self) -> dict[str, Any]:
        """Return the world_from_camera of every camera, and of the tag on the table, as 12 numbers."""
        file = self.root / "calibration" / f"extrinsics_{self._meta.extrinsics}" / "extrinsics.yml"
        extrinsics = _read_yaml(file).get("extrinsics")
        extrinsics = extrinsics if isinstance(extrinsics, dict) else {}
        for name in (*self._meta.serials, TAG):
            if not _are_numbers(extrinsics.get(name), 12):
                found = extrinsics.get(name, "nothing")
                raise InputError.mismatch(
                    file, f"extrinsics.{name}", found=found, wanted="12 numbers", code="calibration"
                )
        return extrinsics

    @cached_property
    def _upright_from_world(self) -> NDArray[np.float64]:
        tag = _matrix(self._extrinsics[TAG])
        centres = [_matrix(self._extrinsics[serial])[:3, 3] for serial in self._meta.serials]
        to_cameras = np.mean(centres, axis=0) - tag[:3, 3]
        up = tag[:3, 2] * np.sign(tag[:3, 2] @ to_cameras)  # cameras look down on the table
        axes = np.stack([tag[:3, 0], up, np.cross(tag[:3, 0], up)], axis=1)
        return invert_rigid(rigid(axes, tag[:3, 3]))

    def _intrinsics(self, serial: str) -> dict[str, float]:
        """Return fx, fy, ppx and ppy of a colour camera."""
        file = self.root / "calibration" / "intrinsics" / f"{serial}_{WIDTH}x{HEIGHT}.yml"
        color = _read_yaml(file).get("color")
        keys = ("fx", "fy", "ppx", "ppy")
        values: list[Any] = [color.get(key) for key in keys] if isinstance(color, dict) else []
        if not _are_numbers(values, 4):
            raise InputError.mismatch(file, "color", found=color, wanted=", ".join(keys), code="calibration")
        return dict(zip(keys, values, strict=True))

    def _camera(self, serial: str) -> Camera:
        k = self._intrinsics(serial)
        intrinsics = np.array([[k["fx"], 0, k["ppx"]], [0, k["fy"], k["ppy"]], [0, 0, 1]], np.float64)
        upright_from_camera = self._upright_from_world @ _matrix(self._extrinsics[serial])
        return Camera(WIDTH, HEIGHT, intrinsics, invert_rigid(upright_from_camera))

    @cached_property
    def _shape(self) -> NDArray[np.float64]:
        file = self.root / "calibration" / f"mano_{self._meta.mano_calib[0]}" / "mano.yml"
        betas = _read_yaml(file).get("betas")
        if not _are_numbers(betas, 10):
            raise InputError.mismatch(file, "betas", found=betas, wanted="10 numbers", code="calibration")
        return np.array(betas, np.float64)

    def _hand(self, hand: HandArrays) -> HandMotion:
        pose_m, _ = self._poses
        valid = np.count_nonzero(pose_m, axis=1) > 0  # zeros: not annotated
        wrist = rest_wrist(hand, self._shape)
        rotation, translation = move_hand(pose_m[:, :3], pose_m[:, 48:], wrist, self._upright_from_world)
        pose = np.concatenate([rotation, pose_from_components(pose_m[:, 3:48], hand)], axis=1)
        return HandMotion(
            pose=np.where(valid[:, None], pose, 0).astype(np.float32),
            shape=self._shape.astype(np.float32),
            translation=np.where(valid[:, None], translation, 0).astype(np.float32),
            valid=valid,
        )

    def _object(self) -> ObjectMotion:
        _, pose_y = self._poses
        valid = np.count_nonzero(pose_y[:, 4:], axis=1) > 0  # no translation: not annotated
        quaternions = np.where(valid[:, None], pose_y[:, :4], (0, 0, 0, 1))
        if not np.linalg.norm(quaternions, axis=1).min() > 0:
            raise InputError(f"{self.path / 'pose.npz'}: pose_y: a quaternion of zeros", code="not-rigid")
        world_from_object = rigid(Rotation.from_quat(quaternions).as_matrix(), pose_y[:, 4:])
        return ObjectMotion(
            name=self._object_name,
            mesh=load_obj(self._mesh_path),
            world_from_object=(self._upright_from_world @ world_from_object).astype(np.float32),
            valid=valid,
            digest=digest_obj(self._mesh_path),
            provenance={"source": f"DexYCB, models/{self._object_name}", "licence": LICENCE},
        )

    @property
    def _object_name(self) -> str:
        return YCB_CLASSES[self._meta.ycb_ids[self._meta.ycb_grasp_ind] - 1]

    @property
    def _mesh_path(self) -> Path:
        return self.root / "models" / self._object_name / "textured_simple.obj"

    def _splits(self) -> dict[str, str]:
        if self.setup is None:
            return {}
        return {serial: official_split(self.setup, self.path, serial) for serial in self._serials}

    def _video(self, serial: str) -> PictureSequence:
        folder = self.path / serial
        files = tuple(folder / f"color_{frame:06d}.jpg" for frame in range(self._meta.num_frames))
        return PictureSequence(files, (WIDTH, HEIGHT))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}", code="missing-file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not plain YAML: {one_line(error)}", code="yaml") from error
    if not isinstance(values, dict):
        raise InputError.mismatch(path, "content", found=type(values).__name__, wanted="keys", code="yaml")
    return values


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list | tuple) or len(values) != count:
        return False
    return all(isinstance(value, int | float) and np.isfinite(value) for value in values)


def _matrix(numbers: list[float]) -> NDArray[np.float64]:
    """Return the transform [4, 4] of 12 numbers, its first three rows."""
    return np.vstack([np.reshape(numbers, (3, 4)), (0, 0, 0, 1)]).astype(np.float64)
