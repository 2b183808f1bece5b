"""Ingesting capture sessions: each camera of a session becomes a clip of layers and frames.

Asks of every record whether it is there already, and makes only what is not: re-fitted hands render that
session's layers again, and neither its video nor its objects.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from flows.batches import map_items
from flows.build import SESSION_PREFIX
from flows.outcome import Outcome, Planned, plan, set_aside, total
from flows.records import layers_data, object_data, off_centre, on_this_machine
from flows.seen import Seen
from flows.sessions import is_dexycb, open_session, session_files, session_name
from flows.sources import Hands, load_hands
from render.camera import Crop, crop_camera
from render.crops import choose_crop
from render.hands.model import HandModel
from render.layers import LayersConfig
from render.scene import Clip
from render.six_views import SixViewConfig
from render.skeleton import crop_keypoints
from storage.errors import InputError
from storage.likeness import Signature, picture_signatures, shape_signature, take_signatures
from storage.manifest import ClipRow, Manifest, read_or_new, update
from storage.pictures import crop_and_resize
from storage.records import (
    FramesData,
    SkeletonData,
    digest_geometry,
    frames_recipe,
    layers_recipe,
    object_recipe,
    skeleton_recipe,
)
from storage.sources.dexycb_splits import Setup
from storage.sources.glb_limits import GlbLimits
from storage.splits import TEST_FRACTION, ObjectIdentity, SplitBasis
from storage.store import Store

logger = logging.getLogger(__name__)

PICTURE_STRIDE = 8  # frames between those that tell what a video looks like


class IngestConfig(BaseModel, frozen=True, extra="forbid"):
    """How sessions are cropped and rendered."""

    dataset: str = "captures"
    """Name of the dataset that the sessions are added to; what it knew of them is replaced."""
    test_fraction: float = Field(default=TEST_FRACTION, ge=0, le=1)
    """Share of sessions, of objects and of participants held out for testing, each with its near-duplicates;
    drawn by their names, sessions only where session.yaml names no split."""
    dexycb_setup: Setup | None = None
    """Official split of DexYCB to use: s0 (unseen sequences), s1 (subjects), s2 (cameras), s3 (objects)."""
    crop: Literal["hand_object", "center"] = "hand_object"
    """One square a clip: about hands and objects, or the largest in the centre."""
    crop_margin: float = Field(default=0.15, ge=0)
    """Room about hands and objects on each side, as a part of their size."""
    mano: Path | None = None
    """Folder of MANO_LEFT.pkl and MANO_RIGHT.pkl; null: the procedural hand."""
    six_views: SixViewConfig = SixViewConfig()
    """The pictures O_I of the object."""
    layers: LayersConfig = LayersConfig()
    """Size and rendering of layers; frames have the same size."""
    limits: GlbLimits = GlbLimits()
    """How large a capture session's objects may be, and how long reading one may take."""
    prune: bool = False
    """Sessions of the dataset that are not among those given leave it; none does while none is given, or one
    that is given cannot be told by name."""
    workers: int = Field(default=2, ge=1)
    """Sessions in work at the same time."""


@dataclass(frozen=True)
class IngestJob:
    """What ingesting one session needs beside it."""

    config: IngestConfig
    store: Store
    hands: Mapping[str, HandModel]
    hand_model: str  # digest
    previous: Mapping[str, Mapping[str, ClipRow]]  # by session, by camera
    seen: Seen
    dry_run: bool
    published: Hands | None = None  # MANO's files as published, which DexYCB's poses are made with


def ingest_sessions(paths: list[Path], config: IngestConfig, store: Store, *, dry_run: bool) -> list[Outcome]:
    """Make the missing records of some sessions; return what each came to, see `join`."""
    job = prepare_job(config, store, dry_run=dry_run)
    return map_items(
        lambda path: ingest_session(path, job), paths, workers=config.workers, description="sessions"
    )


def join(outcomes: Sequence[Outcome]) -> Outcome:
    """Add up what sessions came to; one that has the name of an earlier one is set aside."""
    named: dict[str, Outcome] = {}
    joined = []
    for outcome in outcomes:
        sessions = {row.session for row in outcome.rows} | {entry.session for entry in outcome.quarantined}
        name = max(sessions, default="")  # the one that a recording has, if it could be read that far
        first = named.setdefault(name, outcome) if name else outcome
        joined.append(outcome if first is outcome else _set_aside_namesake(name, outcome, first))
    return total(joined)


