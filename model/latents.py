"""Latents of frames: encoded by the codec in training, or once for all, as records of the store.

The codec is frozen and gives a picture's mode, so training with stored latents is training without them: bit
for bit where a codec treats each picture alone (pixel unshuffle), to rounding where a convolution's result
depends on how many pictures go through it together (a VAE).
Letters: n pictures, t frames, c latent channels, h×w latent, H×W picture.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from model.clip_tensors import to_signed
from model.codec import Codec
from storage.digests import digest_arrays, digest_json
from storage.manifest import ClipRow
from storage.recipe import Recipe
from storage.records import LatentsData, latents_recipe
from storage.store import Store

ENCODED_AT_ONCE = 8  # pictures, to bound the codec's memory
OPEN_RECORDS = 1024  # kept open


@torch.no_grad()
def encode_pictures(codec: Codec, pictures: Tensor) -> Tensor:
    """Pictures u8 [n, 3, H, W] → latents [n, c, h, w]."""
    return torch.cat([codec.encode(to_signed(part)) for part in pictures.split(ENCODED_AT_ONCE)])


def digest_codec(codec: Codec) -> str:
    """Digest of a codec's kind, settings and weights."""
    weights = {name: tensor.cpu().numpy() for name, tensor in codec.state_dict().items()}
    settings = {key: value for key, value in codec.config.items() if not key.startswith("_")}
    return digest_json([type(codec).__name__, settings, digest_arrays(weights)])


def latent_bytes(codec: Codec, height: int, width: int) -> int:
    """Bytes of the latents of a picture, in float32."""
    return 4 * codec.latent_channels * (height // codec.factor) * (width // codec.factor)


class StoredLatents:
    """The latents of a store's frames by one codec, encoded on one kind of device."""

    def __init__(self, store: Store, codec: Codec) -> None:
        self.store, self.codec = store, codec
        self.digest = digest_codec(codec)
        self._open = lru_cache(OPEN_RECORDS)(store.open)

    def recipe(self, row: ClipRow) -> Recipe:
        """What the latents of a clip's frames are made of."""
        assert row.frames_key is not None  # what has no pictures is not trained on
        return latents_recipe(row.frames_key, self.digest, self.codec.device.type)

    def missing(self, rows: Sequence[ClipRow]) -> list[ClipRow]:
        """The clips whose frames have to be encoded; of those that share a frames record, one."""
        each = {recipe.key: row for row in rows for recipe in [self.recipe(row)]}
        missing = self.store.missing((LatentsData.KIND, key) for key in each)
        return [row for key, row in each.items() if (LatentsData.KIND, key) in missing]

    def encode(self, rows: Sequence[ClipRow], *, show: bool) -> None:
        """Write the latents of clips that lack them; stopped at any moment, it goes on where it was."""
        with self.store.in_use():
            for row in tqdm(rows, desc="encoding frames", unit="clip", disable=None if show else True):
                frames = self.store.open("frames", str(row.frames_key)).read("rgb")  # [t, H, W, 3]
                pictures = torch.from_numpy(frames).movedim(-1, 1).to(self.codec.device)
                latents = encode_pictures(self.codec, pictures).cpu().numpy()
                LatentsData(latents.astype(np.float32)).write(self.store, self.recipe(row))

    def read(self, row: ClipRow, frames: slice) -> NDArray[np.float32]:
        """The latents [t, c, h, w] of some of a clip's frames."""
        return self._open(LatentsData.KIND, self.recipe(row).key).read("latents", frames)

    def num_bytes(self, height: int, width: int) -> int:
        """Bytes of the latents of one frame."""
        return latent_bytes(self.codec, height, width)
