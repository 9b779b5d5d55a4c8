# SPDX-License-Identifier: Apache-2.0
"""The pieces of an arm, each against its formula."""

import math

import pytest
import torch
from torch.nn import functional as F

from pasta_model.network.blocks import (
    AdaptiveBlock,
    Attention,
    Conditions,
    Norm,
    Resample,
    ResampleBlock,
    doubled_convolution,
    timestep_embedding,
)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomise(module: torch.nn.Module) -> torch.nn.Module:
    """Give every parameter a value: nothing is hidden by a zero."""
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


class TestTimestepEmbedding:
    def test_by_hand(self) -> None:
        # Width 4: frequencies 1 and 10000^(-1/2) = 0.01.
        found = timestep_embedding(torch.tensor([0, 30]), 4)
        wanted = [[1, 1, 0, 0], [math.cos(30), math.cos(0.3), math.sin(30), math.sin(0.3)]]
        torch.testing.assert_close(found, torch.tensor(wanted))

    def test_is_float32_and_tells_all_trained_times_apart(self) -> None:
        found = timestep_embedding(torch.arange(0, 1000, 10), 32)
        assert found.dtype == torch.float32
        assert torch.pdist(found).min() > 0.05


class TestAdaptiveBlock:
    def test_order_is_time_then_mri_then_clinical(self) -> None:
        block = randomise(AdaptiveBlock(4, 8, groups=2, time_width=6, clinical_values=3))
        x, time, clinical, feature = (
            rand(2, 4, 5, 5),
            rand(2, 6),
            rand(2, 3, seed=1),
            rand(2, 8, 5, 5, seed=2),
        )
        found = block(x, Conditions(time, clinical), feature)

        p = dict(block.named_parameters())
        h = F.conv2d(
            F.silu(F.group_norm(x, 2, p["in_norm.weight"], p["in_norm.bias"])),
            p["in_conv.weight"],
            p["in_conv.bias"],
            padding=1,
        )
        h = F.group_norm(h, 2, p["out_norm.weight"], p["out_norm.bias"])
        s_t, b_t = (F.silu(time) @ p["time.1.weight"].T + p["time.1.bias"]).split(8, dim=1)
        hidden = F.silu(clinical @ p["clinical.0.weight"].T + p["clinical.0.bias"])
        s_c = hidden @ p["clinical.2.weight"].T + p["clinical.2.bias"]
        h = h * (1 + s_t[..., None, None]) + b_t[..., None, None]
        h = h * (1 + feature)
        h = h * (1 + s_c[..., None, None])
        h = F.conv2d(F.silu(h), p["out_conv.weight"], p["out_conv.bias"], padding=1)
        wanted = h + F.conv2d(x, p["skip.weight"], p["skip.bias"])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)

    def test_without_conditions_it_is_a_plain_residual_block(self) -> None:
        block = randomise(AdaptiveBlock(4, 4, groups=2, time_width=6, clinical_values=3))
        x = rand(2, 4, 5, 5)
        h = block.in_conv(F.silu(F.group_norm(x, 2, block.in_norm.weight, block.in_norm.bias)))
        h = F.silu(F.group_norm(h, 2, block.out_norm.weight, block.out_norm.bias))
        torch.testing.assert_close(block(x, None, None), x + block.out_conv(h), rtol=1e-4, atol=1e-5)

    def test_fresh_block_is_the_identity(self) -> None:
        block = AdaptiveBlock(4, 4, groups=2, time_width=6, clinical_values=3)
        x = rand(2, 4, 5, 5)
        assert torch.equal(block(x, Conditions(rand(2, 6), rand(2, 3)), rand(2, 4, 5, 5)), x)

    def test_no_clinical_values_no_clinical_weights(self) -> None:
        block = AdaptiveBlock(4, 4, groups=2, time_width=6, clinical_values=0)
        assert not [name for name, _ in block.named_parameters() if "clinical" in name]


