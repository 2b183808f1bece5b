"""Videos of a synthetic person with keypoints beside them, which `ingest` reads as it reads any human video.

A person gestures behind a table. The motion of a capture session gets a person of its own, whose arms end
where the hands begin: a picture and keypoints, O_B and S of human-centred generation (Sec. 4.4), and the true
video.
Letters: T frames.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from scipy.ndimage import gaussian_filter1d

from flows.batches import map_items
from flows.sources import load_hands
from flows.stamps import changes, remove_stamp, write_stamp
from render.frames import FramesConfig, render_frames
from render.grasp import wrist_rotation
from render.hands.skin import skin_colors
from render.person import STANDS_AT, body_bounds, body_joints, body_objects, person_keypoints
from render.rig import RELAXED, Rig
from render.scene import SIDES, Clip, HandMotion, ObjectMotion
from render.stage import Room, place_camera, random_lighting
from render.trajectories import seed_generator
from render.transforms import rigid
from storage.errors import InputError
from storage.sources.human_video import CAMERA, keypoints_file
from storage.sources.session import SessionFolder
from storage.sources.session_writer import write_session
from storage.video import write_video

STAMP = "people.json"
GESTURE_FRAMES = 8  # standard deviation of the smoothing of a gesture


class PeopleConfig(BaseModel, frozen=True, extra="forbid"):
    """Videos of synthetic persons."""

    videos: int = Field(default=6, ge=1)
    """Number of videos; each has a person, clothes and a room of its own."""
    num_frames: int = Field(default=48, ge=1)
    """Frames of each."""
    fps: float = Field(default=24.0, gt=0)
    """Frames a second."""
    width: int = Field(default=192, ge=16)
    """Columns, pixels."""
    height: int = Field(default=144, ge=16)
    """Rows, pixels."""
    seed: int = 0
    """Seeds everything."""
    mano: Path | None = None
    """Folder of MANO_LEFT.pkl and MANO_RIGHT.pkl; null: the procedural hand."""
    frames: FramesConfig = FramesConfig()
    """Drawing; each video has its own light."""


def write_people(config: PeopleConfig, folder: Path) -> list[Path]:
    """Write videos and keypoints below a folder, unless they are there; return the videos."""
    inputs = config.model_dump(mode="json")
    paths = [folder / f"person-{config.seed}-{number}.mp4" for number in range(config.videos)]
    if not changes(folder / STAMP, inputs) and all(path.is_file() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    remove_stamp(folder / STAMP)
    map_items(lambda path: _write_person(path, config), paths, workers=2, description="people")
    write_stamp(folder / STAMP, inputs)
    return paths


def write_scene(session: Path, config: PeopleConfig, folder: Path) -> tuple[Path, Path]:
    """Write a session as a camera sees it that has the whole person in its picture; return it and keypoints.

    Its plate is the person whose arms end where the hands begin in the first frame, O_B; its video is the
    truth, in which the arms go with the hands.
    """
    clip, hands = SessionFolder(session).load(), load_hands(config.mano).models
    if set(clip.hands) != set(SIDES):
        raise InputError(f"{session}: hands: found {sorted(clip.hands)}, wanted both", code="config")
    wrists: dict[str, NDArray[np.float64]] = {
        side: hands[side](clip.hands[side]).joints[:, 0].astype(np.float64) for side in SIDES
    }
    joints = body_joints(wrists, np.zeros(clip.num_frames))
    places = [thing.world_from_object[thing.valid, :3, 3] for thing in clip.objects]
    drawn = f"{config.seed}:{clip.id}"  # the same clothes in the picture and in the video
    size = (config.height, config.height)  # the middle of a person's video
    camera = place_camera(np.concatenate([body_bounds(joints), *places]), 0.0, size, seed_generator(drawn))
    skin = {
        side: skin_colors(hand, seed_generator(f"skin:{clip.participant}")) for side, hand in hands.items()
    }

    def body(at: slice) -> tuple[ObjectMotion, ...]:
        tone = skin["right"].mean(axis=0)
        return body_objects({name: j[at] for name, j in joints.items()}, tone, seed_generator(drawn))

    room = Room(seed_generator(drawn)).background(camera)
    alone = Clip(clip.id, clip.fps, 1, {CAMERA: camera}, {}, body(slice(1)))
    (picture,) = render_frames(alone, camera, {}, config.frames, room)
    seen = replace(clip, cameras={CAMERA: camera}, videos={}, backgrounds={CAMERA: picture})
    acting = replace(seen, objects=(*clip.objects, *body(slice(None))))
    frames = render_frames(acting, camera, hands, config.frames, room, skin)
    scene, keypoints = folder / "scene", folder / "scene.keypoints.json"
    shutil.rmtree(scene, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_session(scene, seen, {CAMERA: frames})
    write_keypoints(keypoints, person_keypoints(joints, camera))
    return scene, keypoints


def write_keypoints(path: Path, keypoints: NDArray[np.float32]) -> None:
    """Write keypoints [T, 17, 3] as `human_video` reads them."""
    values = {"format": "coco17", "keypoints": keypoints.round(3).tolist()}
    path.write_text(json.dumps(values) + "\n", encoding="utf-8")


def gesture(num_frames: int, rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Return wrists [T, 3] by side that wander before the chest."""
    rest = STANDS_AT + np.array([0.0, 0.28, 0.30])
    aside = {"left": 0.17, "right": -0.17}
    return {side: rest + [aside[side], 0, 0] + 0.08 * _wander(num_frames, rng) for side in SIDES}