def prepare_job(config: IngestConfig, store: Store, *, dry_run: bool = False) -> IngestJob:
    """Read what all sessions share: the hands, and what the dataset knows already."""
    config = on_this_machine(config)
    hands = load_hands(config.mano)
    published = None if config.mano is None else load_hands(config.mano, fix_left_shapedirs=False)
    previous: defaultdict[str, dict[str, ClipRow]] = defaultdict(dict)
    for row in read_or_new(store, config.dataset).rows:
        previous[row.session][row.camera] = row
    elsewhere = {"dataset", "mano", "prune", "workers"}  # do not change what a session comes to
    digests = [hands.digest, published.digest if published else ""]
    decides = {"hand_models": digests, **config.model_dump(mode="json", exclude=elsewhere)}
    seen = Seen(store, decides, remembers=not dry_run)
    return IngestJob(config, store, hands.models, hands.digest, previous, seen, dry_run, published)


def ingest_session(path: Path, job: IngestJob) -> Outcome:
    """Make what is missing of one session, or say why it cannot be used."""
    whole = path.resolve()
    outcome = job.seen.outcome(str(whole), lambda: session_files(whole), lambda: _ingest_session(path, job))
    return replace(outcome, paths=(str(whole),))


def _ingest_session(path: Path, job: IngestJob) -> Outcome:
    session = ""  # not known before the recording is opened
    try:
        source = open_session(path, job.published, job.config.dexycb_setup, job.config.limits)
        session = source.id
        if is_dexycb(path) and job.published is not None:
            job = replace(job, hands=job.published.models, hand_model=job.published.digest)
        digests = source.digests()  # first: what is edited meanwhile must not get its new bytes' key
        return ingest_clip(source.load(), digests, job)
    except ValueError as error:  # an InputError says what is wrong with a file, others what cannot be drawn
        return set_aside(session or session_name(path), error, session=session, path=str(path.resolve()))


def ingest_clip(clip: Clip, digests: Mapping[str, str], job: IngestJob) -> Outcome:
    """Make what is missing of one clip, whose parts have these digests (see `SessionFolder.digests`)."""
    geometry = {f"objects/{moving.name}/geometry": digest_geometry(moving.mesh) for moving in clip.objects}
    digests = {**digests, **geometry}
    objects = _objects(clip, digests, job)
    cameras = [_camera(clip, camera, digests, objects, job) for camera in clip.cameras]
    return total([Outcome(planned=tuple(objects)), *cameras])


def _set_aside_namesake(name: str, outcome: Outcome, first: Outcome) -> Outcome:
    (path,) = outcome.paths
    message = f"{path}: found the name {name!r}, which {first.paths[0]} has: wanted a name of its own"
    return replace(set_aside(name, InputError(message, code="name-taken"), path=path), paths=(path,))


def finish(outcome: Outcome, config: IngestConfig, store: Store) -> None:
    """Write the dataset with the sessions of an outcome in it."""
    update(store, config.dataset, lambda manifest: merged(manifest, outcome, config))


def merged(manifest: Manifest, outcome: Outcome, config: IngestConfig) -> Manifest:
    """Return a dataset with what it knew of the outcome's sessions replaced; `prune`: of all sessions."""
    sessions = {row.session for row in outcome.rows} | {entry.session for entry in outcome.quarantined}
    paths = set(outcome.paths)
    if config.prune and (not sessions or "" in sessions):  # not mounted, or session.yaml is broken
        logger.warning("dataset %s: not pruned: not every session given has a name", manifest.name)
    elif config.prune:
        sessions |= {name for name in manifest.sessions() if not name.startswith(SESSION_PREFIX)}
        paths |= {entry.path for entry in manifest.quarantined}
    named, placed = sessions - {""}, paths - {""}
    return manifest.updated(outcome.rows, outcome.quarantined, sessions=named, paths=placed)


def _objects(clip: Clip, digests: Mapping[str, str], job: IngestJob) -> list[Planned]:
    """Make the missing references of a session's objects."""
    known = [row.object_keys for row in job.previous.get(clip.id, {}).values()]
    previous_keys = known[0] if known else ()
    planned = []
    for moving, previous_key in zip_longest(clip.objects, previous_keys[: len(clip.objects)]):
        mesh = digests[f"objects/{moving.name}/mesh"]
        recipe = object_recipe(
            mesh, moving.name, moving.provenance, job.config.six_views, off_centre(moving.mesh)
        )
        entry = plan(job.store, f"{clip.id}/{moving.name}", recipe, previous_key)
        if entry.reason and not job.dry_run:
            data = object_data(moving.name, moving.mesh, moving.provenance, job.config.six_views)
            data.write(job.store, recipe)
        planned.append(entry)
    return planned


