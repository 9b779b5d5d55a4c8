# SPDX-License-Identifier: Apache-2.0
"""Where a network computes and how: device, dtype, memory layout, compilation."""

from typing import Literal

import torch
from torch import nn

from pasta_model.errors import ConfigError
from pasta_model.network.dual_arm import DualArm
from pasta_model.sections import TrainingSettings


def check_device(device: str) -> None:
    """Refuse a device that is not there.

    Raises
    ------
    ConfigError
        Naming the setting.
    """
    missing = (device.startswith("cuda") and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    )
    if missing:
        raise ConfigError(f"training.device {device!r} is not on this machine; use 'cpu'")


def has_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16, rather than imitating it (a hundred times slower)."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device == "mps":
        return False
    able: dict[str, bool] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # not in every release that we admit
    return any(able.get(unit, False) for unit in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def compute_dtype(name: Literal["auto", "float32", "bfloat16"], device: str) -> torch.dtype:
    """Return the dtype of the convolutions; `auto` is bfloat16 where the device has units for it."""
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def memory_format(settings: TrainingSettings) -> torch.memory_format:
    """Return the configured layout of slabs and convolution weights."""
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def place(network: DualArm, settings: TrainingSettings) -> DualArm:
    """Move a network to its device and layout, and prepare its arms as configured."""
    network.to(device=settings.device)
    network.to(memory_format=memory_format(settings))  # type: ignore[call-overload]  # missing in torch's stubs
    for arm in (network.pet_arm, network.mri_arm):
        arm.checkpointing = settings.checkpointing
        if settings.compile:
            arm.compile()  # in place: names of weights stay
    return network


def cast_convolutions(network: nn.Module, dtype: torch.dtype) -> None:
    """Hold convolution weights in the dtype they are used in: synthesis casts them once, not at each pass.

    Normalisation and the small networks of time and clinical vector stay float32.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            module.to(dtype)
