"""Light on textured surfaces: a hemisphere of sky and ground, and directional lights.

Colours are linear RGB; a white surface that gets (1, 1, 1) in all is white in the picture.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

Color = tuple[float, float, float]


class DirectionalLight(BaseModel, frozen=True, extra="forbid"):
    """A light so far away that its rays are parallel."""

    towards: tuple[float, float, float] = (0.5, 1.0, 0.6)
    """World direction from the scene to the light, of any length."""
    color: Color = (0.8, 0.77, 0.7)
    """Light on a surface that faces it, linear RGB."""


class LightingConfig(BaseModel, frozen=True, extra="forbid"):
    """All light of a scene."""

    sky: Color = (0.38, 0.4, 0.44)
    """Ambient light on a surface that faces up, linear RGB."""
    ground: Color = (0.22, 0.2, 0.18)
    """Ambient light on a surface that faces down, linear RGB."""
    lights: tuple[DirectionalLight, ...] = (DirectionalLight(),)
    """Directional lights."""
    specular: float = 0.06
    """Strength of highlights, of 1 for a mirror-white one."""


# Everything in its own colour: what a surface sends back is its base colour, whichever way it faces.
UNLIT = LightingConfig(sky=(1.0, 1.0, 1.0), ground=(1.0, 1.0, 1.0), lights=(), specular=0.0)


class Lights(NamedTuple):
    """Light in camera space, in arrays that compiled code reads."""

    sky: NDArray[np.float64]  # [3]
    ground: NDArray[np.float64]  # [3]
    up: NDArray[np.float64]  # [3] unit
    towards: NDArray[np.float64]  # [K, 3] unit
    halfway: NDArray[np.float64]  # [K, 3] unit, between the light and a viewer far along −z
    colors: NDArray[np.float64]  # [K, 3]
    specular: float


def lights_in_camera(lighting: LightingConfig, camera_from_world: NDArray) -> Lights:
    """Turn the lights of a world with +Y up into a camera's space."""
    rotation = camera_from_world[:3, :3].astype(np.float64)
    towards = np.array([light.towards for light in lighting.lights], np.float64).reshape(-1, 3)
    towards = towards / np.linalg.norm(towards, axis=1, keepdims=True) @ rotation.T
    halfway = towards - (0.0, 0.0, 1.0)
    halfway /= np.maximum(np.linalg.norm(halfway, axis=1, keepdims=True), 1e-12)
    return Lights(
        sky=np.array(lighting.sky),
        ground=np.array(lighting.ground),
        up=np.ascontiguousarray(rotation[:, 1]),
        towards=np.ascontiguousarray(towards),
        halfway=np.ascontiguousarray(halfway),
        colors=np.array([light.color for light in lighting.lights], np.float64).reshape(-1, 3),
        specular=lighting.specular,
    )
