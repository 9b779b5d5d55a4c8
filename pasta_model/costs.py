# SPDX-License-Identifier: Apache-2.0
"""What a network costs: parameters by part, multiply-adds, bytes on the wire, memory of a training step.

Nothing is computed: shapes walk through the network on PyTorch's meta device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from pasta_model.checkpoint import network_layout
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.grid import template
from pasta_model.network.blocks import AdaptiveBlock, Attention, ResampleBlock
from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.network.unet import Arm


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step; weights, gradients and AdamW's two moments are float32."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def standing(self) -> int:
        """What is there between steps too."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All of them."""
        return self.standing + self.activations


@dataclass(frozen=True)
class Work:
    """Multiply-adds of one arm, one pass, one slab."""

    conditioning: int
    denoising: int


def parameters_by_part(arm: Arm) -> dict[str, int]:
    """Count the parameters of each part of an arm; they sum to the arm's total."""
    whole = _count(arm)
    parts = {
        "time embedding": _count(arm.time),
        "time in adaptive normalisation": _sum(arm, AdaptiveBlock, lambda block: _count(block.time)),
        "clinical in adaptive normalisation": _sum(
            arm, AdaptiveBlock, lambda block: _count(block.clinical) if block.clinical else 0
        ),
        "attention": _sum(arm, Attention, _count),
        "resampling": sum(_count(level.resample) for level in (*arm.down, *arm.up) if level.resample),
        "stem and head": _count(arm.stem) + _count(arm.head) + _count(arm.head_norm),
    }
    return {**parts, "residual blocks": whole - sum(parts.values())}


def published_parameters(arm: Arm) -> int:
    """Count what the published code counts of the PET's arm.

    Its blocks that change the resolution own weights for the time (scale and shift) and never use them;
    its other arm has the same number.
    """
    unused = _sum(arm, ResampleBlock, lambda block: 2 * block.out_norm.num_channels * (arm.time_width + 1))
    return _count(arm) + unused


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _sum(arm: Arm, kind: type[nn.Module], count: Callable[..., int]) -> int:
    return sum(count(module) for module in arm.modules() if isinstance(module, kind))


def meta_network(settings: Settings) -> DualArm:
    """Return the network of the settings without its weights."""
    with torch.device("meta"):
        return DualArm(settings.network, clinical_values=SCHEMES[settings.data.clinical].length)


def multiply_adds(settings: Settings) -> Work:
    """Count the multiply-adds of convolutions, linear layers and attention, by one slab."""
    network = meta_network(settings)
    slab, timesteps, clinical = _inputs(settings, 1)
    with torch.inference_mode(), FlopCounterMode(display=False) as reading:
        read = network.condition(slab, direction=Direction.MRI_TO_PET)
    with torch.inference_mode(), FlopCounterMode(display=False) as denoising:
        network.denoise(slab, timesteps, read, clinical, direction=Direction.MRI_TO_PET)
    return Work(reading.get_total_flops() // 2, denoising.get_total_flops() // 2)


def slab_shape(settings: Settings) -> tuple[int, int, int]:
    """Slices and pixels of an axial slab, (S, H, W)."""
    rows, columns = template(settings.data.spacing).crop.shape[:2]
    return settings.network.slab_slices, rows, columns


def _inputs(settings: Settings, batch: int) -> tuple[Tensor, Tensor, Tensor | None]:
    slab = torch.empty(batch, *slab_shape(settings), device="meta")
    values = SCHEMES[settings.data.clinical].length
    clinical = torch.empty(batch, values, device="meta") if values else None
    return slab, torch.zeros(batch, dtype=torch.int64, device="meta"), clinical


def wire_bytes(settings: Settings) -> int:
    """Bytes of both arms' weights, one way."""
    return sum(
        size * getattr(torch, dtype).itemsize for dtype, size in network_layout(settings).sizes().items()
    )


def training_memory(settings: Settings, *, batch_size: int) -> TrainingMemory:
    """Estimate the memory of a training step in float32, in bytes.

    Activations are the tensors that autograd keeps for the backward pass, each storage once: of the two
    passes of a direction for the conditioner and the denoiser, times the passes of CycleEx. With
    checkpointing only the inputs of blocks are kept, and an average block's own activations. bfloat16
    keeps about half as much.
    """
    network = meta_network(settings)
    one_pass = _activations(network, settings, batch_size)
    block = 0
    if settings.training.checkpointing:
        blocks = sum(isinstance(module, AdaptiveBlock) for module in network.modules())
        block = 2 * one_pass // blocks  # the two arms' share of an average block, computed again going back
        one_pass = _block_inputs(network, settings, batch_size)
    weights = wire_bytes(settings)
    passes = 4 if settings.loss.cycle else 1
    return TrainingMemory(weights, weights, 2 * weights, passes * one_pass + block)


def _activations(network: DualArm, settings: Settings, batch_size: int) -> int:
    """Bytes that autograd keeps of one pass: the conditioner's and the denoiser's."""
    weights = {p.untyped_storage()._cdata for p in network.parameters()}  # noqa: SLF001  # no other identity on meta
    kept: dict[int, tuple[Tensor, int]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:  # noqa: SLF001
            kept[storage._cdata] = (tensor, storage.nbytes())  # noqa: SLF001  # held, so that no id is used twice
        return tensor

    slab, timesteps, clinical = _inputs(settings, batch_size)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        read = network.condition(slab, direction=Direction.MRI_TO_PET)
        network.denoise(slab, timesteps, read, clinical, direction=Direction.MRI_TO_PET)
    return sum(size for _, size in kept.values())


def _block_inputs(network: DualArm, settings: Settings, batch_size: int) -> int:
    """Bytes of what enters the blocks in one pass: what checkpoints keep."""
    total = 0

    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal total
        total += given[0].nbytes

    for module in network.modules():
        if isinstance(module, AdaptiveBlock | ResampleBlock):
            module.register_forward_pre_hook(note)
    slab, timesteps, clinical = _inputs(settings, batch_size)
    with torch.inference_mode():
        read = network.condition(slab, direction=Direction.MRI_TO_PET)
        network.denoise(slab, timesteps, read, clinical, direction=Direction.MRI_TO_PET)
    return total
