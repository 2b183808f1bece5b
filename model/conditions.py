"""Everything that a clip is generated from, as tensors (paper, Sec. 3.1 and Fig. 2, left column).

Letters: b batch, t frames, L layers, H×W picture, h×w latent, c latent channels, P points.
What is absent is zero: hands of object-only data, everything but O_B of human video, a dropped sample.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

NUM_REFERENCES = 8  # six views O_I, the human or background picture O_B, the optional first-frame object f_8
FRONT_SLOT, BACKGROUND_SLOT, FIRST_OBJECT_SLOT = 0, 6, 7  # the front view, O_B and f_8 among them
OBJECT_LAYER = 0  # H_o: the object comes first among the layers
FRAME_FIELDS = ("normals", "confidence", "skeleton")  # those with a time axis: the motion


@dataclass(frozen=True)
class Conditions:
    """The conditions of b clips of t frames each."""

    normals: Tensor  # H: [b, t, L, 3, H, W] in [-1, 1], 0 where the layer is empty
    confidence: Tensor  # D: [b, t, L, H, W] in [0, 1], `signed` in [-1, 1]; 0 where the layer is empty
    references: Tensor  # O_I, O_B and f_8 as latents: [b, 8, c, h, w]
    context: Tensor  # CLIP's token of the front view: [b, k, d]; k = 0: the network has its own
    points: Tensor  # P: [b, P, 3] in the object's canonical frame
    skeleton: Tensor  # S: [b, t, 3, H, W] in [0, 1], 0 where nothing is drawn

    @property
    def num_frames(self) -> int:
        return self.normals.shape[1]

    @property
    def object_normals(self) -> Tensor:
        """H_o of Eq. 4: [b, t, 3, H, W]."""
        return self.normals[:, :, OBJECT_LAYER]

    @property
    def composite_depth(self) -> Tensor:
        """The one picture that is left without MLO: confidence of the nearest layer, [b, t, 1, H, W]."""
        return self.confidence.amax(dim=2, keepdim=True)

    @property
    def hidden(self) -> Tensor:
        """Where another layer is nearer: [b, t, L, H, W]; meaningless where the layer is empty.

        Layers whose D is the same in the eleven bits that are read of it are equally near. To be asked before
        D is rounded to bfloat16, in which layers that touch are.
        """
        return self.confidence < self.composite_depth

    def visible(self, hidden: Tensor) -> "Conditions":
        """H and D of what is nearest alone: layers are empty where they are `hidden` [b, t, L, H, W]."""
        return replace(
            self,
            normals=self.normals.masked_fill(hidden[:, :, :, None], 0),
            confidence=self.confidence.masked_fill(hidden, 0),
        )

    def signed(self, hidden: Tensor) -> "Conditions":
        """D is negative where a layer is `hidden` [b, t, L, H, W]."""
        return replace(self, confidence=self.confidence.where(~hidden, -self.confidence))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Conditions":
        """Move every tensor."""
        return self._map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def frames(self, start: int, stop: int) -> "Conditions":
        """The clip's frames [start, stop); references and points have no time."""
        return replace(self, **{name: getattr(self, name)[:, start:stop] for name in FRAME_FIELDS})

    def split(self, count: int) -> "list[Conditions]":
        """The b clips in `count` shares of about equally many."""
        parts = zip(*(getattr(self, field.name).tensor_split(count) for field in fields(self)), strict=True)
        return [Conditions(*part) for part in parts]

    def drop(self, dropped: Tensor, motion_dropped: Tensor) -> "Conditions":
        """Classifier-free dropout: zero every condition of the samples where `dropped` [b] is true, and those
        of motion where `motion_dropped` [b] is."""

        def zero(name: str) -> Tensor:
            tensor = getattr(self, name)
            mask = (dropped | motion_dropped) if name in FRAME_FIELDS else dropped
            return tensor.masked_fill(_over_rest(mask.to(tensor.device), tensor), 0)

        return Conditions(**{field.name: zero(field.name) for field in fields(self)})

    def without_motion(self) -> "Conditions":
        """The same references and points, nothing of the layers and the skeleton."""
        return replace(self, **{name: _zeros(getattr(self, name)) for name in FRAME_FIELDS})

    def absent(self) -> "Conditions":
        """The same clips with everything absent."""
        return self._map(_zeros)

    def check(
        self, num_layers: int, latent_channels: int, factor: int, context: tuple[int, int] = (0, 0)
    ) -> None:
        """Raise ValueError naming each tensor whose shape does not fit the normals' and the model's."""
        b, t, _, _, height, width = self.normals.shape
        wanted = {
            "normals": (b, t, num_layers, 3, height, width),
            "confidence": (b, t, num_layers, height, width),
            "references": (b, NUM_REFERENCES, latent_channels, height // factor, width // factor),
            "context": (b, *context),
            "points": (b, self.points.shape[1], 3),
            "skeleton": (b, t, 3, height, width),
        }
        wrong = [
            f"{name} is {list(found)}, wanted {list(shape)}"
            for name, shape in wanted.items()
            if (found := tuple(getattr(self, name).shape)) != shape
        ]
        if height % factor or width % factor:
            wrong.append(f"pictures are {height} by {width}, wanted multiples of {factor}")
        if wrong:
            raise ValueError("conditions: " + "; ".join(wrong))

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Conditions":
        return Conditions(**{field.name: function(getattr(self, field.name)) for field in fields(self)})


def _zeros(like: Tensor) -> Tensor:
    """Zeros that take no memory."""
    return like.new_zeros(()).expand_as(like)


def _over_rest(mask: Tensor, like: Tensor) -> Tensor:
    """[b] → [b, 1, …] with as many axes as `like`."""
    return mask.reshape(-1, *[1] * (like.ndim - 1))
