"""A stored clip as tensors: compact in memory, then the network's conditions (paper, Sec. 3.1).

Letters: b clips, t frames, L layers, H×W picture, h×w latent, c latent channels, P points.
Pictures are u8 sRGB with channels first; a codec takes them in [-1, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from model.clip_context import clip_context
from model.codec import Codec
from model.conditions import FIRST_OBJECT_SLOT, OBJECT_LAYER, Conditions
from storage.dataset import ClipWindow

NUM_VIEWS = 6
VIEW_BACKGROUND = 255  # white behind the object's views and its first-frame crop
NO_LATENTS = np.zeros((0, 1, 1, 1), np.float32)
NORMAL_STEPS = 127  # storage keeps whole steps of 1/127, so int8 loses nothing


@dataclass(frozen=True)
class FrameTensors:
    """What a clip has of each frame, [t, …]; in a batch, [b, t, …].

    Of what it lacks, pictures of a clip of motion alone, or one of pictures and their latents, t = 0.
    """

    frames: Tensor  # u8 [t, 3, H, W]
    latents: Tensor  # f32 [t, c, h, w] of the frames
    area: Tensor  # bool [t, H, W] the hand-object area
    normals: Tensor  # H: int8 [t, L, 3, H, W] in steps of 1/127
    confidence: Tensor  # D: f16 [t, L, H, W]
    skeleton: Tensor  # S: u8 [t, 3, H, W]

    @classmethod
    def from_window(cls, window: ClipWindow, latents: NDArray[np.float32] = NO_LATENTS) -> Self:
        """Repack a stored window; normals keep every bit, confidence eleven."""
        return cls(
            frames=_channels_first(torch.from_numpy(window.frames)),
            latents=torch.from_numpy(latents),
            area=torch.from_numpy(window.mask),
            normals=_channels_first(torch.from_numpy(window.normal_steps)),
            confidence=torch.from_numpy(window.confidence).half(),
            skeleton=_skeleton(window),
        )

    def at(self, indices: NDArray[np.int64]) -> Self:
        """The frames at [k] positions."""
        chosen = torch.from_numpy(indices)
        there = {name: tensor for name, tensor in _tensors(self).items() if len(tensor)}
        return replace(self, **{name: tensor[chosen] for name, tensor in there.items()})


@dataclass(frozen=True)
class ReferenceTensors:
    """What a clip has once; in a batch, [b, …]."""

    pictures: Tensor  # O_I, O_B and f_8: u8 [8, 3, H, W]
    present: Tensor  # bool [8] which of them there are
    points: Tensor  # P: f32 [P, 3]

    @classmethod
    def from_window(cls, first: ClipWindow) -> Self:
        """Compose references at the frames' size from a window that begins with the clip's first frame."""
        size = first.mask.shape[1:]
        has_object = bool(first.views[..., 3].any())
        crop = first_object_crop(first)
        views = composite(first.views)
        pictures = [resize(views, size), resize(first.background[None], size)]
        pictures.append(resize(views[:1] if crop is None else crop[None], size))
        present = [has_object] * NUM_VIEWS + [True, crop is not None]
        return cls(torch.cat(pictures), torch.tensor(present), torch.from_numpy(first.points))


Group = TypeVar("Group", FrameTensors, ReferenceTensors)


def stack(parts: Sequence[Group]) -> Group:
    """Several clips as a batch."""
    each = [_tensors(part) for part in parts]
    return replace(parts[0], **{name: torch.stack([tensors[name] for tensors in each]) for name in each[0]})


def join(parts: Sequence[FrameTensors]) -> FrameTensors:
    """Frames of one clip, read apart."""
    each = [_tensors(part) for part in parts]
    return replace(parts[0], **{name: torch.cat([tensors[name] for tensors in each]) for name in each[0]})


def move(group: Group, device: torch.device | str) -> Group:
    """All tensors on a device."""
    return replace(group, **{name: tensor.to(device) for name, tensor in _tensors(group).items()})


def num_bytes(group: FrameTensors | ReferenceTensors) -> int:
    """Memory of all tensors."""
    return sum(tensor.nbytes for tensor in _tensors(group).values())


def to_signed(pictures: Tensor) -> Tensor:
    """U8 pictures → f32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1.0


