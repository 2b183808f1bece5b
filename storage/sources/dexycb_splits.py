"""The official splits of DexYCB (Chao et al., CVPR 2021, Sec. 4): which clip is for training or for testing.

s0 holds out sequences, s1 subjects, s2 cameras, s3 grasped objects.  Each of ten subjects recorded a hundred
sequences, five of each of twenty objects in turn, before the same eight cameras; all are counted from 0 in
the order of their names.
"""

import re
from pathlib import Path
from typing import Literal

from storage.errors import InputError

Setup = Literal["s0", "s1", "s2", "s3"]
SEQUENCES = 100  # of each subject
# The order in which s2 counts them.
CAMERAS = (
    "836212060125",
    "839512060362",
    "840412060917",
    "841412060263",
    "932122060857",
    "932122060861",
    "932122061900",
    "932122062010",
)


def official_split(setup: Setup, sequence: Path, serial: str) -> str:
    """Return train, val or test of a sequence's folder seen by a camera.

    Raises InputError where the folder is not one of a whole copy of the data set.
    """
    if setup == "s1":
        return split_of(setup, subject=_subject(sequence))
    if setup == "s2":
        return split_of(setup, camera=_camera(serial, sequence))
    names = sorted(folder.name for folder in sequence.parent.iterdir() if folder.is_dir())
    if len(names) != SEQUENCES:
        wanted = f"all {SEQUENCES}, by which {setup} is defined"
        raise InputError.mismatch(sequence.parent, "sequences", found=len(names), wanted=wanted, code="split")
    return split_of(setup, subject=_subject(sequence), number=names.index(sequence.name))


def split_of(setup: Setup, *, subject: int = 0, number: int = 0, camera: int = 0) -> str:
    """Return train, val or test by the numbers of subject, sequence and camera."""
    if setup == "s0":
        return "train" if number % 5 != 4 else "val" if subject < 2 else "test"
    if setup == "s1":
        return {6: "val", 7: "test", 8: "test"}.get(subject, "train")
    if setup == "s2":
        return {6: "val", 7: "test"}.get(camera, "train")
    return {3: "val", 19: "val", 7: "test", 11: "test", 15: "test"}.get(number // 5, "train")


def _subject(sequence: Path) -> int:
    matched = re.fullmatch(r"\d{8}-subject-(\d\d)", sequence.parent.name)
    if matched is None or not 1 <= int(matched[1]) <= 10:
        found, wanted = sequence.parent.name, "<date>-subject-01 to -10"
        raise InputError.mismatch(sequence, "subject", found=found, wanted=wanted, code="split")
    return int(matched[1]) - 1


def _camera(serial: str, sequence: Path) -> int:
    if serial not in CAMERAS:
        wanted = f"one of {', '.join(CAMERAS)}"
        raise InputError.mismatch(sequence, "serials", found=serial, wanted=wanted, code="split")
    return CAMERAS.index(serial)
