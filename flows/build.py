"""Building object-only data: each object moves at random before one camera (paper, Sec. 3.2).

An object gives three records: its six views and points, the layers of its motion, the rendered frames.
Letters: T frames.  Frames of reference: world (+Y up), the camera stands still at its origin's +Z side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from flows.batches import map_items
from flows.outcome import Outcome, Planned, plan, set_aside, total
from flows.records import layers_data, object_data
from flows.sources import ObjectSource, fetch_objects, procedural_folder
from render.camera import Crop
from render.frames import FramesConfig, render_frames
from render.layers import LayersConfig
from render.scene import Camera, Clip, Mesh, ObjectMotion
from render.six_views import SixViewConfig
from render.trajectories import TrajectoryConfig, random_trajectory, seed_generator
from render.transforms import look_at
from storage.digests import digest_json
from storage.manifest import ClipRow, assign_split, read_or_new
from storage.recipe import Recipe
from storage.records import (
    FramesData,
    layers_recipe,
    object_recipe,
    rendered_frames_recipe,
)
from storage.sources.glb import GlbFolder
from storage.sources.glb_limits import GlbLimits
from storage.sources.objaverse import Objaverse, ObjaverseConfig
from storage.store import Store

Kind = Literal["object", "layers", "frames"]
KINDS: tuple[Kind, ...] = ("object", "layers", "frames")
CAMERA = "main"
SESSION_PREFIX = "object:"


class BuildConfig(BaseModel, frozen=True, extra="forbid"):
    """Which objects to build, and how they move and are drawn."""

    objects: Path | None = None
    """Folder of .glb and .gltf files; null: objects of Objaverse, if any are named, else procedural ones."""
    objaverse: ObjaverseConfig | None = None
    """Objects of Objaverse, fetched as needed."""
    limits: GlbLimits = GlbLimits()
    """How large an object's file may be; larger ones are set aside."""
    procedural: int = Field(default=8, ge=1)
    """Number of procedural objects, where no others are asked for."""
    dataset: str = "objects"
    """Name of the dataset that the clips are written to; its object clips are replaced, others stay."""
    only: tuple[Kind, ...] = KINDS
    """Kinds of records to build; the dataset is written when all are."""
    seed: int = 0
    """Of procedural objects and random motion."""
    num_frames: int = Field(default=24, ge=1)
    """Length T of each clip."""
    fps: float = Field(default=24.0, gt=0)
    """Frames a second."""
    fov_deg: float = Field(default=40.0, gt=0, lt=180)
    """Field of view of the camera."""
    test_fraction: float = Field(default=0.1, ge=0, le=1)
    """Share of objects held out for testing, chosen by their names."""
    trajectory: TrajectoryConfig = TrajectoryConfig()
    """Random motion."""
    six_views: SixViewConfig = SixViewConfig()
    """The pictures O_I of the object."""
    layers: LayersConfig = LayersConfig()
    """Size and rendering of layers."""
    frames: FramesConfig = FramesConfig()
    """Light and background of the rendered frames."""
    vary_background: bool = True
    """Each object's frames have a background colour of their own, so that O_B must be looked at."""
    workers: int = Field(default=2, ge=1)
    """Objects in work at the same time."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.objects is not None and self.objaverse is not None:
            raise ValueError("wanted objects of a folder or of Objaverse, not both")
        return self


@dataclass(frozen=True)
class ObjectJob:
    """What building one object needs beside its name."""

    config: BuildConfig
    source: ObjectSource
    store: Store
    previous: Mapping[str, ClipRow]  # by session
    dry_run: bool


def open_source(config: BuildConfig, store: Store) -> ObjectSource:
    """Return the objects to build from."""
    if config.objaverse is not None:
        return Objaverse(config.objaverse, config.limits)
    folder = config.objects
    if folder is None:
        folder = procedural_folder(store.root.parent / "procedural", config.procedural, config.seed)
    return GlbFolder(folder, config.limits)


def build_objects(names: list[str], config: BuildConfig, store: Store, *, dry_run: bool) -> Outcome:
    """Build the missing records of some of the source's objects."""
    previous = {row.session: row for row in read_or_new(store, config.dataset).rows}
    job = ObjectJob(config, open_source(config, store), store, previous, dry_run)
    if not dry_run:
        fetch_objects(names, job.source)
    outcomes = map_items(
        lambda name: build_object(name, job), names, workers=config.workers, description="objects"
    )
    return total(outcomes)


def build_object(name: str, job: ObjectJob) -> Outcome:
    """Build what is missing of one object, or say why it cannot be."""
    session = SESSION_PREFIX + name.replace("/", "_")
    try:
        recipes = object_recipes(_digest(name, job), job.config)
        previous = _previous_keys(job.previous.get(session))
        planned = [
            plan(job.store, name, recipes[kind], previous.get(kind))
            for kind in KINDS
            if kind in job.config.only
        ]
        missing = [entry for entry in planned if entry.reason]
        if missing and not job.dry_run:
            write_missing(name, missing, job)
        return Outcome(rows=_rows(session, recipes, job), planned=tuple(planned))
    except ValueError as error:  # an InputError says what is wrong with the file, others what cannot be drawn
        return set_aside(session, error)


