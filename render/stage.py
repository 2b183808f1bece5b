"""What a synthetic session is seen with: cameras, light and an empty background.

Letters: P points, H rows, W columns. Frame: world in metres, +Y up, the table's top at y = 0. Cameras stand
on an arc about +Z and face the person, so that wrists end away from them.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from render.lighting import DirectionalLight, LightingConfig
from render.scene import Camera
from render.transforms import invert_rigid, look_at, transform

FloatArray = NDArray[np.float64]
MARGIN = 0.94  # of the picture's half size that the scene may fill
TABLE_M = (0.75, 0.45)  # half width and half depth
WALL_Z_M = -0.8
GRAIN_M = 0.5  # the table's grain repeats after so much


def place_camera(
    points: FloatArray, azimuth_deg: float, size: tuple[int, int], rng: np.random.Generator
) -> Camera:
    """Return a camera of (width, height) pixels that has all points [P, 3] in its picture."""
    width, height = size
    azimuth = np.deg2rad(azimuth_deg + rng.uniform(-5, 5))
    elevation = np.deg2rad(rng.uniform(22, 50))
    outward = np.array([np.sin(azimuth), np.tan(elevation), np.cos(azimuth)]) * np.cos(elevation)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    eye = middle + rng.uniform(0.65, 0.85) * outward
    for _ in range(4):  # aim so that the scene is centred
        camera_from_world = look_at(eye, middle)
        seen = transform(camera_from_world, points)
        seen = seen[:, :2] / seen[:, 2:]  # [P, 2]
        off = (seen.min(axis=0) + seen.max(axis=0)) / 2
        distance = np.linalg.norm(middle - eye)
        middle = middle + distance * (off[0] * camera_from_world[0, :3] + off[1] * camera_from_world[1, :3])
    half = np.array([width, height]) / 2
    focal = MARGIN * (half / np.abs(seen).max(axis=0)).min() * rng.uniform(0.95, 1.0)
    centre = half - 0.5 + rng.uniform(-0.01, 0.01, 2) * half
    intrinsics = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])
    return Camera(width, height, intrinsics, camera_from_world)


def random_lighting(rng: np.random.Generator) -> LightingConfig:
    """Draw a warm or cold light from above and in front, and a softer one from the side."""
    warm = rng.uniform(-0.06, 0.06)
    key = rng.uniform(0.45, 0.65)
    lights = (
        DirectionalLight(
            towards=(rng.uniform(-0.8, 0.8), 1.0, rng.uniform(0.3, 0.9)),
            color=(key * (1 + warm), key, key * (1 - warm)),
        ),
        DirectionalLight(towards=(rng.choice([-1.0, 1.0]), 0.4, 0.2), color=(0.12, 0.12, 0.13)),
    )
    ambient = rng.uniform(0.34, 0.46)
    return LightingConfig(
        sky=(ambient, ambient, ambient * (1 - warm)),
        ground=(0.6 * ambient, 0.57 * ambient, 0.53 * ambient),
        lights=lights,
    )


class Room:
    """A table before a wall, in colours and grain drawn once for all cameras."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._wall = np.array([0.72, 0.72, 0.72]) + rng.uniform(-0.1, 0.1, 3)
        self._fade = rng.uniform(0.1, 0.3)
        tints = np.array([[0.55, 0.40, 0.27], [0.70, 0.60, 0.48], [0.42, 0.45, 0.48], [0.78, 0.78, 0.76]])
        self._table = tints[rng.integers(len(tints))] * rng.uniform(0.9, 1.1)
        stretch = rng.choice([1.0, 12.0])  # cloth or wood
        grain = gaussian_filter(rng.normal(size=(256, 256)), (1.5, 1.5 * stretch), mode="wrap")
        self._grain = grain / grain.std()
        self._strength = rng.uniform(0.02, 0.06)

    def background(self, camera: Camera) -> NDArray[np.uint8]:
        """Return the empty room [H, W, 3] that a camera sees, sRGB, by four rays a pixel."""
        quarters = [(x, y) for x in (-0.25, 0.25) for y in (-0.25, 0.25)]
        image = np.mean([self._seen(camera, offset) for offset in quarters], axis=0)
        return np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)

    def _seen(self, camera: Camera, offset_px: tuple[float, float]) -> FloatArray:
        """Return colours [H, W, 3] in 0..1 along rays through pixel centres moved by (columns, rows)."""
        columns, rows = np.meshgrid(
            np.arange(camera.width) + offset_px[0], np.arange(camera.height) + offset_px[1]
        )
        pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
        world_from_camera = invert_rigid(camera.camera_from_world)
        rays = pixels @ np.linalg.inv(camera.intrinsics).T @ world_from_camera[:3, :3].T  # [H, W, 3]
        eye = world_from_camera[:3, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            to_table, to_wall = -eye[1] / rays[..., 1], (WALL_Z_M - eye[2]) / rays[..., 2]
        at_table = (eye + to_table[..., None] * rays)[..., [0, 2]]
        on_table = (rays[..., 1] < 0) & (np.abs(at_table) < TABLE_M).all(axis=-1)
        height = np.where(to_wall > 0, eye[1] + to_wall * rays[..., 1], 1.0)
        wall = self._wall * (1 - self._fade * np.clip(0.6 - height, 0, 1.5))[..., None]
        place = np.moveaxis(at_table * len(self._grain) / GRAIN_M, -1, 0)
        grain = map_coordinates(self._grain, place, order=1, mode="grid-wrap")
        falloff = 1 - 0.25 * np.linalg.norm(at_table, axis=-1)
        table = self._table * (falloff + self._strength * grain)[..., None]
        return np.where(on_table[..., None], table, wall)
