# SPDX-License-Identifier: Apache-2.0
"""The same network as it is usually written, to measure against: the same weights, the same function.

Upsampling on the large grid, attention as an explicit softmax, the SSIM window as a one-channel
convolution; with float32 and the contiguous layout set beside it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from pasta_model.config import Scalar
from pasta_model.diffusion import losses
from pasta_model.network.blocks import Attention, Resample

PLAIN_SETTINGS: Mapping[str, Scalar] = {"training.dtype": "float32", "training.channels-last": False}


@contextmanager
def plain_network() -> Iterator[None]:
    """Compute in the usual way while the block lasts."""
    with (
        patch.object(Resample, "forward", _resample),
        patch.object(Attention, "forward", _attention),
        patch.object(losses, "ssim", convolved_ssim),
    ):
        yield


def _resample(self: Resample, x: Tensor) -> Tensor:
    if self.up:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    return self.conv(x)  # type: ignore[no-any-return]


def _attention(self: Attention, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    qkv = self.qkv(self.norm(x).reshape(b, c, h * w)).reshape(b * self.heads, 3 * c // self.heads, h * w)
    q, k, v = qkv.chunk(3, dim=1)
    scale = (c // self.heads) ** -0.25
    weights = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(dim=-1)
    mixed = torch.einsum("bts,bcs->bct", weights, v).reshape(b, c, h * w)
    return x + self.out(mixed).reshape(b, c, h, w)  # type: ignore[no-any-return]


def convolved_ssim(target: Tensor, prediction: Tensor) -> Tensor:
    """SSIM with the window as a one-channel convolution."""
    h, w = target.shape[-2:]
    offset = torch.arange(11.0, device=target.device) - 5
    window = torch.exp(-(offset**2) / 4.5)
    window = window / window.sum()
    x, y = (s.float().reshape(-1, 1, h, w) for s in (target, prediction))
    moments = F.conv2d(torch.cat([x, y, x * x, y * y, x * y]), window[None, None, :, None])
    mx, my, xx, yy, xy = F.conv2d(moments, window[None, None, None, :]).chunk(5)
    c1, c2 = 0.02**2, 0.06**2
    top = (2 * mx * my + c1) * (2 * (xy - mx * my) + c2)
    return (top / ((mx**2 + my**2 + c1) * (xx - mx**2 + yy - my**2 + c2))).mean()