def _wander(num_frames: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a smooth random walk [T, 3] of about unit size."""
    steps = rng.normal(size=(num_frames + 8 * GESTURE_FRAMES, 3))
    smooth = gaussian_filter1d(steps, GESTURE_FRAMES, axis=0)[4 * GESTURE_FRAMES :][:num_frames]
    return smooth * np.sqrt(2 * GESTURE_FRAMES * np.sqrt(np.pi))  # the filter's loss of spread


def _write_person(path: Path, config: PeopleConfig) -> None:
    """Write one video and its keypoints."""
    rng, hands = seed_generator(path.stem), load_hands(config.mano).models
    joints = body_joints(gesture(config.num_frames, rng), 0.04 * _wander(config.num_frames, rng)[:, 0])
    camera = place_camera(body_bounds(joints), 0.0, (config.width, config.height), rng)
    motions: dict[str, HandMotion] = {
        side: _hand_motion(Rig(hands[side], np.zeros(10)), joints) for side in SIDES
    }
    skin = {side: skin_colors(hand, seed_generator(f"skin:{path.stem}")) for side, hand in hands.items()}
    body = body_objects(joints, skin["right"].mean(axis=0), rng)
    clip = Clip(path.stem, config.fps, config.num_frames, {CAMERA: camera}, motions, body)
    drawing = config.frames.model_copy(update={"lighting": random_lighting(rng)})
    frames = render_frames(clip, camera, hands, drawing, Room(rng).background(camera), skin)
    write_keypoints(keypoints_file(path), person_keypoints(joints, camera))
    write_video(path, frames, config.fps)


def _hand_motion(rig: Rig, joints: Mapping[str, NDArray[np.float64]]) -> HandMotion:
    """Return a loose hand that goes on from its forearm, palm down."""
    wrist = joints[f"{rig.side}_wrist"]
    forward = wrist - joints[f"{rig.side}_elbow"]
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    palm = np.cross(
        forward, [1.0, 0.0, 0.0]
    )  # at right angles to the forearm, and down where it points ahead
    palm *= np.where(palm[:, 1:2] > 0, -1, 1) / np.linalg.norm(palm, axis=-1, keepdims=True)
    turned = wrist_rotation(rig, palm, forward)
    return rig.motion(np.tile(RELAXED, (len(wrist), 1, 1)), rigid(turned, wrist))
