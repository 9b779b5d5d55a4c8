# SPDX-License-Identifier: Apache-2.0
"""Adapters: nothing at the start, W x + B (A x) afterwards, and few weights."""

import copy

import pytest
import torch
from torch import nn

from pasta_model.checkpoint import new_network, new_translator
from pasta_model.network.adapters import AdaptedConv1d, AdaptedConv2d, AdaptedLinear, add_adapters
from pasta_model.network.blocks import Conditions, SmallNetwork
from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.network.parts import members
from pasta_model.placement import cast_convolutions
from pasta_model.training import make_optimizer
from tests.unit.pasta_model.network.test_parts import ATTENTIVE

RANK = 3


@pytest.fixture
def networks(make_settings) -> tuple[DualArm, DualArm]:
    """The same network without adapters and with them."""
    ranks = ({**ATTENTIVE, "network__adapter_rank": rank} for rank in (0, RANK))
    without, with_adapters = (new_network(make_settings(**changes)) for changes in ranks)
    return without, with_adapters


def outputs(network: DualArm, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    slab, noised = (torch.randn(2, 5, 8, 12, generator=generator) for _ in range(2))
    timesteps, clinical = torch.tensor([3, 500]), torch.randn(2, 9, generator=generator)
    found = []
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        for direction in Direction:
            read = network.condition(slab, direction=direction)
            told = clinical if direction is Direction.MRI_TO_PET else None
            found += [read.preview, network.denoise(noised, timesteps, read, told, direction=direction)]
    return found


def stirred(network: DualArm) -> DualArm:
    """A network in which no layer is zero."""
    torch.manual_seed(7)  # noqa: TID251
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network


def test_without_a_rank_there_are_none(networks) -> None:
    without, _ = networks
    assert not members(without.state_dict(), ["adapters"])
    assert {type(m) for m in without.modules()}.isdisjoint({AdaptedConv1d, AdaptedConv2d, AdaptedLinear})


def test_names_and_initial_weights_beside_them_are_those_without(networks) -> None:
    one, other = (network.state_dict() for network in networks)
    assert other.keys() - one.keys() == members(other, ["adapters"])
    assert one.keys() <= other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_fresh_ones_change_no_output(networks) -> None:
    without, with_adapters = networks
    stirred(without)
    with_adapters.load_state_dict(without.state_dict(), strict=False)
    for one, other in zip(outputs(without), outputs(with_adapters), strict=True):
        assert one.abs().max() > 0
        assert torch.equal(one, other)


def test_both_convolutions_both_maps_of_attention_and_the_small_networks_have_them(networks) -> None:
    _, network = networks
    found = {name for name, m in network.named_modules() if hasattr(m, "adapter")}
    block = "pet_arm.down.0.blocks.0.block"
    assert {name.removeprefix(block) for name in found if name.startswith(block)} == {
        ".in_conv", ".out_conv", ".time.1", ".clinical.0", ".clinical.2"
    }  # fmt: skip
    assert {n for n in found if "middle_attention" in n and n.startswith("pet")} == {
        "pet_arm.middle_attention.qkv", "pet_arm.middle_attention.out"
    }  # fmt: skip
    assert {n for n in found if n.startswith("pet_arm.time")} == {"pet_arm.time.0", "pet_arm.time.2"}
    assert not any("resample" in n or "stem" in n or "head" in n or "skip" in n for n in found)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(6, 4), (2, 6)),
        (nn.Conv1d(6, 4, 1), (2, 6, 5)),
        (nn.Conv2d(6, 4, 3, padding=1), (2, 6, 5, 7)),
    ],
    ids=["linear", "conv1d", "conv2d"],
)
def test_it_is_the_layer_whose_weight_is_w_plus_b_a(layer: nn.Module, shape: tuple[int, ...]) -> None:
    """The branch equals the layer with the merged weight, of rank at most RANK: eq. 3 of the paper."""
    network = nn.ModuleDict({"plain": copy.deepcopy(layer)})
    small = SmallNetwork(layer) if isinstance(layer, nn.Linear) else _carrier(layer)
    add_adapters(small, RANK)
    down, up = layer.adapter
    nn.init.normal_(up.weight)
    change = (up.weight.flatten(1) @ down.weight.flatten(1)).view(layer.weight.shape)
    assert torch.linalg.matrix_rank(change.flatten(1)) == RANK
    x = torch.randn(shape)
    with torch.no_grad():
        network["plain"].weight += change
    assert torch.allclose(layer(x), network["plain"](x), atol=1e-5)