def encode_references(references: ReferenceTensors, codec: Codec) -> Tensor:
    """Latents [b, 8, c, h, w] of a batch's references; exactly zero where absent."""
    latents = codec.encode(to_signed(references.pictures.flatten(0, 1)))
    latents = latents.unflatten(0, references.present.shape)
    return latents * references.present[..., None, None, None].to(latents)


def assemble(clips: FrameTensors, references: Tensor, context: Tensor, points: Tensor) -> Conditions:
    """Conditions of b clips from their frames, references as latents [b, 8, c, h, w] and as CLIP's tokens
    [b, k, d], and points [b, P, 3]."""
    return Conditions(
        normals=clips.normals.float() / NORMAL_STEPS,
        confidence=clips.confidence.float(),
        references=references,
        context=context,
        points=points,
        skeleton=clips.skeleton.float() / 255.0,
    )


@torch.no_grad()
def conditions_from_window(
    window: ClipWindow,
    codec: Codec,
    image_encoder: CLIPVisionModelWithProjection | None = None,
    *,
    first_object: NDArray[np.uint8] | bool = False,
    device: torch.device | str = "cpu",
) -> Conditions:
    """Conditions of one clip, b = 1, on the CPU, from a window that begins with its first frame.

    `first_object` fills f_8 with a picture [h, w, 3], or with the object as it is seen in that frame;
    `device` is where codec and image encoder work.
    """
    references = stack([ReferenceTensors.from_window(window)])
    if isinstance(first_object, np.ndarray):
        references.pictures[0, FIRST_OBJECT_SLOT] = resize(first_object[None], window.mask.shape[1:])[0]
        references.present[0, FIRST_OBJECT_SLOT] = True
    else:
        references.present[0, FIRST_OBJECT_SLOT] &= first_object
    latents = encode_references(move(references, device), codec).cpu()
    context = clip_context(image_encoder, references.pictures, references.present).cpu()
    return assemble(stack([FrameTensors.from_window(window)]), latents, context, references.points)


def composite(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGBA [n, H, W, 4] over white → RGB [n, H, W, 3]."""
    alpha = pictures[..., 3:].astype(np.float32) / 255.0
    return np.rint(pictures[..., :3] * alpha + VIEW_BACKGROUND * (1.0 - alpha)).astype(np.uint8)


def resize(pictures: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """[n, H, W, 3] → u8 [n, 3, *size], antialiased."""
    tensors = _channels_first(torch.from_numpy(pictures))
    if tensors.shape[-2:] == size:
        return tensors
    resized = F.interpolate(tensors.float(), size, mode="bicubic", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def first_object_crop(first: ClipWindow) -> NDArray[np.uint8] | None:
    """The object as the first frame shows it, square [s, s, 3] on white; None where it is not seen."""
    depth_order = first.confidence[0]  # [L, H, W]; the nearest layer has the highest confidence
    visible = (depth_order[OBJECT_LAYER] > 0) & (depth_order[OBJECT_LAYER] >= depth_order.max(axis=0))
    if not visible.any() or len(first.frames) == 0:
        return None
    rows, columns = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
    side = int(max(np.ptp(rows), np.ptp(columns))) + 1
    crop = np.full((side, side, 3), VIEW_BACKGROUND, np.uint8)
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    inside = visible[box]
    top, left = (side - inside.shape[0]) // 2, (side - inside.shape[1]) // 2
    crop[top : top + inside.shape[0], left : left + inside.shape[1]][inside] = first.frames[0][box][inside]
    return crop


def _tensors(group: Any) -> dict[str, Tensor]:
    return {field.name: getattr(group, field.name) for field in fields(group)}


def _skeleton(window: ClipWindow) -> Tensor:
    """S u8 [t, 3, H, W] of a window; zeros that take no memory where it has none."""
    if window.skeleton is None:
        t, height, width = window.mask.shape
        return torch.zeros((), dtype=torch.uint8).expand(t, 3, height, width)
    return _channels_first(torch.from_numpy(window.skeleton))


def _channels_first(pictures: Tensor) -> Tensor:
    """[…, H, W, 3] → […, 3, H, W]."""
    return pictures.movedim(-1, -3).contiguous()
