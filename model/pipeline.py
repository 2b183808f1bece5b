"""Generation: conditions and noise in, video out.

Letters: b clips, t frames, c latent channels, h×w latent, H×W picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from diffusers import DDIMScheduler, DiffusionPipeline
from diffusers.utils import BaseOutput
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from model.checkpoint import UNREADABLE
from model.clip_context import context_shape
from model.codec import Codec, PixelUnshuffleCodec, VaeCodec, build_codec
from model.conditions import Conditions
from model.config import ModelConfig, NetworkConfig
from model.controlnet_baseline import ControlNetBaseline
from model.denoising_unet import ClipEncoding, Encoded, join_frames
from model.network import ManiVideoNetwork
from model.sampling import SamplingConfig, check_sampling, draw_noise, guidance_branches
from model.schedule import build_sampler, build_scheduler
from model.weights import check_complete
from model.windows import denoise
from storage.errors import InputError, one_line

SAVED = (
    ManiVideoNetwork,
    ControlNetBaseline,
    PixelUnshuffleCodec,
    VaeCodec,
)  # what may be in a pipeline


@dataclass
class VideoOutput(BaseOutput):
    """What the pipeline returns."""

    frames: NDArray[np.float32]  # [b, t, H, W, 3] in [0, 1]


class ManiVideoPipeline(DiffusionPipeline):
    """Network, codec, scheduler and, for `context: clip_image`, CLIP's encoder; saved as one folder."""

    model_cpu_offload_seq = "image_encoder->network->codec"  # for enable_model_cpu_offload
    _optional_components: ClassVar = ["image_encoder"]

    network: ManiVideoNetwork | ControlNetBaseline
    codec: Codec
    scheduler: DDIMScheduler
    image_encoder: CLIPVisionModelWithProjection | None

    def __init__(
        self,
        network: ManiVideoNetwork | ControlNetBaseline,
        codec: PixelUnshuffleCodec | VaeCodec,
        scheduler: DDIMScheduler,
        image_encoder: CLIPVisionModelWithProjection | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(network=network, codec=codec, scheduler=scheduler, image_encoder=image_encoder)

    @torch.no_grad()
    def __call__(
        self,
        conditions: Conditions,
        sampling: SamplingConfig | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> VideoOutput:
        """Generate one video for each clip of the conditions, which may stay on the CPU.

        What is on the device at once does not grow with the number of frames, but for z itself. With a
        generator for each clip, a clip's video is the same in any batch.
        Raises ValueError when shapes do not fit the network, FloatingPointError where a pixel is no number.
        """
        # 1. Check
        sampling = sampling or SamplingConfig()
        self.check(conditions, sampling)

        # 2. Encode what does not depend on the noise level
        branches = self.encode(conditions, sampling)

        # 3. Prepare noise and timesteps
        b, _, c, h, w = conditions.references.shape
        sampler = build_sampler(self.scheduler, sampling.sampler)
        sampler.set_timesteps(sampling.num_inference_steps, device=self._execution_device)
        noise = draw_noise((b, conditions.num_frames, c, h, w), generator)
        z = noise.to(self._execution_device) * sampler.init_noise_sigma  # f32: Euler's z begins far above 1

        # 4. Denoise by window
        with self.progress_bar(total=len(sampler.timesteps)) as progress:
            z = denoise(z, sampler, partial(self._predict, branches), sampling.window, progress.update)

        # 5. Decode
        frames = self.decode(z, sampling.decoded_at_once)
        self.maybe_free_model_hooks()
        if not np.isfinite(frames).all():
            raise FloatingPointError("pixels that are no numbers: look at the weights and the guidance")
        return VideoOutput(frames=frames)

    def check(self, conditions: Conditions, sampling: SamplingConfig) -> None:
        """Raise ValueError where conditions do not fit the network, or it cannot be sampled so."""
        settings = self.network.settings
        conditions.check(
            settings.num_layers, settings.latent_channels, settings.factor, context_shape(settings)
        )
        levels = self.scheduler.config.num_train_timesteps
        check_sampling(sampling, longest_window=settings.longest_window, noise_levels=levels)

    def encode(self, conditions: Conditions, sampling: SamplingConfig) -> list[tuple[float, Encoded]]:
        """Encode each prediction that guidance sums, references once a clip and frames a window at a time.

        The frames of a clip longer than a window wait on the CPU.
        """
        device, dtype, length = self._execution_device, self.network.dtype, sampling.window.length
        waits = torch.device("cpu") if conditions.num_frames > length else device
        encoded: list[tuple[float, Encoded]] = []
        appearance: tuple[Tensor, ClipEncoding] | None = None
        for weight, branch in guidance_branches(conditions, sampling):
            stretches = [
                self.network.encode_frames(branch.frames(start, start + length).to(device)).to(waits)
                for start in range(0, branch.num_frames, length)
            ]
            if (
                appearance is None or appearance[0] is not branch.references
            ):  # R runs once for the same pictures
                pictures = (branch.references.to(device, dtype), branch.context.to(device, dtype))
                appearance = branch.references, self.network.encode_references(*pictures)
            encoded.append((weight, Encoded(appearance[1], join_frames(stretches))))
        return encoded

    def decode(self, z: Tensor, at_once: int) -> NDArray[np.float32]:
        """Latents [b, t, c, h, w] → frames [b, t, H, W, 3] in [0, 1]."""
        parts = z.to(self.codec.dtype).flatten(0, 1).split(at_once)
        pictures = torch.cat([self.codec.decode(part).float().cpu() for part in parts])
        frames = (pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
        return frames.unflatten(0, z.shape[:2]).numpy()

    def _predict(
        self, branches: list[tuple[float, Encoded]], z: Tensor, timestep: Tensor, start: int, stop: int
    ) -> Tensor:
        """Guided prediction of frames [start, stop) of z [b, t, c, h, w] at one timestep."""
        part = z[:, start:stop].to(self.network.dtype)
        steps = timestep.expand(len(z))
        predictions = [
            weight * self.network(part, steps, encoded.frames(start, stop)).float()
            for weight, encoded in branches
        ]
        return torch.stack(predictions).sum(dim=0)


def build_pipeline(config: ModelConfig) -> ManiVideoPipeline:
    """A pipeline with fresh weights."""
    return ManiVideoPipeline(
        build_network(config.network), build_codec(config.codec), build_scheduler(config.schedule)
    )


def build_network(settings: NetworkConfig) -> ManiVideoNetwork:
    """The method's network, or the baseline's, with fresh weights."""
    return (ControlNetBaseline if settings.method == "controlnet" else ManiVideoNetwork)(settings)


def read_network_settings(folder: Path) -> NetworkConfig:
    """The network's settings of a saved pipeline; InputError where they are not there or cannot be read."""
    with reading(folder):
        config = ManiVideoNetwork.load_config(folder, subfolder="network")
        return NetworkConfig.model_validate(config["settings"])


def read_pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> ManiVideoPipeline:
    """A saved pipeline, its network in `dtype`; InputError where the folder holds none, or a broken one."""
    kinds = {kind.__name__: kind for kind in SAVED}
    with reading(folder):
        index = ManiVideoPipeline.load_config(folder)
        parts = {
            part: kinds[index[part][1]].from_pretrained(
                folder, subfolder=part, dtype=precision, output_loading_info=True
            )
            for part, precision in (("network", dtype), ("codec", torch.float32))
        }
    for part, (_, info) in parts.items():  # diffusers leaves what is missing without contents
        check_complete(str(folder / part), info)
    with reading(folder):
        return ManiVideoPipeline.from_pretrained(folder, **{part: read for part, (read, _) in parts.items()})


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turn what is wrong with a saved pipeline's folder into an InputError that names it."""
    if not (folder / "model_index.json").is_file():  # diffusers would look for such a name on its hub
        raise InputError(f"{folder}: no saved model in it", code="missing-folder")
    try:
        yield
    except (*UNREADABLE, TypeError) as error:
        raise InputError(f"{folder}: cannot be read: {one_line(error)}", code="model") from error