def _carrier(layer: nn.Module) -> nn.Module:
    """A module that holds the layer where adapters are put."""
    from pasta_model.network.blocks import AdaptiveBlock, Attention

    if isinstance(layer, nn.Conv1d):
        held = Attention(4, groups=1, heads=1)
        held.qkv = layer
        return held
    held = AdaptiveBlock(4, 4, groups=1, time_width=4, clinical_values=0)
    held.in_conv = layer
    return held


def test_at_the_start_only_b_has_a_gradient(networks) -> None:
    _, network = networks
    stirred(network)
    for name, parameter in network.named_parameters():
        if ".adapter.1." in name:
            nn.init.zeros_(parameter)
    sum(o.square().sum() for o in outputs(network)).backward()
    for number, wanted in ((0, False), (1, True)):
        gradients = [p.grad for n, p in network.named_parameters() if f".adapter.{number}." in n]
        assert [g is not None and bool(g.any()) for g in gradients] == [wanted] * len(gradients)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_fused_optimizer_moves_them_alone(make_settings, dtype: str, channels_last: bool) -> None:
    settings = make_settings(
        **{**ATTENTIVE, "network__adapter_rank": RANK},
        exchange__frozen="norms",
        training__channels_last=channels_last,
        training__dtype=dtype,
    )
    network = new_translator(settings).network
    adapters = members(dict(network.named_parameters()), ["adapters"])
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in adapters)
    before = {n: t.clone() for n, t in network.state_dict().items()}
    optimizer = make_optimizer(network, settings.training)
    for seed in range(2):
        optimizer.zero_grad(set_to_none=True)
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        sum((o.float() - 1).square().mean() for o in outputs(network, seed=seed, dtype=kind)).backward()
        optimizer.step()
    moved = {n for n, t in network.state_dict().items() if not torch.equal(t, before[n])}
    assert moved
    assert moved <= adapters


def test_checkpointing_gives_the_same_gradients(networks) -> None:
    _, network = networks
    stirred(network)
    found = []
    for checkpointing in (False, True):
        network.zero_grad()
        for arm in (network.pet_arm, network.mri_arm):
            arm.checkpointing = checkpointing
        sum(o.square().sum() for o in outputs(network)).backward()
        found.append([p.grad.clone() for n, p in network.named_parameters() if "adapter" in n])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-4)


def test_they_stay_float32_where_the_small_networks_do() -> None:
    network = SmallNetwork(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 2))
    add_adapters(network, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(3, 4)).dtype == torch.float32


def test_convolutions_that_are_cast_for_synthesis_hardly_change(networks) -> None:
    _, network = networks
    stirred(network)
    with torch.inference_mode():
        exact = outputs(network)
        cast_convolutions(network, torch.bfloat16)
        rough = outputs(network, dtype=torch.bfloat16)
    for one, other in zip(exact, rough, strict=True):
        assert 0 < (other.float() - one).norm() / one.norm() < 0.05


def test_they_are_few(make_settings) -> None:
    network = new_network(make_settings(network__adapter_rank=4))
    state = network.state_dict()
    few = sum(state[name].numel() for name in members(state, ["adapters"]))
    assert few < 0.15 * sum(t.numel() for t in state.values())


def test_conditions_still_reach_them(networks) -> None:
    """The adapter of the time's map changes what time says."""
    _, network = networks
    stirred(network)
    block = network.pet_arm.down[0].blocks[0].block
    x, told = torch.randn(1, 8, 4, 4), Conditions(torch.randn(1, network.pet_arm.time_width), None)
    before = block(x, told, None)
    with torch.no_grad():
        block.time[1].adapter[1].weight.zero_()
    assert not torch.allclose(before, block(x, told, None))
