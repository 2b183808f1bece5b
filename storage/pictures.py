"""Pictures: decoding, cropping and resizing [H, W, 3] uint8 sRGB."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from render.camera import Crop
from storage.errors import InputError


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture file as [H, W, 3]."""
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: not a picture: {error}", code="picture") from error


def crop_and_resize(picture: NDArray[np.uint8], crop: Crop, size: int) -> NDArray[np.uint8]:
    """Return a square crop of a picture at [size, size, 3], antialiased where it shrinks.

    A point of the picture lands where `render.camera.crop_camera` projects it: corners of the crop map to
    corners of the result, pixel centres are half a pixel inside.
    """
    box = (crop.x0, crop.y0, crop.x0 + crop.size_px, crop.y0 + crop.size_px)
    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(resized)