def _camera(
    clip: Clip, camera: str, digests: Mapping[str, str], objects: list[Planned], job: IngestJob
) -> Outcome:
    """Make the missing records of a session seen by one camera."""
    name = f"{clip.id}/{camera}"
    try:
        view = clip.cameras[camera]
        crop = choose_crop(clip, view, job.hands, job.config.crop, job.config.crop_margin)
        planned = [
            *_layers(clip, camera, crop, digests, job),
            *_frames(clip, camera, crop, digests, job),
            *_skeleton(clip, camera, crop, digests, job),
        ]
    except ValueError as error:
        return set_aside(name, error, session=clip.id)
    return Outcome(rows=(_row(clip, camera, digests, objects, planned, job),), planned=tuple(planned))


def _layers(clip: Clip, camera: str, crop: Crop, digests: Mapping[str, str], job: IngestJob) -> list[Planned]:
    """Render the layers of a clip in which anything is known to move."""
    if not clip.hands and not clip.objects:
        return []
    name = f"{clip.id}/{camera}"
    previous = job.previous.get(clip.id, {}).get(camera)
    recipe = layers_recipe(digests, camera, job.hand_model, crop, job.config.layers)
    planned = plan(job.store, name, recipe, previous.layers_key if previous else None)
    if planned.reason and not job.dry_run:
        cropped = crop_camera(clip.cameras[camera], crop, job.config.layers.size)
        layers_data(clip, cropped, job.hands, job.config.layers).write(job.store, recipe)
    return [planned]


def _frames(clip: Clip, camera: str, crop: Crop, digests: Mapping[str, str], job: IngestJob) -> list[Planned]:
    """Decode, crop and resize a camera's video, where it has one."""
    if camera not in clip.videos:
        return []
    size, name = job.config.layers.size, f"{clip.id}/{camera}"
    previous = job.previous.get(clip.id, {}).get(camera)
    recipe = frames_recipe(digests, camera, crop, size)
    planned = plan(job.store, name, recipe, previous.frames_key if previous else None)
    if planned.reason and not job.dry_run:
        rgb = np.stack([crop_and_resize(frame, crop, size) for frame in clip.videos[camera].frames()])
        plate = clip.backgrounds.get(camera)
        background = np.zeros_like(rgb[0]) if plate is None else crop_and_resize(plate, crop, size)
        FramesData(rgb, background, has_plate=plate is not None).write(job.store, recipe)
    return [planned]


def _skeleton(
    clip: Clip, camera: str, crop: Crop, digests: Mapping[str, str], job: IngestJob
) -> list[Planned]:
    """Move a person's keypoints into the crop, where they are known."""
    if camera not in clip.skeletons:
        return []
    size, previous = job.config.layers.size, job.previous.get(clip.id, {}).get(camera)
    recipe = skeleton_recipe(digests, camera, crop, size)
    planned = plan(job.store, f"{clip.id}/{camera}", recipe, previous.skeleton_key if previous else None)
    if planned.reason and not job.dry_run:
        SkeletonData(crop_keypoints(clip.skeletons[camera], crop, size)).write(job.store, recipe)
    return [planned]


def _row(
    clip: Clip,
    camera: str,
    digests: Mapping[str, str],
    objects: list[Planned],
    planned: list[Planned],
    job: IngestJob,
) -> ClipRow:
    keys = {entry.kind: entry.key for entry in planned}
    basis = SplitBasis(
        test_fraction=job.config.test_fraction,
        fixed=clip.camera_splits.get(camera) or clip.split or "",
        takes=take_signatures(clip) or _seen_in(keys.get("frames"), job.store),
        objects=tuple(
            ObjectIdentity(digests[f"objects/{moving.name}/geometry"], shape_signature(moving.mesh))
            for moving in clip.objects
        ),
    )
    licences = sorted({moving.provenance.get("licence", "") for moving in clip.objects} - {""})
    return ClipRow(
        id=f"{clip.id}/{camera}",
        session=clip.id,
        camera=camera,
        split=basis.fixed or "train",  # until the dataset is split
        source="hoi" if clip.hands else "object" if clip.objects else "human",
        object_keys=tuple(entry.key for entry in objects),
        layers_key=keys.get("layers"),
        frames_key=keys.get("frames"),
        skeleton_key=keys.get("skeleton"),
        has_hands=bool(clip.hands),
        has_object=bool(clip.objects),
        num_frames=clip.num_frames,
        fps=clip.fps,
        participant=clip.participant,
        basis=basis,
        licence="; ".join(licences),
        provenance=tuple({"name": moving.name, **moving.provenance} for moving in clip.objects),
    )


def _seen_in(frames_key: str | None, store: Store) -> tuple[Signature, ...]:
    """What a clip without motion looks like; nothing where its frames are still to be made."""
    if frames_key is None or not store.has("frames", frames_key):
        return ()
    return picture_signatures(store.open("frames", frames_key).read("rgb", slice(0, None, PICTURE_STRIDE)))
