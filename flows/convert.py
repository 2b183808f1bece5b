"""Converting motion that was recorded elsewhere to capture sessions, with cameras and videos of our own.

The motion is put on the synthetic stage (`render.stage`): on a table, +Y up, the person at -Z; cameras stand
on an arc before it, and videos are rendered.  What comes out is an ordinary session for `manivideo ingest`.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from flows.batches import map_items
from flows.outcome import set_aside
from flows.sources import Hands, load_hands
from flows.synthesize import Synthesized, is_current, join, put_session
from render.frames import FramesConfig, render_frames
from render.hands.skin import skin_colors
from render.scene import Clip, HandMotion, ObjectMotion
from render.stage import Room, place_camera, random_lighting
from render.trajectories import seed_generator
from render.transforms import rigid, transform
from storage.digests import digest_file, digest_tree
from storage.errors import InputError
from storage.sources import graspxl, hot3d, taco
from storage.sources.hand_parameters import HandArrays, move_hand, rest_wrist

Format = Literal["taco", "hot3d", "graspxl"]
UP: Mapping[Format, tuple[float, float, float]] = {"taco": taco.UP, "hot3d": hot3d.UP, "graspxl": graspxl.UP}


class ConvertConfig(BaseModel, frozen=True, extra="forbid"):
    """How recorded motion is shown."""

    library: Path | None = None
    """Folder of the objects' meshes, <uid>.glb; HOT3D keeps them apart from its recordings."""
    mano: Path | None = None
    """Folder of MANO_LEFT.pkl and MANO_RIGHT.pkl; null: the procedural hand, which only resembles them."""
    stride: int = Field(default=1, ge=1)
    """Every so many-th frame is kept."""
    num_cameras: int = Field(default=3, ge=1)
    """Cameras on the arc."""
    camera_arc_deg: float = Field(default=90.0, ge=0, lt=360)
    """From the first camera to the last, degrees about the vertical."""
    width: int = Field(default=256, gt=0, multiple_of=2)
    """Columns of every camera, pixels; all is in the picture, and ingest crops squares."""
    height: int = Field(default=256, gt=0, multiple_of=2)
    """Rows of every camera, pixels."""
    seed: int = 0
    """Of cameras, room, light and skin."""
    frames: FramesConfig = FramesConfig()
    """Drawing of the videos; each session has its own light."""
    workers: int = Field(default=2, ge=1)
    """Recordings in work at the same time."""


def convert_recordings(
    kind: Format, recordings: list[Path], config: ConvertConfig, out_dir: Path
) -> Synthesized:
    """Write recordings as sessions below `out_dir`; one that cannot be read is set aside."""
    hands = load_hands(config.mano)

    def convert(path: Path) -> Synthesized:
        try:
            return convert_recording(kind, path, out_dir, hands, config)
        except ValueError as error:
            return Synthesized(quarantined=set_aside(path.name, error).quarantined)

    return join(map_items(convert, recordings, workers=config.workers, description="recordings"))


def convert_recording(
    kind: Format, path: Path, out_dir: Path, hands: Hands, config: ConvertConfig
) -> Synthesized:
    """Write one recording as a session below `out_dir`, unless it is there already. Raises InputError."""
    motion = read_recording(kind, path, hands, config)
    folder = out_dir / motion.id
    inputs = {
        "recording": digest_tree(path) if path.is_dir() else digest_file(path),
        "objects": [moving.digest for moving in motion.objects],
        "hand_model": hands.digest,
        "settings": config.model_dump(mode="json", exclude={"library", "mano", "workers"}),
    }
    if is_current(folder, inputs):
        return Synthesized((folder,))
    rng = seed_generator(f"{config.seed}:{motion.id}")
    clip = on_stage(subsampled(motion, config.stride), UP[kind], hands.arrays)
    clip = before_cameras(clip, hands, rng, config)
    frames = config.frames.model_copy(update={"lighting": random_lighting(rng)})
    skin = {side: skin_colors(hand, rng) for side, hand in hands.models.items()}
    videos = {
        name: render_frames(clip, camera, hands.models, frames, clip.backgrounds[name], skin)
        for name, camera in clip.cameras.items()
    }
    put_session(folder, clip, videos, inputs)
    return Synthesized((folder,), (folder,))


def before_cameras(clip: Clip, hands: Hands, rng: np.random.Generator, config: ConvertConfig) -> Clip:
    """Put cameras on an arc before a clip on the stage, and see the empty room with them."""
    points = np.concatenate(_points(clip, hands)).astype(np.float64)
    half = config.camera_arc_deg / 2
    azimuths = np.linspace(-half, half, config.num_cameras) if config.num_cameras > 1 else np.zeros(1)
    size = (config.width, config.height)
    cameras = {f"camera{i}": place_camera(points, float(a), size, rng) for i, a in enumerate(azimuths)}
    room = Room(rng)
    backgrounds = {name: room.background(camera) for name, camera in cameras.items()}
    return replace(clip, cameras=cameras, backgrounds=backgrounds)


