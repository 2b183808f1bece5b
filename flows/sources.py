"""Where hands and objects come from; when nobody says otherwise, the procedural ones."""

import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray

from flows.batches import map_items
from render.hands.model import HandModel, default_hands
from render.hands.procedural import build_hand
from render.procedural_objects import OBJECT_KINDS, procedural_object
from render.scene import SIDES, Mesh
from render.trajectories import seed_generator
from storage.digests import digest_arrays, digest_json
from storage.errors import InputError
from storage.mano import read_mano_folder
from storage.sources.glb_writer import write_glb


class ObjectSource(Protocol):
    """Objects by name."""

    def ids(self) -> list[str]:
        """Return the names of all."""
        ...

    def load(self, object_id: str) -> tuple[Mesh, dict[str, str]]:
        """Return a mesh centred on its bounding box, and its provenance."""
        ...

    def digest(self, object_id: str) -> str:
        """Return the sha256 of the input bytes."""
        ...

    def files(self, object_id: str) -> list[Path]:
        """Return the files that an object consists of, for telling whether it has changed."""
        ...

    def is_here(self, object_id: str) -> bool:
        """Tell whether an object can be loaded without bringing it here."""
        ...

    def fetch(self, object_id: str) -> Path:
        """Return the file of an object, brought here if need be."""
        ...


@dataclass(frozen=True)
class Hands:
    """Both hands, by side."""

    models: Mapping[str, HandModel]
    arrays: Mapping[str, Mapping[str, NDArray]]  # MANO's, which foreign parameters are read with
    digest: str


def load_hands(mano: Path | None, *, fix_left_shapedirs: bool = True) -> Hands:
    """Read the user's MANO files, or make the procedural hand; `storage.mano` says what there is to fix."""
    files = sorted(mano.glob("*.pkl")) if mano is not None else []
    return _load_hands(mano, fix_left_shapedirs, tuple((file, file.stat().st_mtime_ns) for file in files))


@lru_cache(maxsize=4)  # every shard of an ingest asks for them
def _load_hands(
    mano: Path | None, fix_left_shapedirs: bool, _signature: tuple[tuple[Path, int], ...]
) -> Hands:
    data: dict[str, dict[str, NDArray]]
    if mano is None:
        models, data = default_hands(), {side: build_hand(side) for side in SIDES}
    else:
        data = read_mano_folder(mano, fix_left_shapedirs=fix_left_shapedirs)
        models = {side: HandModel(data[side], side) for side in SIDES}
    return Hands(models, data, digest_json([digest_arrays(data[side]) for side in SIDES]))


def procedural_folder(folder: Path, count: int, seed: int) -> Path:
    """Write the first `count` procedural objects of a seed as .glb files below `folder`; return their folder.

    Files that are there already stay as they are.
    """
    target = folder / f"seed-{seed}-count-{count}"
    target.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        kind = OBJECT_KINDS[index % len(OBJECT_KINDS)]
        path = target / f"{index:03d}-{kind}.glb"
        if not path.is_file():
            staging = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.part")  # another run may write it too
            write_glb(
                procedural_object(kind, seed_generator(f"{seed}:{index}")), staging, copyright="CC0-1.0"
            )
            staging.replace(path)
    return target


def fetch_objects(names: Sequence[str], source: ObjectSource, connections: int) -> None:
    """Bring objects here, several at a time."""

    def fetch(name: str) -> None:
        with suppress(InputError):  # the source remembers it, and says so again when the object is built
            source.fetch(name)

    map_items(fetch, names, workers=connections, description="downloads")