class TestAttention:
    @pytest.mark.parametrize("heads", [1, 2, 4])
    def test_equals_a_naive_softmax(self, heads: int) -> None:
        attention = randomise(Attention(8, groups=2, heads=heads))
        x = rand(2, 8, 3, 4)
        found = attention(x)

        flat = F.group_norm(x, 2, attention.norm.weight, attention.norm.bias).reshape(2, 8, 12)
        qkv = torch.einsum("oc,bcn->bon", attention.qkv.weight[..., 0], flat) + attention.qkv.bias[:, None]
        depth, mixed = 8 // heads, torch.zeros(2, 8, 12)
        for head in range(heads):
            q, k, v = qkv[:, 3 * depth * head : 3 * depth * (head + 1)].split(depth, dim=1)
            weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) / math.sqrt(depth), dim=-1)
            mixed[:, depth * head : depth * (head + 1)] = torch.einsum("bij,bcj->bci", weights, v)
        out = torch.einsum("oc,bcn->bon", attention.out.weight[..., 0], mixed) + attention.out.bias[:, None]
        torch.testing.assert_close(found, x + out.reshape(x.shape), rtol=1e-4, atol=1e-5)

    def test_fresh_attention_is_the_identity(self) -> None:
        x = rand(1, 8, 3, 4)
        assert torch.equal(Attention(8, groups=2, heads=2)(x), x)


class TestResampling:
    @pytest.mark.parametrize(("up", "size"), [(True, 12), (False, 3)])
    def test_changes_the_resolution_on_both_paths(self, up: bool, size: int) -> None:
        block = randomise(ResampleBlock(4, groups=2, up=up))
        x = rand(1, 4, 6, 6)
        assert block(x).shape == (1, 4, size, size)
        for name in ("in_resample.conv.weight", "skip_resample.conv.weight"):
            changed = randomise(ResampleBlock(4, groups=2, up=up))
            dict(changed.named_parameters())[name].data += 0.1
            assert not torch.allclose(changed(x), block(x))

    def test_up_repeats_pixels_before_the_convolution(self) -> None:
        layer = randomise(Resample(2, up=True))
        x = rand(1, 2, 3, 3)
        repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        torch.testing.assert_close(
            layer(x), F.conv2d(repeated, layer.conv.weight, layer.conv.bias, padding=1)
        )


class TestDoubledConvolution:
    @pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 4, 5), (1, 4, 1, 6), (3, 2, 7, 2)])
    @pytest.mark.parametrize("bias", [True, False])
    def test_equals_interpolation_and_convolution(self, shape: tuple[int, ...], bias: bool) -> None:
        x, weight = rand(*shape), rand(5, shape[1], 3, 3, seed=1)
        shift = rand(5, seed=2) if bias else None
        wanted = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, shift, padding=1)
        torch.testing.assert_close(doubled_convolution(x, weight, shift), wanted, rtol=1e-4, atol=1e-5)

    def test_is_exact_to_a_few_parts_in_ten_million(self) -> None:
        x, weight, bias = rand(2, 16, 8, 8), 0.1 * rand(16, 16, 3, 3, seed=1), rand(16, seed=2)
        found = doubled_convolution(x.double(), weight.double(), bias.double())
        wanted = F.conv2d(
            F.interpolate(x.double(), scale_factor=2), weight.double(), bias.double(), padding=1
        )
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
        ours = doubled_convolution(x, weight, bias).double()
        assert (ours - wanted).norm() / wanted.norm() < 1e-6

    def test_has_the_same_gradients(self) -> None:
        def gradients(function) -> list[torch.Tensor]:
            given = [rand(2, 3, 4, 5), rand(4, 3, 3, 3, seed=1), rand(4, seed=2)]
            for tensor in given:
                tensor.requires_grad_()
            function(*given).square().sum().backward()
            return [tensor.grad for tensor in given]

        wanted = gradients(lambda x, w, b: F.conv2d(F.interpolate(x, scale_factor=2), w, b, padding=1))
        for found, reference in zip(gradients(doubled_convolution), wanted, strict=True):
            torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-3)

    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_memory_layout_does_not_matter(self, layout: torch.memory_format) -> None:
        x, weight = rand(2, 4, 3, 3).contiguous(memory_format=layout), rand(6, 4, 3, 3, seed=1)
        wanted = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1)
        torch.testing.assert_close(doubled_convolution(x, weight, None), wanted, rtol=1e-4, atol=1e-5)


def test_normalisation_is_float32_under_autocast() -> None:
    norm, x = Norm(2, 4), rand(1, 4, 5, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.group_norm(x.float(), 2), rtol=1e-6, atol=1e-6)


def test_normalisation_after_frozen_layers_has_its_gradients() -> None:
    """A CPU kernel of PyTorch's ends the process when such an input lies as channels-last."""
    x, found = rand(2, 4, 6, 5), []
    for layout in (torch.channels_last, torch.contiguous_format):
        norm = randomise(Norm(2, 4))
        norm(x.to(memory_format=layout)).square().sum().backward()
        found.append((norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close(found[0], found[1])
