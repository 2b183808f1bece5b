"""Pictures for people: layers in colours, labelled panels, contact sheets, side-by-side video frames.

Letters: L layers (7, in the order of `render.scene.Layer`), H rows, W columns.  A picture is u8 [H, W, 3].
Normals are in the camera's frame (OpenCV: a surface that faces the camera has z < 0), 0 where empty.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from render.scene import Layer

Picture = NDArray[np.uint8]

LAYER_COLORS = {
    Layer.OBJECT: (235, 235, 235),
    Layer.PALM: (150, 110, 190),
    Layer.THUMB: (230, 75, 60),
    Layer.INDEX: (245, 160, 40),
    Layer.MIDDLE: (240, 220, 70),
    Layer.RING: (90, 190, 90),
    Layer.LITTLE: (70, 140, 230),
}
EMPTY = 24  # grey level of a pixel that nothing covers
LABEL_HEIGHT = 22  # pixels
GAP = 4  # pixels between panels
EDGE = 72  # grey level between the cells of a panel, which tells them apart where they are empty


def file_name(clip: str) -> str:
    """Return the name of the files that show a clip: another for each id, and of plain characters."""
    return quote(clip, safe="/ ").replace("/", "+")


def composite_picture(normals: NDArray[np.float32], confidence: NDArray[np.float32]) -> Picture:
    """Colour the nearest of the layers [L, H, W, 3], [L, H, W] at each pixel, darker where turned away."""
    colors = np.array([LAYER_COLORS[layer] for layer in Layer], np.float32)  # [L, 3]
    nearest = confidence.argmax(axis=0)  # [H, W]
    facing = -np.take_along_axis(normals[..., 2], nearest[None], axis=0)[0]  # [H, W]
    shaded = colors[nearest] * (0.35 + 0.65 * np.clip(facing, 0.0, 1.0))[..., None]  # [H, W, 3]
    covered = confidence.max(axis=0)[..., None] > 0
    return np.where(covered, shaded, EMPTY).astype(np.uint8)


def normals_picture(normals: NDArray[np.float32]) -> Picture:
    """Show unit normals [H, W, 3] as colours, (n + 1) / 2 with y up and z to the viewer, as is usual."""
    covered = np.any(normals != 0, axis=-1, keepdims=True)
    towards_viewer = normals * np.array([1, -1, -1], np.float32)
    return np.where(covered, (towards_viewer + 1.0) * 127.5, EMPTY).round().astype(np.uint8)


def confidence_picture(confidence: NDArray[np.float32]) -> Picture:
    """Show a confidence map [H, W] as grey: brighter is nearer."""
    return np.repeat((confidence[..., None] * 255.0).round().astype(np.uint8), 3, axis=-1)


def over_grey(picture: NDArray[np.uint8]) -> Picture:
    """Put sRGB with straight alpha [..., H, W, 4] before mid-grey, which sets off white and black alike."""
    alpha = picture[..., 3:].astype(np.float32) / 255
    return np.rint(alpha * picture[..., :3] + (1 - alpha) * 127).astype(np.uint8)


def resized(picture: Picture, height: int, *, smooth: bool = True) -> Picture:
    """Scale a picture to `height` rows, its shape kept."""
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize((width, height), method))


def labelled(picture: Picture, label: str) -> Picture:
    """Put a strip with `label` above a picture."""
    strip = Image.new("RGB", (picture.shape[1], LABEL_HEIGHT), (0, 0, 0))
    font = ImageFont.load_default(size=13)
    ImageDraw.Draw(strip).text((4, 3), label, fill=(230, 230, 230), font=font)
    return np.concatenate([np.asarray(strip), picture])


def row(panels: Sequence[Picture], grey: int = 0) -> Picture:
    """Put panels side by side with `grey` between; shorter ones are filled up below."""
    height = max(panel.shape[0] for panel in panels)
    padded = [
        np.pad(panel, ((0, height - panel.shape[0]), (0, GAP), (0, 0)), constant_values=grey)
        for panel in panels
    ]
    return np.concatenate(padded, axis=1)[:, :-GAP]


def column(panels: Sequence[Picture], grey: int = 0) -> Picture:
    """Put panels below one another with `grey` between; narrower ones are filled up on the right."""
    width = max(panel.shape[1] for panel in panels)
    padded = [
        np.pad(panel, ((0, GAP), (0, width - panel.shape[1]), (0, 0)), constant_values=grey)
        for panel in panels
    ]
    return np.concatenate(padded)[:-GAP]


def layers_panel(normals: NDArray[np.float32], confidence: NDArray[np.float32], height: int) -> Picture:
    """Show one frame's seven layers and their composite as two rows of four cells; `height` in pixels."""
    pictures = [normals_picture(normals[layer]) for layer in Layer]
    return _cells([*pictures, composite_picture(normals, confidence)], height)


def confidence_panel(normals: NDArray[np.float32], confidence: NDArray[np.float32], height: int) -> Picture:
    """Show one frame's confidence maps [L, H, W] in the cells of `layers_panel`, the nearest's last."""
    maps = [*(confidence[layer] for layer in Layer), confidence.max(axis=0)]
    return _cells([confidence_picture(part) for part in maps], height)


def _cells(pictures: Sequence[Picture], height: int) -> Picture:
    cells = [resized(picture, (height - GAP) // 2) for picture in pictures]
    return column([row(cells[:4], EDGE), row(cells[4:], EDGE)], EDGE)


def comparison_frames(
    normals: NDArray[np.float32],  # [T, L, H, W, 3]
    confidence: NDArray[np.float32],  # [T, L, H, W]
    videos: dict[str, NDArray[np.uint8]],  # label → [T, H, W, 3]
    panel_height: int,
) -> Iterator[Picture]:
    """Yield frames that show the layers, then each video, in labelled columns of `panel_height` pixels."""
    for index in range(len(normals)):
        layers = layers_panel(normals[index], confidence[index], panel_height)
        columns = [labelled(layers, "layers: object, palm, thumb, index / middle, ring, little, all")]
        columns += [labelled(resized(frames[index], panel_height), label) for label, frames in videos.items()]
        frame = row(columns)
        height, width = frame.shape[:2]
        yield np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)))  # h264 wants even sizes


def save_png(picture: Picture, path: Path) -> None:
    """Write a picture as PNG."""
    Image.fromarray(picture).save(path)
