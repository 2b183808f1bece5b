"""Topology of the procedural hand: 778 vertices and 1538 faces, open at the wrist along a loop of 16.

Every part is a stack of loops.  The trunk rises from the wrist and splits into the thumb and the palm; the
palm splits into the fingers.  Where a loop splits, both sides share a web: a chain of three vertices, dorsal,
middle and palmar.
A disk of V vertices and a boundary of B has 2V − 2 − B faces, so 778 and 16 give MANO's 1538.
Loops run lateral → dorsal → medial → palmar, seen with the digit pointing away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from render.hands.anatomy import DIGITS

NUM_VERTICES = 778
LOOP = 10  # vertices around a digit
RINGS = 10  # loops of a digit after its base
PALM_LOOP = 28
PALM_ROWS = 4  # loops between the thumb's web and the fingers'
TRUNK_LOOPS = (16, 22, 27, 30)  # from the wrist on
ACROSS = ("index", "middle", "ring", "little")  # from the radial to the ulnar side

# Where MANO has its open wrist and its fingertips.
WRIST_LOOP = (38, 78, 79, 92, 108, 117, 118, 119, 120, 121, 122, 214, 215, 234, 239, 279)
TIPS = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "little": 671}


@dataclass(frozen=True)
class Topology:
    """Which vertices make the loops, and the faces between them; indices are those of the finished mesh."""

    faces: NDArray[np.int32]  # [1538, 3] counter-clockwise seen from outside
    trunk: tuple[NDArray[np.int64], ...]  # loops from the wrist on
    split: NDArray[np.int64]  # [34] the loop around the thumb's base and the palm
    palm: tuple[
        NDArray[np.int64], ...
    ]  # loops of 28 from the thumb's web to the fingers' webs, both included
    base: dict[
        str, NDArray[np.int64]
    ]  # [10] the first loop of each digit: on the webs, shared with neighbours
    rings: dict[str, NDArray[np.int64]]  # [RINGS, 10] the digit's own loops
    tips: dict[str, int]


@dataclass
class _Builder:
    """Hands out vertex numbers and collects faces."""

    count: int = 0
    faces: list[tuple[int, int, int]] = field(default_factory=list)

    def new(self, count: int) -> list[int]:
        numbers = list(range(self.count, self.count + count))
        self.count += count
        return numbers

    def stitch(self, lower: Sequence[int], upper: Sequence[int]) -> None:
        """Fill the band between two closed loops of any two sizes."""
        i = j = 0
        while i < len(lower) or j < len(upper):
            a, b = lower[i % len(lower)], upper[j % len(upper)]
            if (i + 0.5) / len(lower) <= (j + 0.5) / len(upper):
                i += 1
                self.faces.append((b, a, lower[i % len(lower)]))
            else:
                j += 1
                self.faces.append((b, a, upper[j % len(upper)]))

    def digit(self, base: Sequence[int]) -> tuple[list[list[int]], int]:
        rings = []
        below = base
        for _ in range(RINGS):
            ring = self.new(LOOP)
            self.stitch(below, ring)
            rings.append(ring)
            below = ring
        (tip,) = self.new(1)
        for i in range(LOOP):
            self.faces.append((tip, below[i], below[(i + 1) % LOOP]))
        return rings, tip


def build_topology() -> Topology:
    """The mesh's connections; the same every time."""
    mesh = _Builder()
    trunk = [mesh.new(size) for size in TRUNK_LOOPS]
    thumb_outer = mesh.new(LOOP - 3)  # from the palmar to the dorsal side of the thumb
    palm = [mesh.new(PALM_LOOP) for _ in range(PALM_ROWS + 2)]
    middle_webs = [palm[-1][0], *mesh.new(3), palm[-1][PALM_LOOP // 2]]

    # A palm loop: 0 the radial side, 1 to 13 across the back, 14 the ulnar side, 15 to 27 across the front.
    radial, dorsal, palmar = palm[0][0], palm[0][1], palm[0][-1]
    split = [*palm[0][14:], *thumb_outer, *palm[0][1:14]]
    for below, above in zip(trunk, [*trunk[1:], split], strict=True):
        mesh.stitch(below, above)
    for below, above in pairwise(palm):
        mesh.stitch(below, above)

    base = {"thumb": [radial, palmar, *thumb_outer, dorsal]}
    last = palm[-1]
    for k, name in enumerate(ACROSS):
        back = last[1 + 3 * k : 5 + 3 * k]
        front = last[24 - 3 * k : 28 - 3 * k]
        base[name] = [middle_webs[k], *back, middle_webs[k + 1], *front]
    digits = {name: mesh.digit(base[name]) for name in DIGITS}
    assert mesh.count == NUM_VERTICES

    tips = {name: tip for name, (_, tip) in digits.items()}
    number = _numbering(trunk[0], tips)
    return Topology(
        faces=number[np.array(mesh.faces)].astype(np.int32),
        trunk=tuple(number[loop] for loop in trunk),
        split=number[split],
        palm=tuple(number[loop] for loop in palm),
        base={name: number[loop] for name, loop in base.items()},
        rings={name: number[np.array(rings)] for name, (rings, _) in digits.items()},
        tips=dict(TIPS),
    )


def _numbering(wrist: Sequence[int], tips: dict[str, int]) -> NDArray[np.int64]:
    """MANO's index [V] of each vertex: the wrist and the tips where MANO has them, the rest in order."""
    number = np.full(NUM_VERTICES, -1)
    number[list(wrist)] = WRIST_LOOP
    for name, vertex in tips.items():
        number[vertex] = TIPS[name]
    number[number < 0] = np.setdiff1d(np.arange(NUM_VERTICES), number)
    return number
