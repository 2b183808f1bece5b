"""Generation: conditions and noise in, video out.

Letters: b clips, t frames, c latent channels, h×w latent, H×W picture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import NDArray
from torch import Tensor

from model.checkpoint import UNREADABLE
from model.codec import Codec, PixelUnshuffleCodec, VaeCodec, build_codec
from model.conditions import Conditions, join
from model.config import ModelConfig
from model.denoising_unet import Encoded, join_frames
from model.network import ManiVideoNetwork
from model.schedule import build_scheduler
from model.windows import WindowConfig, blend
from storage.errors import InputError

DECODED_AT_ONCE = 8  # frames, to bound the VAE's memory


@dataclass
class VideoOutput(BaseOutput):
    """What the pipeline returns."""

    frames: NDArray[np.float32]  # [b, t, H, W, 3] in [0, 1]


class ManiVideoPipeline(DiffusionPipeline):
    """Network, codec and scheduler; saved and loaded as one folder."""

    network: ManiVideoNetwork
    codec: Codec
    scheduler: DDIMScheduler

    def __init__(
        self,
        network: ManiVideoNetwork,
        codec: PixelUnshuffleCodec | VaeCodec,
        scheduler: DDIMScheduler,
    ) -> None:
        super().__init__()
        self.register_modules(network=network, codec=codec, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        conditions: Conditions,
        num_inference_steps: int = 25,
        guidance_scale: float = 1.0,
        generator: torch.Generator | None = None,
        window: WindowConfig | None = None,
    ) -> VideoOutput:
        """Generate one video for each clip of the conditions.

        A `guidance_scale` other than 1 is classifier-free guidance: predictions move away from those without
        conditions by that factor, at twice the time. `window` (default: 24 frames) cuts longer clips.
        Raises ValueError when shapes do not fit the network.
        """
        # 1. Check
        settings = self.network.settings
        conditions.check(settings.num_layers, settings.latent_channels, settings.factor)
        conditions = conditions.to(self.device, self.network.dtype)
        guided, window = guidance_scale != 1.0, window or WindowConfig()
        if settings.with_temporal and window.length > settings.temporal.max_frames:
            longest = settings.temporal.max_frames
            raise ValueError(f"windows of {window.length} frames, but position codes for {longest}")

        # 2. Encode what does not depend on the noise level
        encoded = self.encode(join([conditions, unconditional(conditions)]) if guided else conditions, window)

        # 3. Prepare noise and timesteps
        b, _, c, h, w = conditions.references.shape
        shape = (b, conditions.num_frames, c, h, w)
        z = randn_tensor(shape, generator=generator, device=self.device, dtype=self.network.dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)

        # 4. Denoise by window
        with self.progress_bar(total=num_inference_steps) as progress:
            for step, timestep in enumerate(self.scheduler.timesteps):
                predict = self._predictor(z, timestep, encoded, guidance_scale)
                prediction = blend(predict, conditions.num_frames, step, window)
                z = self.scheduler.step(prediction, timestep, z).prev_sample
                progress.update()

        # 5. Decode
        return VideoOutput(frames=self.decode(z))

    def encode(self, conditions: Conditions, window: WindowConfig) -> Encoded:
        """Encode a clip, its frames a window at a time."""
        stretches = [
            self.network.encode_frames(conditions.frames(start, start + window.length))
            for start in range(0, conditions.num_frames, window.length)
        ]
        return Encoded(self.network.encode_references(conditions.references), join_frames(stretches))

    def decode(self, z: Tensor) -> NDArray[np.float32]:
        """Latents [b, t, c, h, w] → frames [b, t, H, W, 3] in [0, 1]."""
        pictures = torch.cat([self.codec.decode(part) for part in z.flatten(0, 1).split(DECODED_AT_ONCE)])
        frames = (pictures.float() / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return frames.unflatten(0, z.shape[:2]).cpu().numpy()

    def _predictor(
        self, z: Tensor, timestep: Tensor, encoded: Encoded, guidance_scale: float
    ) -> Callable[[int, int], Tensor]:
        """Prediction of frames [start, stop) of z [b, t, c, h, w] at one timestep, guided."""

        def predict(start: int, stop: int) -> Tensor:
            clips, part = z[:, start:stop], encoded.frames(start, stop)
            if guidance_scale == 1.0:
                return self.network(clips, timestep.expand(len(z)), part)
            both = self.network(torch.cat([clips, clips]), timestep.expand(2 * len(z)), part)
            conditional, free = both.chunk(2)
            return free + guidance_scale * (conditional - free)

        return predict


def unconditional(conditions: Conditions) -> Conditions:
    """The same clips with everything absent."""
    return conditions.drop(torch.ones(len(conditions.points), dtype=torch.bool))


def build_pipeline(config: ModelConfig) -> ManiVideoPipeline:
    """A pipeline with fresh weights."""
    return ManiVideoPipeline(
        ManiVideoNetwork(config.network), build_codec(config.codec), build_scheduler(config.schedule)
    )


def read_pipeline(folder: Path) -> ManiVideoPipeline:
    """A saved pipeline; InputError where the folder holds none, or one that cannot be read."""
    if not (folder / "model_index.json").is_file():  # diffusers would look for such a name on its hub
        raise InputError(f"{folder}: no saved model in it", code="missing-folder")
    try:
        return ManiVideoPipeline.from_pretrained(folder)
    except (*UNREADABLE, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: cannot be read: {reason}", code="model") from error
