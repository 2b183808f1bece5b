"""How much memory a training step needs, found before it is run.

A step is run on tensors that have shapes and no contents, while the bytes of every storage alive are counted:
activations, gradients and intermediate results come out as they will be, with checkpointing, accumulation and
precision as configured. Weights, averaged weights and the optimizer's moments are added to that, and the
further copies of the gradients that threads and processes sum.
Not counted: the clips kept in memory, an allocator's gaps, what libraries compile and work on inside their
kernels, and what a GPU's driver holds.
Letters: b clips, t frames, c latent channels, h×w latent, H×W picture.
"""

import copy
import weakref
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from model.clip_context import context_shape
from model.conditions import NUM_REFERENCES, Conditions
from model.objective import NoisedClips, Objective
from model.start import network_without_contents
from model.trainer import Trainer, build_optimizer, select_trained
from model.training_config import TrainConfig

NUM_POINTS = 2048  # of a stored object
aten = torch.ops.aten


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training holds at its peak."""

    weights: int  # of network, codec and image encoder
    moments: int  # of the optimizer
    average: int  # averaged weights
    step: int  # gradients, activations and intermediate results, where they are most

    @property
    def total(self) -> int:
        return self.weights + self.moments + self.average + self.step


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the storages made under it that are alive, and their peak.

    Tensors without contents cannot answer two questions: a mask picks everything, and a number read is 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is aten._local_scalar_dense.default:
            return 0.0
        if func is aten.index.Tensor and args[1][0] is not None and args[1][0].dtype == torch.bool:
            chosen, (mask,) = args
            result = chosen.new_empty(mask.numel(), *chosen.shape[mask.ndim :])
        else:
            result = func(*args, **kwargs or {})
        given = {id(storage) for storage in _storages((args, kwargs))}
        for storage in _storages(result):
            if id(storage) not in given:  # a view of what was there before is nothing new
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self.known:
            return

        def forget(_: Any) -> None:
            del self.known[key]
            self.live -= size

        self.known[key] = weakref.ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def estimate_memory(trainer: Trainer, height: int, width: int) -> MemoryEstimate:
    """What training on pictures of height × width pixels needs; computes nothing and allocates nothing."""
    modules = (trainer.network, trainer.codec, trainer.image_encoder)
    averaged = trainer.parameters if trainer.state.ema is not None else []
    return MemoryEstimate(
        weights=sum(num_bytes(module) for module in modules if module is not None),
        moments=num_moment_bytes(trainer.state.optimizer),
        average=sum(parameter.nbytes for parameter in averaged),
        step=peak_of_step(trainer, height, width) + num_exchanged_bytes(trainer),
    )


def least_bytes(config: TrainConfig) -> tuple[int, int]:
    """The network's bytes, and with gradients, moments and average: whatever the clips. Builds nothing."""
    network = network_without_contents(config)
    trained = select_trained(network, config.stage)
    each = sum(parameter.nbytes for parameter in trained.values())
    copies = 2 if config.ema_decay else 1  # gradients, and averaged weights
    weights = num_bytes(network)
    return weights, weights + copies * each + num_moment_bytes(build_optimizer(trained, config))


def num_moment_bytes(optimizer: Optimizer) -> int:
    """Bytes that an optimizer keeps."""
    return sum(
        (1 if group.get("use_muon") else 2) * parameter.nbytes  # Adam keeps two, Muon one
        for group in optimizer.param_groups
        for parameter in group["params"]
    )


def num_exchanged_bytes(trainer: Trainer) -> int:
    """Bytes of gradients beside a parameter's own: those of other threads, and what processes send."""
    gradients = sum(parameter.nbytes for parameter in trainer.parameters)
    if isinstance(trainer.objective, DistributedDataParallel):
        return gradients  # its buckets
    return gradients * (min(trainer.config.clip_threads, trainer.config.batch.clips) - 1)


def peak_of_step(trainer: Trainer, height: int, width: int) -> int:
    """Bytes of gradients, activations and intermediate results of a step, at their peak."""
    # The trainer itself may be without contents, and there is one mode of such tensors at a time.
    fake = active_fake_mode() or FakeTensorMode(allow_non_fake_inputs=True)
    with FakeCopyMode(fake):
        objective = copy.deepcopy(unwrapped(trainer.objective))
    simulated = copy.copy(trainer)
    simulated.objective = objective
    # Shares on threads of their own are alive together, so their activations take what the whole's take.
    simulated.config = trainer.config.model_copy(update={"clip_threads": 1})
    simulated.parameters = [objective.network.get_parameter(name) for name in trainer.state.trained]
    with fake, LiveBytes() as live:
        clips = clips_without_contents(trainer, height, width)
        # The second part finds gradients beside it, as do those that follow.
        for part in clips.split(trainer.config.accumulate)[:2]:
            simulated.add_gradients(part, weight=1.0)
    return live.peak


def unwrapped(objective: Objective | DistributedDataParallel) -> Objective:
    """The objective without what joins several processes."""
    return objective.module if isinstance(objective, DistributedDataParallel) else objective


def clips_without_contents(trainer: Trainer, height: int, width: int) -> NoisedClips:
    """This process' share of a step's batch; of any contents, as only shapes count."""
    settings, b, t = trainer.network.settings, len(trainer.slots()), trainer.config.batch.frames
    layers, factor = settings.num_layers, settings.factor
    latent = (settings.latent_channels, height // factor, width // factor)

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=trainer.device)

    return NoisedClips(
        z_t=empty(b, t, *latent),
        timestep=empty(b, t, dtype=torch.int64),
        target=empty(b, t, *latent),
        area=empty(b, t, height, width, dtype=torch.bool),
        conditions=Conditions(
            normals=empty(b, t, layers, 3, height, width),
            confidence=empty(b, t, layers, height, width),
            references=empty(b, NUM_REFERENCES, *latent),
            context=empty(b, *context_shape(settings)),
            points=empty(b, NUM_POINTS, 3),
            skeleton=empty(b, t, 3, height, width),
        ),
    )


def num_bytes(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(tensor.nbytes for tensor in chain(module.parameters(), module.buffers()))
