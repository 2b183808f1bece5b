"""Where hands and objects come from when nobody says otherwise: the procedural ones."""

from pathlib import Path

from render.hands.model import HandModel, default_hands
from render.hands.procedural import build_hand
from render.procedural_objects import OBJECT_KINDS, procedural_object
from render.scene import SIDES
from render.trajectories import seed_generator
from storage.digests import digest_arrays, digest_json
from storage.mano import read_mano_folder
from storage.sources.glb_writer import write_glb


def load_hands(mano: Path | None) -> tuple[dict[str, HandModel], str]:
    """Return the hand models by side and their digest: the user's MANO files, or the procedural hand."""
    if mano is None:
        return default_hands(), digest_json([digest_arrays(build_hand(side)) for side in SIDES])
    data = read_mano_folder(mano)
    digest = digest_json([digest_arrays(data[side]) for side in SIDES])
    return {side: HandModel(data[side], side) for side in SIDES}, digest


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
            staging = path.with_suffix(".part")
            write_glb(
                procedural_object(kind, seed_generator(f"{seed}:{index}")), staging, copyright="CC0-1.0"
            )
            staging.replace(path)
    return target
