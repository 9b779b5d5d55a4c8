# SPDX-License-Identifier: Apache-2.0
"""Adapters of low rank (LoRA, arXiv 2106.09685): a few weights beside each layer, for fine-tuning.

    y = W x + B (A x)

A maps to `rank` channels (of a convolution with its kernel), B back to all of them with a kernel of 1. B
starts at zero, so a network with fresh adapters computes what it computes without.
"""

from torch import Tensor, nn

from pasta_model.network.blocks import AdaptiveBlock, Attention, SmallNetwork, zeroed

Wide = nn.Conv1d | nn.Conv2d | nn.Linear


class _Adapted(nn.Module):
    """Before a layer in the order of classes: adds what its adapter says."""

    adapter: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Map as the layer does, and add B (A x)."""
        return super().forward(x) + self.adapter(x)  # type: ignore[no-any-return]


class AdaptedLinear(_Adapted, nn.Linear):
    """A linear map with an adapter."""


class AdaptedConv1d(_Adapted, nn.Conv1d):
    """A convolution over a sequence with an adapter."""


class AdaptedConv2d(_Adapted, nn.Conv2d):
    """A convolution over pixels with an adapter."""


def add_adapters(network: nn.Module, rank: int) -> None:
    """Give the layers of a network their adapters, in place; names and values of its own weights stay.

    Adapted are the 3 x 3 convolutions of the adaptive blocks, both maps of attention, and the small networks
    of time and clinical vector: what the conditions and the anatomy act through. Blocks that change the
    resolution, stem and head stay as they are.
    """
    if not rank:
        return
    for module in list(network.modules()):
        if isinstance(module, AdaptiveBlock):
            _adapt(module.in_conv, rank)
            _adapt(module.out_conv, rank)
        elif isinstance(module, Attention):
            _adapt(module.qkv, rank)
            _adapt(module.out, rank)
        elif isinstance(module, SmallNetwork):
            for layer in module:
                if isinstance(layer, nn.Linear):
                    _adapt(layer, rank)


def _adapt(layer: Wide, rank: int) -> None:
    """Make a layer an adapted one: of another class, as torch's own parametrizations do it."""
    if isinstance(layer, nn.Linear):
        down: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
        up: nn.Module = nn.Linear(rank, layer.out_features, bias=False)
        layer.__class__ = AdaptedLinear
    else:
        plain = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Conv1d
        same = {"stride": layer.stride, "padding": layer.padding}
        down = plain(layer.in_channels, rank, layer.kernel_size, bias=False, **same)  # type: ignore[arg-type]
        up = plain(rank, layer.out_channels, 1, bias=False)
        layer.__class__ = AdaptedConv2d if isinstance(layer, nn.Conv2d) else AdaptedConv1d
    layer.adapter = nn.Sequential(down, zeroed(up))
