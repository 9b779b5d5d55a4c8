# SPDX-License-Identifier: Apache-2.0
"""The pieces of an arm: time embedding, adaptive residual block, resampling, attention.

Shapes: B slabs, C channels, H x W pixels, E width of the time embedding, K clinical values.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Layer = TypeVar("Layer", bound=nn.Module)


@dataclass(frozen=True)
class Conditions:
    """What the denoiser is told besides its input; the conditioner is told nothing.

    Attributes
    ----------
    time
        (B, E) embedded timestep.
    clinical
        (B, K) standardised clinical vector, or None where an arm is not given one.
    """

    time: Tensor
    clinical: Tensor | None


def timestep_embedding(timesteps: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding [cos, sin] of integer timesteps, (B,) -> (B, width) float32.

    Frequencies exp(-ln(10000) k / half), k = 0..half-1 (DDPM 2006.11239, appendix B).
    """
    half = width // 2
    index = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(10000.0) * index / half)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def zeroed(layer: Layer) -> Layer:
    """Set the parameters of a layer to zero: a residual branch starts as the identity."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Norm(nn.GroupNorm):
    """Group normalisation in float32, whatever the dtype around it.

    PyTorch's bfloat16 kernel for channels-last tensors is five times slower on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...), returning float32."""
        x = x.float()
        if torch.is_grad_enabled() and not x.requires_grad:
            # After frozen layers. PyTorch's kernel for channels-last tensors on a CPU writes the gradient of
            # its input although nobody wants it, to nowhere, and the process is gone (2.13).
            x = x.contiguous()
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class SmallNetwork(nn.Sequential):
    """Linear layers on a vector, in float32: reduced precision saves nothing there and costs casts."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in) to (B, out), float32."""
        if not torch.amp.is_autocast_available(x.device.type):  # "meta", where only shapes are computed
            return super().forward(x.float())  # type: ignore[no-any-return,no-untyped-call]
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())  # type: ignore[no-any-return,no-untyped-call]


class AdaptiveBlock(nn.Module):
    """Residual block with adaptive group normalisation: time, then MRI, then clinical.

    In the second half (Li et al. 2026, adaptive group normalisation)::

        h <- GN(h);  h <- h (1 + s_t) + b_t;  h <- h (1 + F_k);  h <- h (1 + s_c)
    """

    def __init__(
        self, channels: int, out_channels: int, *, groups: int, time_width: int, clinical_values: int
    ) -> None:
        super().__init__()
        self.in_norm = Norm(groups, channels)
        self.in_conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.time = SmallNetwork(nn.SiLU(), nn.Linear(time_width, 2 * out_channels))
        self.clinical: nn.Module | None = None
        if clinical_values:
            self.clinical = SmallNetwork(
                nn.Linear(clinical_values, time_width), nn.SiLU(), nn.Linear(time_width, out_channels)
            )
        self.out_norm = Norm(groups, out_channels)
        self.out_conv = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.skip: nn.Module = nn.Identity()
        if channels != out_channels:
            self.skip = nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, conditions: Conditions | None, feature: Tensor | None) -> Tensor:
        """Map (B, C, H, W) to (B, C_out, H, W); `feature` is the other arm's map of that shape."""
        h = self.in_conv(F.silu(self.in_norm(x)))
        h = self.out_norm(h)
        if conditions is not None:
            scale, shift = self.time(conditions.time)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        if feature is not None:
            h = h + h * feature  # not h * (1 + feature): bfloat16 loses small maps beside 1
        if conditions is not None and conditions.clinical is not None and self.clinical is not None:
            h = h * (1 + self.clinical(conditions.clinical)[:, :, None, None])
        return self.skip(x) + self.out_conv(F.silu(h))  # type: ignore[no-any-return]


class Resample(nn.Module):
    """Halve (stride 2) or double (nearest) the pixels, with a 3 x 3 convolution."""

    def __init__(self, channels: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, 2H, 2W) or (B, C, H/2, W/2)."""
        if self.up:
            return doubled_convolution(x, self.conv.weight, self.conv.bias)
        return self.conv(x)  # type: ignore[no-any-return]


def doubled_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest doubling, then a 3 x 3 convolution, computed on the small grid: 4/9 of the work.

    An output pixel of even row sees the small rows (i-1, i, i) through its three taps, one of odd row
    (i, i, i+1): two different rows either way, so taps that meet the same row are added first. The same
    holds of columns, which makes four 2 x 2 convolutions, one for each parity.

    Parameters
    ----------
    x
        (B, C, H, W)
    weight, bias
        (O, C, 3, 3), (O,)

    Returns
    -------
    Tensor
        (B, O, 2H, 2W)
    """
    b, _, h, w = x.shape
    small = torch.stack([k for half in _met_taps(weight, dim=2) for k in _met_taps(half, dim=3)])
    small = small.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (4O, C, 2, 2)
    parities = F.conv2d(x, small, None if bias is None else bias.repeat(4), padding=1)
    parities = parities.permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))  # (B, H+1, W+1, 2, 2, O)
    rows = [
        torch.stack([parities[:, p : p + h, q : q + w, p, q] for q in (0, 1)], dim=3) for p in (0, 1)
    ]  # each (B, H, W, 2, O)
    return torch.stack(rows, dim=2).reshape(b, 2 * h, 2 * w, -1).permute(0, 3, 1, 2)


def _met_taps(weight: Tensor, *, dim: int) -> tuple[Tensor, Tensor]:
    """Add the taps that meet the same small row (or column): for even and for odd output pixels."""
    first, second, third = weight.unbind(dim)
    return torch.stack([first, second + third], dim), torch.stack([first + second, third], dim)


class ResampleBlock(nn.Module):
    """Residual block that changes the resolution on both paths; it takes no condition."""

    def __init__(self, channels: int, *, groups: int, up: bool) -> None:
        super().__init__()
        self.in_norm = Norm(groups, channels)
        self.in_resample = Resample(channels, up=up)
        self.in_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip_resample = Resample(channels, up=up)
        self.out_norm = Norm(groups, channels)
        self.out_conv = zeroed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H', W') of the other resolution."""
        h = self.in_conv(self.in_resample(F.silu(self.in_norm(x))))
        h = self.out_conv(F.silu(self.out_norm(h)))
        return self.skip_resample(x) + h  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Self-attention over the pixels, residual, zero at the start."""

    def __init__(self, channels: int, *, groups: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x).reshape(b, c, h * w))  # (B, 3C, HW)
        # Each head holds its own q, k, v in that order.
        qkv = qkv.reshape(b, self.heads, 3, c // self.heads, h * w).transpose(-1, -2)
        q, k, v = (part.contiguous() for part in qkv.unbind(dim=2))  # (B, heads, HW, C/heads)
        mixed = F.scaled_dot_product_attention(q, k, v)
        flat = mixed.transpose(-1, -2).reshape(b, c, h * w)
        return x + self.out(flat).reshape(b, c, h, w)  # type: ignore[no-any-return]
