"""Pictures: decoding, cropping and resizing [H, W, 3] uint8 sRGB."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from render.camera import Crop
from storage.digests import digest_file, digest_json
from storage.errors import InputError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # Pillow reads others too: for some it starts programs


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture file as [H, W, 3]."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a picture: {error}", code="picture") from error


def crop_and_resize(picture: NDArray[np.uint8], crop: Crop, size: int) -> NDArray[np.uint8]:
    """Return a square crop of a picture at [size, size, 3], antialiased where it shrinks.

    A point of the picture lands where `render.camera.crop_camera` projects it: corners of the crop map to
    corners of the result, pixel centres are half a pixel inside.
    """
    box = (crop.x0, crop.y0, crop.x0 + crop.size_px, crop.y0 + crop.size_px)
    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(resized)


@dataclass(frozen=True)
class PictureSequence:
    """Pictures of one size, one a frame, read when asked for (a render.scene.Video)."""

    files: tuple[Path, ...]
    size: tuple[int, int]  # columns and rows that each must have

    @property
    def num_frames(self) -> int:
        """Return the number of pictures."""
        return len(self.files)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield every picture, [H, W, 3] sRGB; InputError where one is missing or of another size."""
        for file in self.files:
            picture = read_picture(file)
            if picture.shape[1::-1] != self.size:
                found, wanted = ("{} x {}".format(*size) for size in (picture.shape[1::-1], self.size))
                raise InputError.mismatch(file, "size", found=found, wanted=wanted, code="frame-size")
            yield picture

    def digest(self) -> str:
        """Return the sha256 of all pictures' bytes, in order."""
        for file in self.files:
            if not file.is_file():
                raise InputError(f"{file}: no such file", code="missing-file")
        return digest_json([digest_file(file) for file in self.files])
