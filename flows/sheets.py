"""Contact sheets: one picture of an object, a clip or a dataset, to be looked at.

Letters: T frames, H rows, W columns.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.pictures import (
    Picture,
    column,
    composite_picture,
    confidence_picture,
    labelled,
    layers_panel,
    over_grey,
    resized,
    row,
)
from render.lighting import UNLIT
from render.six_views import VIEWS, SixViewConfig, canonicalize, render_six_views
from storage.dataset import Dataset
from storage.errors import InputError
from storage.manifest import dataset_names
from storage.sources.glb import SUFFIXES, read_object
from storage.store import Store

PANEL_HEIGHT = 192  # pixels
CLIP_FRAMES = 5
MOST_CLIPS = 24  # of a dataset's sheet


def contact_sheet(subject: str, store: Store, dataset: str) -> Picture:
    """Return the sheet of a GLB file, of a dataset (its name), or of a clip of `dataset` (its id)."""
    if Path(subject).suffix.lower() in SUFFIXES:
        return object_sheet(Path(subject))
    if subject in dataset_names(store):
        return dataset_sheet(Dataset.open(store, subject))
    if "/" not in subject:
        known = ", ".join(dataset_names(store)) or "none"
        message = f"{subject}: neither a .glb file, a clip's id nor a dataset (there are: {known})"
        raise InputError(message, code="no-dataset")
    return clip_sheet(Dataset.open(store, dataset), subject)


def object_sheet(path: Path) -> Picture:
    """Show a mesh file's six views, lit and in its own colours, under what it holds."""
    mesh, provenance = read_object(path, centred=True)
    extents = " x ".join(f"{extent:.4g}" for extent in np.ptp(mesh.vertices, axis=0))
    told = [f"{len(mesh.faces)} triangles", f"{len(mesh.materials)} materials", f"{extents} m"]
    told += [f"{key}: {provenance[key]}" for key in ("licence", "left_out") if key in provenance]
    canonical, _, _ = canonicalize(mesh)
    lit, unlit = (
        views_row(render_six_views(canonical, SixViewConfig(size=PANEL_HEIGHT, lighting=lighting)))
        for lighting in (SixViewConfig().lighting, UNLIT)
    )
    return labelled(column([lit, unlit]), f"{path.name}: {', '.join(told)} (below: unlit)")


def views_row(views: NDArray[np.uint8]) -> Picture:
    """Show six views [6, H, W, 4] side by side."""
    panels = zip(VIEWS, over_grey(views), strict=True)
    return row([labelled(resized(view, PANEL_HEIGHT), name) for name, view in panels])


def clip_sheet(dataset: Dataset, clip_id: str) -> Picture:
    """Show a clip's references, and some of its frames with their layers and confidence."""
    clip = dataset.row(clip_id)
    count, stride = clip.spaced(CLIP_FRAMES)
    window = dataset.read(clip, 0, count, stride)
    lines = [views_row(window.views)]
    for index in range(count):
        number = f"frame {index * stride}"
        panels = [labelled(resized(window.frames[index], PANEL_HEIGHT), number)] if len(window.frames) else []
        layers = layers_panel(window.normals[index], window.confidence[index], PANEL_HEIGHT)
        panels.append(labelled(layers, "object, palm, thumb, index / middle, ring, little, all"))
        nearest = confidence_picture(window.confidence[index].max(axis=0))
        panels.append(labelled(resized(nearest, PANEL_HEIGHT), "confidence of the nearest"))
        lines.append(row(panels))
    lines.append(labelled(resized(window.background, PANEL_HEIGHT), "background"))
    return column(lines)


def dataset_sheet(dataset: Dataset) -> Picture:
    """Show each clip by its object's front, its middle frame and that frame's layers."""
    lines = []
    for clip in dataset.rows()[:MOST_CLIPS]:
        window = dataset.read(clip, clip.num_frames // 2, 1)
        pictures = [over_grey(window.views[0]), *window.frames]
        pictures.append(composite_picture(window.normals[0], window.confidence[0]))
        panels = row([resized(picture, PANEL_HEIGHT // 2) for picture in pictures])
        lines.append(labelled(panels, f"{clip.id} ({clip.split})"))
    if not lines:
        raise InputError(f"dataset {dataset.manifest.name}: no clips in it", code="no-clips")
    half = -(-len(lines) // 2)
    return row([column(part) for part in (lines[:half], lines[half:]) if part])
