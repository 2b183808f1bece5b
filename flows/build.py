"""Building object-only data: each object moves at random before one camera (paper, Sec. 3.2).

An object gives three records: its six views and points, the layers of its motion, the rendered frames.
Letters: T frames.  Frames of reference: world (+Y up), the camera stands still at its origin's +Z side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, Field, model_validator

from flows.batches import map_items
from flows.outcome import Outcome, Planned, plan, set_aside, total
from flows.records import layers_data, object_data, on_this_machine
from flows.seen import Seen
from flows.sources import ObjectSource, fetch_objects, procedural_folder
from render.camera import Crop
from render.frames import FramesConfig, render_frames
from render.layers import LayersConfig
from render.scene import Camera, Clip, Mesh, ObjectMotion
from render.six_views import SixViewConfig
from render.trajectories import TrajectoryConfig, random_trajectory, seed_generator
from render.transforms import look_at
from storage.digests import digest_json
from storage.errors import InputError
from storage.likeness import shape_signature
from storage.manifest import ClipRow, Manifest, read_or_new, update
from storage.recipe import Recipe
from storage.records import (
    FramesData,
    digest_geometry,
    layers_recipe,
    object_recipe,
    rendered_frames_recipe,
)
from storage.sources.glb import GlbFolder
from storage.sources.glb_limits import GlbLimits
from storage.sources.objaverse import Objaverse, ObjaverseConfig
from storage.splits import TEST_FRACTION, ObjectIdentity, SplitBasis
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
    test_fraction: float = Field(default=TEST_FRACTION, ge=0, le=1)
    """Share of objects held out for testing, each with its near-duplicates; drawn by their names."""
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
    seen: Seen
    dry_run: bool


@dataclass(frozen=True)
class Item:
    """One object, read."""

    name: str
    mesh: Mesh
    file: str  # digest of its bytes
    geometry: str  # digest of its surface, without colours
    provenance: dict[str, str]


def open_source(config: BuildConfig, store: Store) -> ObjectSource:
    """Return the objects to build from."""
    if config.objaverse is not None:
        return Objaverse(config.objaverse, config.limits)
    return GlbFolder(objects_folder(config, store), config.limits)


def objects_folder(config: BuildConfig, store: Store) -> Path:
    """Return the folder that the objects are in; writes the procedural ones where none is asked for."""
    if config.objects is not None:
        return config.objects
    beside = store.root.parent if isinstance(store.root, Path) else Path("data")
    return procedural_folder(beside / "procedural", config.procedural, config.seed)


def build_objects(
    names: list[str], source: ObjectSource, config: BuildConfig, store: Store, *, dry_run: bool
) -> Outcome:
    """Build the missing records of some of the source's objects."""
    config = on_this_machine(config)
    previous = {row.session: row for row in read_or_new(store, config.dataset).rows}
    job = ObjectJob(config, source, store, previous, _seen(config, store, dry_run), dry_run)
    if config.objaverse is not None and not dry_run:
        fetch_objects(names, source, config.objaverse.download.connections)
    outcomes = map_items(
        lambda name: build_object(name, job), names, workers=config.workers, description="objects"
    )
    return total(outcomes)


def build_object(name: str, job: ObjectJob) -> Outcome:
    """Build what is missing of one object, or say why it cannot be."""
    return job.seen.outcome(name, lambda: _files(name, job), lambda: _build_object(name, job))


def session_of(name: str) -> str:
    """Return the session that stands for an object: its name, with slashes written otherwise."""
    return SESSION_PREFIX + name.replace("%", "%25").replace("/", "%2F")


def _build_object(name: str, job: ObjectJob) -> Outcome:
    session = session_of(name)
    try:
        if job.dry_run and not job.source.is_here(name):
            return Outcome(planned=_unfetched(name, job.config))
        file = job.source.digest(name)  # first: what is edited meanwhile must not get its new bytes' key
        mesh, provenance = job.source.load(name)
        item = Item(name, mesh, file, digest_geometry(mesh), provenance)
        recipes = object_recipes(item, job.config)
        previous = _previous_keys(job.previous.get(session))
        wanted = [recipes[kind] for kind in KINDS if kind in job.config.only]
        planned = [plan(job.store, name, recipe, previous.get(recipe.kind)) for recipe in wanted]
        missing = {recipe.kind: recipe for recipe, entry in zip(wanted, planned, strict=True) if entry.reason}
        if missing and not job.dry_run:
            write_missing(item, missing, job)
        return Outcome(rows=_rows(session, item, recipes, job), planned=tuple(planned))
    except ValueError as error:  # an InputError says what is wrong with the file, others what cannot be drawn
        return set_aside(session, error, session=session)


def _seen(config: BuildConfig, store: Store, dry_run: bool) -> Seen:
    """Return what is remembered of the objects of this source, built with these settings."""
    if config.objaverse is not None:
        which = {"uids", "lvis", "sample", "seed", "download"}  # objects, and how they come here
        source: object = config.objaverse.model_dump(mode="json", exclude=which)
    else:
        source = str(objects_folder(config, store).absolute())
    which = {"objects", "objaverse", "procedural", "dataset", "workers"}
    decides = {"source": source, **config.model_dump(mode="json", exclude=which)}
    return Seen(store, decides, remembers=not dry_run)


def _files(name: str, job: ObjectJob) -> list[Path]:
    """Return an object's files; none where its source refuses it, which building it reports."""
    try:
        return job.source.files(name)
    except InputError:
        return []


