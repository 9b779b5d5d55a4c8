# SPDX-License-Identifier: Apache-2.0
"""One arm: a U-Net that can denoise or condition.

As conditioner it sees only its input and returns the feature map after each adaptive block; as
denoiser it sees a noised slab, the timestep, the clinical vector and the other arm's feature maps.
Both jobs use the same weights (CycleEx). Shapes: (B, S, H, W), S slices of a slab as channels.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pasta_model.network.blocks import (
    AdaptiveBlock,
    Attention,
    Conditions,
    Norm,
    ResampleBlock,
    SmallNetwork,
    timestep_embedding,
    zeroed,
)
from pasta_model.sections import NetworkSettings


class GatedBlock(nn.Module):
    """An adaptive block with the attention of its resolution, if any."""

    def __init__(self, block: AdaptiveBlock, attention: Attention | None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, conditions: Conditions | None, feature: Tensor | None) -> Tensor:
        """Apply both; `feature` gates the block, not the attention."""
        x = self.block(x, conditions, feature)
        return x if self.attention is None else self.attention(x)


class Level(nn.Module):
    """The blocks of one resolution, and the change to the next."""

    def __init__(self, blocks: Sequence[GatedBlock], resample: ResampleBlock | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample


def _levels(modules: Iterable[nn.Module]) -> Iterator[Level]:
    for module in modules:
        assert isinstance(module, Level), "encoder and decoder are made of levels"
        yield module


class Arm(nn.Module):
    """One arm of PASTA.

    Parameters
    ----------
    settings
        Widths, depth, slab size.
    clinical_values
        Length of the clinical vector; 0 for an arm that is never given one.
    """

    def __init__(self, settings: NetworkSettings, *, clinical_values: int) -> None:
        super().__init__()
        self.shape = shape = settings.resolved
        self.checkpointing = False  # keep block inputs only, and compute the rest again going back
        self.time_width = 4 * shape.width
        self._clinical_values = clinical_values
        widths = [shape.width * m for m in shape.multipliers]
        self.time = SmallNetwork(
            nn.Linear(shape.width, self.time_width),
            nn.SiLU(),
            nn.Linear(self.time_width, self.time_width),
        )
        pixels = shape.slices * shape.patch**2
        self.stem = nn.Conv2d(pixels, widths[0], 3, padding=1)
        self.down, skips = self._encoder(widths)
        self.middle_in = self._block(widths[-1], widths[-1])
        self.middle_attention = Attention(widths[-1], groups=shape.groups, heads=shape.heads)
        self.middle_out = self._block(widths[-1], widths[-1])
        self.up = self._decoder(widths, skips)
        self.head_norm = Norm(shape.groups, widths[0])
        self.head = zeroed(nn.Conv2d(widths[0], pixels, 3, padding=1))

    def _block(self, channels: int, out_channels: int) -> AdaptiveBlock:
        return AdaptiveBlock(
            channels,
            out_channels,
            groups=self.shape.groups,
            time_width=self.time_width,
            clinical_values=self._clinical_values,
        )

    def _gated(self, channels: int, width: int, level: int) -> GatedBlock:
        attention = None
        if 2**level in self.shape.attention:
            attention = Attention(width, groups=self.shape.groups, heads=self.shape.heads)
        return GatedBlock(self._block(channels, width), attention)

    def _encoder(self, widths: list[int]) -> tuple[nn.ModuleList, list[int]]:
        levels, skips, channels = nn.ModuleList(), [widths[0]], widths[0]
        for i, width in enumerate(widths):
            blocks = []
            for _ in range(self.shape.blocks):
                blocks.append(self._gated(channels, width, i))
                channels = width
                skips.append(width)
            last = i == len(widths) - 1
            levels.append(Level(blocks, None if last else self._resample(width, up=False)))
            skips += [] if last else [width]
        return levels, skips

    def _decoder(self, widths: list[int], skips: list[int]) -> nn.ModuleList:
        levels, channels, skips = nn.ModuleList(), widths[-1], list(skips)
        for i, width in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(self.shape.blocks + 1):
                blocks.append(self._gated(channels + skips.pop(), width, i))
                channels = width
            levels.append(Level(blocks, self._resample(width, up=True) if i else None))
        return levels

    def _resample(self, width: int, *, up: bool) -> ResampleBlock:
        return ResampleBlock(width, groups=self.shape.groups, up=up)

    def _run(self, block: nn.Module, h: Tensor, *told: Conditions | Tensor | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            # Nothing here is random, so no state of a generator needs keeping.
            return checkpoint(block, h, *told, use_reentrant=False, preserve_rng_state=False)  # type: ignore[no-any-return]
        return block(h, *told)  # type: ignore[no-any-return]

    def embed(self, timesteps: Tensor) -> Tensor:
        """Embed integer timesteps, (B,) -> (B, E)."""
        return self.time(timestep_embedding(timesteps, self.shape.width))  # type: ignore[no-any-return]

    def forward(
        self,
        x: Tensor,
        *,
        conditions: Conditions | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the arm.

        Parameters
        ----------
        x
            (B, S, H, W) slab, noised when the arm denoises.
        conditions
            Time and clinical vector when the arm denoises, None when it conditions.
        features
            The other arm's feature maps in the order of its blocks, None when it conditions.

        Returns
        -------
        tuple
            Prediction (B, S, H, W), and this arm's own feature maps, one a gated block, encoder
            to decoder, with one for the middle.
        """
        gates: Iterator[Tensor | None] = iter(features) if features is not None else iter(())
        collected: list[Tensor] = []

        def run(block: nn.Module, h: Tensor) -> Tensor:
            h = self._run(block, h, conditions, next(gates, None))
            collected.append(h)
            return h

        h = self.stem(F.pixel_unshuffle(x, self.shape.patch))
        skips = [h]
        for level in _levels(self.down):
            for block in level.blocks:
                h = run(block, h)
                skips.append(h)
            if level.resample is not None:
                h = self._run(level.resample, h)
                skips.append(h)
        gate = next(gates, None)  # one map gates both middle blocks
        h = self._run(self.middle_attention, self._run(self.middle_in, h, conditions, gate))
        h = self._run(self.middle_out, h, conditions, gate)
        collected.append(h)
        for level in _levels(self.up):
            for block in level.blocks:
                h = run(block, torch.cat([h, skips.pop()], dim=1))
            if level.resample is not None:
                h = self._run(level.resample, h)
        h = self.head(F.silu(self.head_norm(h)))
        return F.pixel_shuffle(h, self.shape.patch), collected