def _digest(name: str, job: ObjectJob) -> str:
    """Return the digest of an object's file; a dry run fetches none, and plans with the name instead."""
    if job.dry_run and isinstance(job.source, Objaverse) and not job.source.is_here(name):
        return digest_json(["not fetched", name])
    return job.source.digest(name)


def object_recipes(mesh: str, config: BuildConfig) -> dict[Kind, Recipe]:
    """Return the recipes of an object's records from its file's digest."""
    camera = build_camera(config)
    crop = Crop(0, 0, config.layers.size)
    motion = {
        "seed": config.seed,
        "num_frames": config.num_frames,
        "trajectory": config.trajectory.model_dump(mode="json"),
    }
    digests = {
        f"cameras/{CAMERA}": digest_json([camera.width, camera.intrinsics.tolist()]),
        "objects/object/mesh": mesh,
        "objects/object/motion": digest_json(motion),
    }
    return {
        "object": object_recipe(mesh, config.six_views),
        "layers": layers_recipe(digests, CAMERA, "", crop, config.layers),
        "frames": rendered_frames_recipe(digests, CAMERA, frames_config(mesh, config)),
    }


def frames_config(mesh: str, config: BuildConfig) -> FramesConfig:
    """Return how the frames of an object are drawn, from its file's digest."""
    if not config.vary_background:
        return config.frames
    red, green, blue = seed_generator(f"background:{config.seed}:{mesh}").integers(32, 224, 3).tolist()
    return config.frames.model_copy(update={"background": (red, green, blue)})


def build_camera(config: BuildConfig) -> Camera:
    """Return the camera: square, on the world's +Z axis, looking at its origin."""
    size = config.layers.size
    focal_px = size / (2 * np.tan(np.deg2rad(config.fov_deg) / 2))
    centre = (size - 1) / 2
    intrinsics = np.array([[focal_px, 0, centre], [0, focal_px, centre], [0, 0, 1]])
    camera_from_world = look_at(np.array([0.0, 0.0, 1.0]), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    return Camera(size, size, intrinsics, camera_from_world)


def write_missing(name: str, missing: Sequence[Planned], job: ObjectJob) -> None:
    """Read an object and write its missing records."""
    mesh, provenance = job.source.load(name)
    recipes = {planned.recipe.kind: planned.recipe for planned in missing}
    if "object" in recipes:
        object_data(name, mesh, provenance, job.config.six_views).write(job.store, recipes["object"])
    if recipes.keys() <= {"object"}:
        return
    camera = build_camera(job.config)
    digest = job.source.digest(name)
    clip = object_clip(name, mesh, digest, camera, job.config)
    if "layers" in recipes:
        layers_data(clip, camera, {}, job.config.layers).write(job.store, recipes["layers"])
    if "frames" in recipes:
        frames = frames_config(digest, job.config)
        rgb = render_frames(clip, camera, {}, frames)
        background = np.full_like(rgb[0], frames.background)
        FramesData(rgb, background, has_plate=True).write(job.store, recipes["frames"])


def object_clip(name: str, mesh: Mesh, digest: str, camera: Camera, config: BuildConfig) -> Clip:
    """Move an object, centred on its origin, at random before the camera."""
    radius_m = float(np.linalg.norm(mesh.vertices, axis=1).max())
    world_from_object = random_trajectory(
        f"{config.seed}:{digest}", config.num_frames, camera, radius_m, config.trajectory
    )
    valid = np.ones(config.num_frames, np.bool_)
    motion = ObjectMotion(name, mesh, world_from_object, valid, digest)
    return Clip(name, config.fps, config.num_frames, {CAMERA: camera}, {}, (motion,))


def finish(outcome: Outcome, config: BuildConfig, store: Store) -> None:
    """Write the dataset, with its object clips replaced by those of `outcome`.

    It stays as it is where `only` has left out records that a clip needs.
    """
    if len(outcome.rows) < len({planned.input for planned in outcome.planned}):
        return
    manifest = read_or_new(store, config.dataset)
    sessions = {row.session for row in manifest.rows} | {entry.input for entry in manifest.quarantined}
    replaced = {name for name in sessions if name.startswith(SESSION_PREFIX)}
    manifest.updated(outcome.rows, outcome.quarantined, replacing=replaced).write(store)


def _previous_keys(row: ClipRow | None) -> dict[Kind, str | None]:
    if row is None:
        return {}
    return {"object": row.object_keys[0], "layers": row.layers_key, "frames": row.frames_key}


def _rows(session: str, recipes: Mapping[Kind, Recipe], job: ObjectJob) -> tuple[ClipRow, ...]:
    """Return the clip's row, where all its records are there."""
    if not all(job.store.has(recipe.kind, recipe.key) for recipe in recipes.values()):
        return ()
    provenance = job.store.open("object", recipes["object"].key).attrs["provenance"]
    row = ClipRow(
        id=f"{session}/{CAMERA}",
        session=session,
        camera=CAMERA,
        split=assign_split(session, job.config.test_fraction),
        source="object",
        object_keys=(recipes["object"].key,),
        layers_key=recipes["layers"].key,
        frames_key=recipes["frames"].key,
        has_hands=False,
        has_object=True,
        num_frames=job.config.num_frames,
        fps=job.config.fps,
        licence=provenance.get("licence", ""),
    )
    return (row,)
