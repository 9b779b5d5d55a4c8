# SPDX-License-Identifier: Apache-2.0
"""The rivals' networks: what they look at, what they ignore, and how large they are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.network.dual_arm import Direction
from pasta_model.sections import NetworkSettings
from simulation.rivals.networks import (
    Concatenation,
    OnePass,
    clinical_tokens,
    count,
    critic,
    fitting_width,
    nearest,
    pasta_parameters,
)

SMALLEST = NetworkSettings(
    shape="slices 5, width 8, multipliers 1-2, blocks 1, attention 2, heads 2, groups 4, patch 2"
)
KINDS = pytest.mark.parametrize("kind", [OnePass, Concatenation])


def network(kind, clinical_values=3):
    """A network whose weights are nowhere zero: all it is told shows in the PET."""
    generator = torch.Generator().manual_seed(0)
    made = kind(SMALLEST, clinical_values=clinical_values, width=8)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return made.eval()


def asked(made, *, mri=1, noised=2, timestep=500, clinical=3):
    """What a network says; each number is the seed of something that it is told."""
    slab, values = (2, 5, 16, 24), (2, 3)
    mri, noised, clinical = (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        for shape, seed in ((slab, mri), (slab, noised), (values, clinical))
    )
    with torch.no_grad():
        read = made.condition(mri, direction=Direction.MRI_TO_PET)
        times = torch.full((2,), timestep)
        return made.denoise(noised, times, read, clinical, direction=Direction.MRI_TO_PET)


@KINDS
def test_pet_has_the_shape_of_the_slab(kind) -> None:
    assert asked(network(kind)).shape == (2, 5, 16, 24)


@KINDS
@pytest.mark.parametrize("told", ["mri", "clinical"])
def test_both_look_at_mri_and_clinical_values(kind, told) -> None:
    made = network(kind)
    assert not torch.allclose(asked(made), asked(made, **{told: 9}), atol=1e-4)


@pytest.mark.parametrize(("told", "value"), [("noised", 9), ("timestep", 10)])
def test_only_diffusion_looks_at_noise_and_time(told, value) -> None:
    one_pass = network(OnePass)
    assert torch.equal(asked(one_pass), asked(one_pass, **{told: value}))
    diffusion = network(Concatenation)
    assert not torch.allclose(asked(diffusion), asked(diffusion, **{told: value}), atol=1e-4)


@KINDS
def test_without_clinical_values_nothing_is_made_for_them(kind) -> None:
    made = network(kind, clinical_values=0)
    slab = torch.randn(1, 5, 16, 24)
    read = made.condition(slab, direction=Direction.MRI_TO_PET)
    pet = made.denoise(slab, torch.zeros(1).long(), read, None, direction=Direction.MRI_TO_PET)
    assert pet.shape == slab.shape
    assert count(made) < count(network(kind))


@KINDS
def test_no_weight_is_dead(kind) -> None:
    # A weight that never gets a gradient would be counted in the size and do nothing.
    made = network(kind)
    slab, clinical = torch.randn(2, 5, 16, 24), torch.randn(2, 3)
    read = made.condition(slab, direction=Direction.MRI_TO_PET)
    made.denoise(
        slab, torch.tensor([0, 990]), read, clinical, direction=Direction.MRI_TO_PET
    ).sum().backward()
    silent = [n for n, p in made.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # Keys' biases shift all scores of a query alike, and softmax forgets it.
    assert [n for n in silent if not n.endswith("to_k.bias")] == []


def test_clinical_tokens_by_hand() -> None:
    found = clinical_tokens(torch.tensor([[5.0, -1.0]]))
    assert found.tolist() == [[[1.0, 0.0, 5.0], [0.0, 1.0, -1.0]]]


@KINDS
@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("values", [0, 9])
def test_rivals_are_about_as_large_as_pasta(kind, size, values) -> None:
    settings = NetworkSettings(size=size)
    width = fitting_width(kind, settings, values)
    with torch.device("meta"):
        found = count(kind(settings, clinical_values=values, width=width))
    assert found == pytest.approx(pasta_parameters(settings, values), rel=0.15)


@given(st.integers(1, 5000), st.integers(1, 40), st.integers(1, 3))
def test_nearest_is_what_trying_all_would_find(wanted: int, slope: int, power: int) -> None:
    def size(n: int) -> int:
        return slope * n**power

    found = nearest(size, wanted)
    assert abs(size(found) - wanted) == min(abs(size(n) - wanted) for n in range(1, 5002))


def test_critic_judges_patches_of_mri_and_pet_together() -> None:
    judge = critic(SMALLEST)
    assert judge(torch.randn(2, 10, 48, 56))[-1].shape == (2, 1, 4, 5)
    # 70 x 70 pixels, as Isola et al. 2017 name it: a pixel farther away changes nothing.
    # (Instance norms see the whole slab; without them only the patch is left.)
    for module in judge.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            module.forward = lambda x: x
    slab = torch.randn(1, 10, 160, 160, requires_grad=True)
    judge(slab)[-1][0, 0, 9, 9].backward()
    rows = slab.grad.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == 70