def _unfetched(name: str, config: BuildConfig) -> tuple[Planned, ...]:
    """Return what an object needs that a dry run does not fetch."""
    kinds = [kind for kind in KINDS if kind in config.only]
    return tuple(Planned(name, kind, digest_json(["not fetched", name, kind]), "new") for kind in kinds)


def object_recipes(item: Item, config: BuildConfig) -> dict[Kind, Recipe]:
    """Return the recipes of an object's records."""
    camera = build_camera(config)
    crop = Crop(0, 0, config.layers.size)
    motion = {
        "seed": config.seed,
        "num_frames": config.num_frames,
        "trajectory": config.trajectory.model_dump(mode="json"),
    }
    digests = {
        f"cameras/{CAMERA}": digest_json([camera.width, camera.intrinsics.tolist()]),
        "objects/object/mesh": item.file,
        "objects/object/geometry": item.geometry,
        "objects/object/motion": digest_json(motion),
    }
    return {
        "object": object_recipe(item.file, item.name, item.provenance, config.six_views),
        "layers": layers_recipe(digests, CAMERA, "", crop, config.layers),
        "frames": rendered_frames_recipe(digests, CAMERA, frames_config(item, config)),
    }


def frames_config(item: Item, config: BuildConfig) -> FramesConfig:
    """Return how the frames of an object are drawn."""
    if not config.vary_background:
        return config.frames
    rng = seed_generator(f"background:{config.seed}:{item.geometry}")
    red, green, blue = rng.integers(32, 224, 3).tolist()
    return config.frames.model_copy(update={"background": (red, green, blue)})


def build_camera(config: BuildConfig) -> Camera:
    """Return the camera: square, on the world's +Z axis, looking at its origin."""
    size = config.layers.size
    focal_px = size / (2 * np.tan(np.deg2rad(config.fov_deg) / 2))
    centre = (size - 1) / 2
    intrinsics = np.array([[focal_px, 0, centre], [0, focal_px, centre], [0, 0, 1]])
    camera_from_world = look_at(np.array([0.0, 0.0, 1.0]), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    return Camera(size, size, intrinsics, camera_from_world)


def write_missing(item: Item, recipes: Mapping[str, Recipe], job: ObjectJob) -> None:
    """Write an object's missing records, by kind."""
    if "object" in recipes:
        data = object_data(item.name, item.mesh, item.provenance, job.config.six_views)
        data.write(job.store, recipes["object"])
    if recipes.keys() <= {"object"}:
        return
    camera = build_camera(job.config)
    clip = object_clip(item, camera, job.config)
    if "layers" in recipes:
        layers_data(clip, camera, {}, job.config.layers).write(job.store, recipes["layers"])
    if "frames" in recipes:
        frames = frames_config(item, job.config)
        rgb = render_frames(clip, camera, {}, frames)
        background = np.full_like(rgb[0], frames.background)
        FramesData(rgb, background, has_plate=True).write(job.store, recipes["frames"])


def object_clip(item: Item, camera: Camera, config: BuildConfig) -> Clip:
    """Move an object, centred on its origin, at random before the camera; its colours do not matter."""
    radius_m = float(np.linalg.norm(item.mesh.vertices, axis=1).max())
    world_from_object = random_trajectory(
        f"{config.seed}:{item.geometry}", config.num_frames, camera, radius_m, config.trajectory
    )
    valid = np.ones(config.num_frames, np.bool_)
    motion = ObjectMotion(item.name, item.mesh, world_from_object, valid, item.file)
    return Clip(item.name, config.fps, config.num_frames, {CAMERA: camera}, {}, (motion,))


def finish(outcome: Outcome, config: BuildConfig, store: Store) -> None:
    """Write the dataset, with its object clips replaced by those of `outcome`, where all kinds were built."""
    if set(config.only) != set(KINDS):
        return

    def replace_objects(manifest: Manifest) -> Manifest:
        objects = {name for name in manifest.sessions() if name.startswith(SESSION_PREFIX)}
        return manifest.updated(outcome.rows, outcome.quarantined, sessions=objects)

    update(store, config.dataset, replace_objects)


def _previous_keys(row: ClipRow | None) -> dict[str, str | None]:
    if row is None:
        return {}
    return {"object": row.object_keys[0], "layers": row.layers_key, "frames": row.frames_key}


def _rows(session: str, item: Item, recipes: Mapping[Kind, Recipe], job: ObjectJob) -> tuple[ClipRow, ...]:
    """Return the clip's row, where all its records are there."""
    if not all(job.store.has(recipe.kind, recipe.key) for recipe in recipes.values()):
        return ()
    row = ClipRow(
        id=f"{session}/{CAMERA}",
        session=session,
        camera=CAMERA,
        split="train",  # until the dataset is split
        source="object",
        object_keys=(recipes["object"].key,),
        layers_key=recipes["layers"].key,
        frames_key=recipes["frames"].key,
        has_hands=False,
        has_object=True,
        num_frames=job.config.num_frames,
        fps=job.config.fps,
        basis=SplitBasis(
            job.config.test_fraction, objects=(ObjectIdentity(item.geometry, shape_signature(item.mesh)),)
        ),
        licence=item.provenance.get("licence", ""),
        provenance=({"name": item.name, **item.provenance},),
    )
    return (row,)