def read_recording(kind: Format, path: Path, hands: Hands, config: ConvertConfig) -> Clip:
    """Read a recording as a clip without cameras, in its own world."""
    keep_shape = config.mano is not None  # shapes are MANO's own, the procedural hand has others
    if kind == "taco":
        return taco.read_taco(path, hands.arrays, keep_shape=keep_shape)
    if kind == "graspxl":
        return graspxl.read_graspxl(path, hands.arrays)
    if config.library is None:
        raise InputError("HOT3D keeps meshes in a library of their own: wanted --library DIR", code="config")
    return hot3d.read_hot3d(path, config.library, hands.arrays, keep_shape=keep_shape)


def subsampled(clip: Clip, stride: int) -> Clip:
    """Keep every `stride`-th frame."""
    kept = slice(None, None, stride)
    hands = {
        side: HandMotion(hand.pose[kept], hand.shape, hand.translation[kept], hand.valid[kept])
        for side, hand in clip.hands.items()
    }
    objects = tuple(
        replace(moving, world_from_object=moving.world_from_object[kept], valid=moving.valid[kept])
        for moving in clip.objects
    )
    count = len(range(0, clip.num_frames, stride))
    return replace(clip, fps=clip.fps / stride, num_frames=count, hands=hands, objects=objects)


def on_stage(clip: Clip, up: tuple[float, float, float], hands: Mapping[str, HandArrays]) -> Clip:
    """Turn a clip upright and put it on the table: objects rest at y = 0, wrists are on the -Z side."""
    stage_from_world = _stage_from_world(clip, np.array(up))
    moved_hands = {}
    for side, hand in clip.hands.items():
        wrist = rest_wrist(hands[side], hand.shape)
        rotation, translation = move_hand(hand.pose[:, :3], hand.translation, wrist, stage_from_world)
        pose = np.concatenate([rotation, hand.pose[:, 3:]], axis=1).astype(np.float32)
        moved_hands[side] = replace(hand, pose=pose, translation=translation.astype(np.float32))
    objects = tuple(
        replace(o, world_from_object=(stage_from_world @ o.world_from_object).astype(np.float32))
        for o in clip.objects
    )
    return replace(clip, hands=moved_hands, objects=objects)


def _stage_from_world(clip: Clip, up: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the transform [4, 4] that puts a clip in its place on the stage."""
    centre = np.mean([_places(moving).mean(axis=0) for moving in clip.objects], axis=0)
    wrists = [hand.translation[hand.valid].mean(axis=0) for hand in clip.hands.values() if hand.valid.any()]
    towards = np.mean(wrists, axis=0) - centre if wrists else np.zeros(3)
    towards = towards - up * (towards @ up)
    if np.linalg.norm(towards) < 1e-6:  # no wrist, or straight above: any side will do
        towards = np.cross(up, np.roll(up, 1))
    front = -towards / np.linalg.norm(towards)  # +Z of the stage
    rotation = np.stack([np.cross(up, front), up, front])
    surfaces = [transform(_poses(moving), moving.mesh.vertices) @ up for moving in clip.objects]
    table = min(float(heights.min()) for heights in surfaces)
    origin = centre + up * (table - centre @ up)
    return rigid(rotation, -rotation @ origin)


def _poses(moving: ObjectMotion) -> NDArray[np.float32]:
    """Return the poses [T, 4, 4] of an object in the frames where it is valid."""
    if not moving.valid.any():
        raise InputError(f"object {moving.name} is in no frame", code="no-object")
    return moving.world_from_object[moving.valid]


def _places(moving: ObjectMotion) -> NDArray[np.float32]:
    """Return where the middle of an object's box is [T, 3]."""
    vertices = moving.mesh.vertices
    return transform(_poses(moving), ((vertices.min(axis=0) + vertices.max(axis=0)) / 2)[None])[:, 0]


def _points(clip: Clip, hands: Hands) -> list[NDArray[np.float32]]:
    """Return points [P, 3] on all that cameras have to see: hands, and the object that they handle."""
    first = clip.objects[0]
    low, high = first.mesh.vertices.min(axis=0), first.mesh.vertices.max(axis=0)
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))), np.float32)  # of its box
    points = [transform(_poses(first), corners).reshape(-1, 3)]
    for side, hand in clip.hands.items():
        points.append(hands.models[side](hand).vertices[hand.valid, ::3].reshape(-1, 3))
    return points
