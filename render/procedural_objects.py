"""Textured objects that hands can hold, drawn from a kind's name and a random generator.

Frame: object, metres, +Y up, front +Z, centred on the bounding box. What a hand takes hold of is 2 to 10 cm
across. Every object is made of closed surfaces, and its texture tells its sides apart.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from render.procedural_shapes import Part, arc, assemble, box, extrude, join, revolve, sweep
from render.procedural_textures import metal, palette, plain, printed_box, wood, wrapped
from render.scene import Material, Mesh


def procedural_object(kind: str | int, rng: np.random.Generator) -> Mesh:
    """Draw one object; a whole number counts through the kinds and starts again after the last."""
    name = OBJECT_KINDS[kind % len(OBJECT_KINDS)] if isinstance(kind, int) else kind
    if name not in _BUILDERS:
        raise ValueError(f"no procedural object {name!r}: it is one of {', '.join(OBJECT_KINDS)}")
    return _BUILDERS[name](rng)


def _vessel(outer: NDArray[np.float64], wall: float) -> tuple[Part, Part]:
    """Turn an outer profile [K, 2] (bottom to rim) into the outside and the inside of an open vessel."""
    inner, floor = outer[::-1] - [wall, 0], outer[0, 1] + wall
    inner = inner[inner[:, 1] > floor]
    corner = np.interp(floor, outer[:, 1], outer[:, 0] - wall)
    outside = revolve(np.concatenate([[[0, outer[0, 1]]], outer]))
    return outside, revolve(np.concatenate([outer[-1:], inner, [[corner, floor], [0, floor]]]))


def _loop_handle(x: float, height: float, reach: float, thickness: float) -> Part:
    """Sweep a handle like an ear on the +x side of a wall at `x`."""
    curve = arc((0, 0), 1.0, -90, 90, 20) * [reach, height / 2] + [x - 0.2 * thickness, 0]
    return sweep(np.column_stack([curve, np.zeros(20)]), (thickness / 2, 0.8 * thickness), (0, 0, 1))


def _ball(radius: float, count: int = 25) -> Part:
    return revolve(arc((0, 0), radius, -90, 90, count))


def _rod(bottom: float, top: float, radius: float) -> Part:
    return revolve([[0, bottom], [radius, bottom], [radius, top], [0, top]])


def _mug(rng: np.random.Generator) -> Mesh:
    radius, height = rng.uniform(0.036, 0.043), rng.uniform(0.085, 0.105)
    outside, inside = _vessel(np.array([[radius * 0.94, 0], [radius, 0.01], [radius, height]]), 0.004)
    handle = _loop_handle(radius, height * 0.62, 0.034, 0.010).placed((0, height / 2, 0))
    return assemble([(outside, wrapped(rng)), (join([inside, handle]), plain(rng))])


def _cup(rng: np.random.Generator) -> Mesh:
    top, height = rng.uniform(0.038, 0.045), rng.uniform(0.095, 0.125)
    outside, inside = _vessel(np.array([[top * 0.7, 0], [top, height]]), 0.002)
    lid = revolve([[0, 0], [top * 1.04, 0], [top * 1.04, 0.008], [top * 0.9, 0.014], [0, 0.014]])
    return assemble(
        [(outside, wrapped(rng)), (join([inside, lid.placed((0, height - 0.004, 0))]), plain(rng))]
    )


def _bottle(rng: np.random.Generator) -> Mesh:
    radius, height = rng.uniform(0.030, 0.038), rng.uniform(0.15, 0.19)
    neck, shoulder = radius * 0.36, height * 0.62
    rise = np.linspace(0, 1, 12)[:, None]
    ease = rise * rise * (3 - 2 * rise)
    curve = np.concatenate([radius + (neck - radius) * ease, shoulder + 0.22 * height * rise], axis=1)
    low, high = [[0, 0], [radius * 0.9, 0], [radius, 0.006]], [[neck, height], [0, height]]
    body = revolve(np.concatenate([low, curve, high]))
    cap = _rod(height - 0.016, height + 0.004, neck * 1.25)
    return assemble([(body, wrapped(rng)), (cap, plain(rng))])


def _can(rng: np.random.Generator) -> Mesh:
    radius, height = rng.uniform(0.031, 0.037), rng.uniform(0.09, 0.12)
    side = revolve([[radius, 0.004], [radius, height - 0.004]])
    low = revolve([[0, 0.002], [radius * 0.8, 0.002], [radius * 0.88, 0], [radius, 0.004]])
    rim = np.array([[radius, -0.004], [radius * 0.9, 0], [radius * 0.86, -0.003], [0, -0.003]])
    high = revolve(rim + np.array([0, height]))
    steel = metal(rng)
    return assemble([(side, wrapped(rng)), (join([low, high]), steel)])


def _jar(rng: np.random.Generator) -> Mesh:
    radius, height = rng.uniform(0.034, 0.042), rng.uniform(0.07, 0.10)
    low, high = (
        arc((radius - 0.01, 0.01), 0.01, -90, 0, 6),
        arc((radius - 0.012, height - 0.012), 0.012, 0, 90, 6),
    )
    body = revolve(np.concatenate([[[0, 0]], low, high, [[0, height]]]))
    lid = _rod(height - 0.001, height + 0.016, radius * 0.86)
    return assemble([(body, wrapped(rng)), (lid, plain(rng))])


def _box(rng: np.random.Generator) -> Mesh:
    extents = rng.uniform((0.05, 0.10, 0.03), (0.08, 0.16, 0.06))
    return assemble([(box(extents), printed_box(rng))])


def _cube(rng: np.random.Generator) -> Mesh:
    return assemble([(box([rng.uniform(0.05, 0.07)] * 3), printed_box(rng))])


def _book(rng: np.random.Generator) -> Mesh:
    width, height, thickness = rng.uniform((0.10, 0.14, 0.02), (0.13, 0.18, 0.035))
    pages = box([width - 0.006, height - 0.008, thickness - 0.005]).placed((0.002, 0, 0))
    covers = [box([width, height, 0.003]).placed((0, 0, z * (thickness - 0.003) / 2)) for z in (1, -1)]
    spine = box([0.003, height, thickness - 0.006]).placed((-width / 2 + 0.0015, 0, 0))
    paper = Material(name="paper", base_color_factor=(0.82, 0.78, 0.66, 1.0))
    return assemble([(pages, paper), (join([*covers, spine]), printed_box(rng))])


def _ball_object(rng: np.random.Generator) -> Mesh:
    return assemble([(_ball(rng.uniform(0.030, 0.042)), wrapped(rng))])


def _bowl(rng: np.random.Generator) -> Mesh:
    radius = rng.uniform(0.055, 0.07)
    curve = arc((radius * 0.35, radius * 0.65), radius * 0.65, -90, 0, 14)
    foot = np.array([[radius * 0.35, -0.006], [radius * 0.38, -0.006], [radius * 0.38, -0.001]])
    outside, inside = _vessel(np.concatenate([foot, curve[2:]]), 0.004)
    return assemble([(outside, wrapped(rng)), (inside, plain(rng))])


def _hammer(rng: np.random.Generator) -> Mesh:
    length, thick = rng.uniform(0.17, 0.21), rng.uniform(0.013, 0.016)
    grip = np.array([[0, 0], [1, 0], [1.1, 0.02], [0.8, 0.09], [0.7, length], [0, length]]) * [thick, 1]
    handle = revolve(grip)
    face = revolve([[0, 0], [0.016, 0], [0.016, 0.018], [0.010, 0.026], [0.010, 0.045], [0, 0.045]])
    claw = extrude([[0.0, -0.011], [0.025, -0.008], [0.05, -0.018], [0.035, 0.006], [0.0, 0.011]], 0.018)
    steel = metal(rng)
    head = join([face.placed((-0.04, length, 0), (0, 0, -90)), claw.placed((0.004, length, 0))])
    return assemble([(handle, wood(rng)), (head, steel)])


def _ring(rng: np.random.Generator) -> Mesh:
    thick = rng.uniform(0.014, 0.019)
    loop = arc((0, 0), rng.uniform(0.045, 0.055), 0, 360, 49)[:-1]
    path = np.column_stack([loop, np.zeros(len(loop))])
    return assemble([(sweep(path, (thick, thick), (0, 0, 1), closed=True), wrapped(rng))])


def _spray_bottle(rng: np.random.Generator) -> Mesh:
    radius, height = rng.uniform(0.028, 0.033), rng.uniform(0.11, 0.13)
    neck = radius * 0.4
    profile = [
        (0, 0),
        (radius * 0.92, 0),
        (radius, 0.008),
        (radius, height * 0.7),
        (neck, height),
        (0, height),
    ]
    body = revolve(profile).scaled((1.15, 1, 0.85))
    outline = [[-0.028, 0], [0.018, -0.006], [0.018, 0.016], [-0.005, 0.028], [-0.034, 0.022]]
    head = extrude(outline, 0.022).placed((0, height + 0.012, 0))
    nozzle = _rod(0, 0.012, 0.006).placed((-0.028, height + 0.024, 0), (0, 0, 90))
    trigger = sweep([[-0.02, height + 0.014, 0], [-0.03, height - 0.004, 0], [-0.032, height - 0.022, 0]],
                    (0.003, 0.006), (0, 0, 1))  # fmt: skip
    return assemble([(body, wrapped(rng)), (join([head, nozzle, trigger]), plain(rng))])


def _dumbbell(rng: np.random.Generator) -> Mesh:
    length, weight = rng.uniform(0.14, 0.17), rng.uniform(0.028, 0.036)
    profile = [[0, -length / 2], [0.011, -length / 2], [0.014, 0], [0.011, length / 2], [0, length / 2]]
    grip = revolve(profile).placed((0, 0, 0), (0, 0, 90))
    ends = [_ball(weight).placed((x * length / 2, 0, 0), (0, 0, 90 * x)) for x in (-1, 1)]
    return assemble([(grip, metal(rng)), (ends[0], wrapped(rng)), (ends[1], wrapped(rng))])


def _teapot(rng: np.random.Generator) -> Mesh:
    radius = rng.uniform(0.042, 0.048)
    body = revolve(arc((0, 0), radius, -90, 90, 21)).scaled((1, 0.85, 1))
    spout_path = np.array([[-0.8, -0.3, 0], [-1.2, -0.15, 0], [-1.45, 0.2, 0], [-1.65, 0.55, 0]]) * radius
    spout = sweep(spout_path, np.array([[0.3], [0.22], [0.16], [0.13]]) * radius * [1, 1], (0, 0, 1))
    handle = _loop_handle(radius * 0.85, radius * 1.1, 0.036, 0.010)
    knob = _ball(radius * 0.18, 9).placed((0, radius * 0.95, 0))
    trim = plain(rng)
    return assemble([(body, wrapped(rng)), (join([spout, handle, knob]), trim)])


def _screwdriver(rng: np.random.Generator) -> Mesh:
    grip, shaft = rng.uniform(0.09, 0.11), rng.uniform(0.08, 0.10)
    radius = rng.uniform(0.013, 0.017)
    profile = np.array([[0, 0], [0.8, 0], [1, 0.1], [1, 0.6], [0.7, 0.75], [0.9, 1], [0, 1]])
    handle = revolve(profile * [radius, grip])
    rod = _rod(grip - 0.002, grip + shaft, 0.0035)
    blade = box([0.009, 0.012, 0.002]).placed((0, grip + shaft, 0))
    return assemble([(handle, wrapped(rng)), (join([rod, blade]), metal(rng))])


def _goblet(rng: np.random.Generator) -> Mesh:
    radius, stem = rng.uniform(0.034, 0.042), rng.uniform(0.05, 0.06)
    foot = revolve(
        [[0, 0], [radius * 0.9, 0], [radius * 0.8, 0.004], [0.009, 0.012], [0.008, stem], [0, stem]]
    )
    curve = arc((0, 0), 1.0, -78, 20, 16) * [radius, radius * 1.3] + [0, stem + radius * 1.26]
    outside, inside = _vessel(curve, 0.003)
    return assemble([(foot, metal(rng)), (outside, wrapped(rng)), (inside, plain(rng))])


def _camera(rng: np.random.Generator) -> Mesh:
    width, height, depth = rng.uniform((0.10, 0.06, 0.03), (0.125, 0.075, 0.04))
    lens = revolve([[0, 0], [0.026, 0], [0.026, 0.02], [0.021, 0.02], [0.021, 0.014], [0, 0.010]])
    lens = lens.placed((width * 0.08, 0, depth / 2), (90, 0, 0))
    button = _rod(0, 0.006, 0.007).placed((-width * 0.35, height / 2, 0))
    color = palette(rng, 1)[0] * 0.3
    dark = Material(name="lens", base_color_factor=(color[0], color[1], color[2], 1.0))
    return assemble([(box([width, height, depth]), printed_box(rng)), (lens, dark), (button, metal(rng))])


def _pan(rng: np.random.Generator) -> Mesh:
    radius, reach = rng.uniform(0.05, 0.06), rng.uniform(0.10, 0.12)
    outside, inside = _vessel(np.array([[radius * 0.85, 0], [radius, 0.028]]), 0.003)
    path = np.linspace((radius * 0.94, 0.018, 0), (radius + reach, 0.03, 0), 14)
    handle = sweep(path, np.linspace(0.007, 0.010, 14)[:, None] * [1, 1.4], (0, 0, 1))
    return assemble([(outside, wrapped(rng)), (inside, metal(rng)), (handle, wood(rng))])


_BUILDERS: dict[str, Callable[[np.random.Generator], Mesh]] = {
    "mug": _mug,
    "bottle": _bottle,
    "box": _box,
    "ball": _ball_object,
    "teapot": _teapot,
    "can": _can,
    "hammer": _hammer,
    "bowl": _bowl,
    "book": _book,
    "ring": _ring,
    "cup": _cup,
    "spray_bottle": _spray_bottle,
    "dumbbell": _dumbbell,
    "screwdriver": _screwdriver,
    "camera": _camera,
    "jar": _jar,
    "goblet": _goblet,
    "cube": _cube,
    "pan": _pan,
}
OBJECT_KINDS: tuple[str, ...] = tuple(_BUILDERS)
