# SPDX-License-Identifier: Apache-2.0
"""The published network from facts about it: its names and shapes, and its function on a dict of tensors.

Written from a description of names and of what they compute, without a look at the code of either project.
Plain float32, explicit softmax, upsampling as it is defined.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

GROUPS, HEADS = 32, 4


def make_state(
    *, slices: int, width: int, mults: tuple[int, ...], blocks: int, attention: tuple[int, ...], clinical=9
) -> dict[str, Tensor]:
    """Random, nowhere zero weights of both arms, with every name that such a file has."""
    shapes: dict[str, tuple[int, ...]] = {}
    for arm in ("model.", "encoder."):
        _arm_shapes(shapes, arm, slices, width, mults, blocks, attention, clinical)
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator) * (0.7 / math.sqrt(max(1, math.prod(shape[1:]))))
        if len(shape) > 1
        else 0.2 * torch.randn(shape, generator=generator) + (1.0 if name.endswith("0.weight") else 0.0)
        for name, shape in shapes.items()
    }


def _arm_shapes(shapes, arm, slices, width, mults, blocks, attention, clinical) -> None:  # noqa: C901
    hidden = 4 * width

    def layer(name: str, *shape: int) -> None:
        shapes[f"{arm}{name}.weight"] = shape
        shapes[f"{arm}{name}.bias"] = shape[:1]

    def residual(name: str, c: int, out: int, resample: str = "") -> None:
        layer(f"{name}.in_layers.0", c)
        layer(f"{name}.in_layers.2", out, c, 3, 3)
        if resample:
            layer(f"{name}.h_upd.{resample}", c, c, 3, 3)
            layer(f"{name}.x_upd.{resample}", c, c, 3, 3)
        layer(f"{name}.emb_layers.1", 2 * out, hidden)
        if not resample:
            layer(f"{name}.tab_embed.0", hidden, clinical)
            layer(f"{name}.tab_embed.2", out, hidden)
        layer(f"{name}.out_layers.0", out)
        layer(f"{name}.out_layers.3", out, out, 3, 3)
        if c != out:
            layer(f"{name}.skip_connection", out, c, 1, 1)

    def attend(name: str, c: int) -> None:
        layer(f"{name}.norm", c)
        layer(f"{name}.qkv", 3 * c, c, 1)
        layer(f"{name}.proj_out", c, c, 1)

    layer("time_embed.0", hidden, width)
    layer("time_embed.2", hidden, hidden)
    layer("input_blocks.0.0", width, slices, 3, 3)
    skips, c, n = [width], width, 1
    for level, m in enumerate(mults):
        for _ in range(blocks):
            residual(f"input_blocks.{n}.0", c, m * width)
            c = m * width
            if 2**level in attention:
                attend(f"input_blocks.{n}.1", c)
            skips.append(c)
            n += 1
        if level < len(mults) - 1:
            residual(f"input_blocks.{n}.0", c, c, "op")
            skips.append(c)
            n += 1
    residual("middle_block.0", c, c)
    attend("middle_block.1", c)
    residual("middle_block.2", c, c)
    n = 0
    for i, (level, m) in enumerate(reversed(list(enumerate(mults)))):
        for _ in range(blocks + 1):
            residual(f"output_blocks.{n}.0", c + skips.pop(), m * width)
            c = m * width
            if 2**level in attention:
                attend(f"output_blocks.{n}.1", c)
            n += 1
        if level:
            residual(f"output_upsample_blocks.{i}.0", c, c, "conv")
    layer("out.0", width)
    layer("out.2", slices, width, 3, 3)


class Reference:
    """One arm of a published state dict."""

    def __init__(self, state: dict[str, Tensor], arm: str, *, mults: tuple[int, ...], blocks: int) -> None:
        self.own = {n.removeprefix(arm): t for n, t in state.items() if n.startswith(arm)}
        self.levels, self.blocks = len(mults), blocks

    def __call__(self, x, t=None, features=None, clinical=None) -> tuple[Tensor, list[Tensor]]:
        """Prediction, and the list [input, each input block, middle, each output block before upsampling]."""
        embedded = None if t is None else self.embed(t)
        told = (embedded, clinical, features)
        maps, h = [x], self.conv("input_blocks.0.0", x)
        maps.append(h)
        skips, n = [h], 1
        for level in range(self.levels):
            for _ in range(self.blocks):
                h = self.block(f"input_blocks.{n}", h, told, len(maps))
                maps.append(h)
                skips.append(h)
                n += 1
            if level < self.levels - 1:
                h = self.resample(f"input_blocks.{n}.0", h, up=False)
                maps.append(h)
                skips.append(h)
                n += 1
        k = len(maps)
        h = self.residual("middle_block.0", h, told, k)
        h = self.attention("middle_block.1", h)
        h = self.residual("middle_block.2", h, told, k)
        maps.append(h)
        n = 0
        for level in range(self.levels):
            for _ in range(self.blocks + 1):
                h = self.block(f"output_blocks.{n}", torch.cat([h, skips.pop()], 1), told, len(maps))
                maps.append(h)
                n += 1
            if level < self.levels - 1:
                h = self.resample(f"output_upsample_blocks.{level}.0", h, up=True)
        return self.conv("out.2", F.silu(self.norm("out.0", h))), maps

    def embed(self, t):
        half = self.own["time_embed.0.weight"].shape[1] // 2
        angle = t.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        h = torch.cat([angle.cos(), angle.sin()], 1)
        return self.linear("time_embed.2", F.silu(self.linear("time_embed.0", h)))

    def norm(self, name, x):
        return F.group_norm(x, GROUPS, self.own[f"{name}.weight"], self.own[f"{name}.bias"], eps=1e-5)

    def conv(self, name, x, stride=1):
        weight = self.own[f"{name}.weight"]
        return F.conv2d(x, weight, self.own[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def linear(self, name, x):
        return F.linear(x, self.own[f"{name}.weight"], self.own[f"{name}.bias"])

    def block(self, name, x, told, k):
        h = self.residual(f"{name}.0", x, told, k)
        return self.attention(f"{name}.1", h) if f"{name}.1.qkv.weight" in self.own else h

    def residual(self, name, x, told, k):
        embedded, clinical, features = told
        h = self.conv(f"{name}.in_layers.2", F.silu(self.norm(f"{name}.in_layers.0", x)))
        h = self.norm(f"{name}.out_layers.0", h)
        if embedded is not None:
            scale, shift = self.linear(f"{name}.emb_layers.1", F.silu(embedded))[..., None, None].chunk(2, 1)
            h = h * (1 + scale) + shift
        if features is not None:
            h = h * (1 + features[k])
        if clinical is not None:
            s = F.silu(self.linear(f"{name}.tab_embed.0", clinical))
            h = h * (1 + self.linear(f"{name}.tab_embed.2", s)[..., None, None])
        h = self.conv(f"{name}.out_layers.3", F.silu(h))
        return h + (
            self.conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.bias" in self.own else x
        )

    def resample(self, name, x, *, up):
        def change(path, y):
            if up:
                return self.conv(f"{name}.{path}.conv", F.interpolate(y, scale_factor=2, mode="nearest"))
            return self.conv(f"{name}.{path}.op", y, stride=2)

        h = change("h_upd", F.silu(self.norm(f"{name}.in_layers.0", x)))
        h = self.conv(f"{name}.in_layers.2", h)
        h = self.conv(f"{name}.out_layers.3", F.silu(self.norm(f"{name}.out_layers.0", h)))
        return change("x_upd", x) + h

    def attention(self, name, x):
        b, c, height, width = x.shape
        flat = self.norm(f"{name}.norm", x.reshape(b, c, -1))
        qkv = F.conv1d(flat, self.own[f"{name}.qkv.weight"], self.own[f"{name}.qkv.bias"])
        q, k, v = qkv.reshape(b * HEADS, 3 * c // HEADS, -1).split(c // HEADS, dim=1)
        scale = (c // HEADS) ** -0.25
        weights = torch.einsum("bct,bcs->bts", q * scale, k * scale).softmax(-1)
        mixed = torch.einsum("bts,bcs->bct", weights, v).reshape(b, c, -1)
        out = F.conv1d(mixed, self.own[f"{name}.proj_out.weight"], self.own[f"{name}.proj_out.bias"])
        return x + out.reshape(b, c, height, width)
