# SPDX-License-Identifier: Apache-2.0
"""One arm: gradient checkpointing saves memory and changes nothing."""

import pytest
import torch
from torch import Tensor

from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.diffusion.schedule import Schedule
from pasta_model.network.dual_arm import DualArm
from pasta_model.network.unet import Arm
from pasta_model.placement import place
from pasta_model.sections import DiffusionSettings, LossSettings, NetworkSettings, TrainingSettings
from tests.support.standins import SHAPE, SLICES, SMALL, draws, random_network


def slabs() -> Batch:
    generator = draws(5)
    mri, pet, m = (torch.rand(2, SLICES, 12, 16, generator=generator) for _ in range(3))
    return Batch(2 * mri - 1, 2 * pet - 1, m, torch.randn(2, 4, generator=generator))


def step(network: DualArm) -> tuple[float, dict[str, Tensor], int]:
    """Loss, gradients, and bytes kept from the way forward to the way back."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    translator = Translator(network, Schedule(DiffusionSettings()))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = step_loss(translator, slabs(), settings=LossSettings(), generator=draws())
    loss.backward()
    return loss.item(), {n: p.grad for n, p in network.named_parameters()}, sum(kept.values())


def test_checkpointing_gives_the_same_gradients_with_less_memory() -> None:
    plain, thrifty = (
        step(place(random_network(), TrainingSettings(checkpointing=checkpointing)))
        for checkpointing in (False, True)
    )
    assert thrifty[0] == plain[0]
    for name, wanted in plain[1].items():
        torch.testing.assert_close(
            thrifty[1][name], wanted, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert thrifty[2] < 0.5 * plain[2]


@pytest.mark.parametrize("patch", [1, 2])
def test_an_arm_returns_what_it_is_given_in_shape(patch: int) -> None:
    arm = Arm(NetworkSettings(shape=f"{SMALL}, patch {patch}"), clinical_values=0)
    prediction, features = arm(torch.zeros(2, SLICES, 8, 12))
    assert prediction.shape == (2, SLICES, 8, 12)
    # Down 1 + 1, middle 1, up 2 + 2: full resolution is 8 wide, half resolution 16.
    sizes = [(8, 1), (16, 2), (16, 2), (16, 2), (16, 2), (8, 1), (8, 1)]
    wanted = [(2, width, 8 // patch // by, 12 // patch // by) for width, by in sizes]
    assert [tuple(f.shape) for f in features] == wanted


def test_attention_is_where_the_shape_says() -> None:
    def count(shape: str) -> int:
        return sum(
            ".attention." in n
            for n, _ in Arm(NetworkSettings(shape=shape), clinical_values=0).named_parameters()
        )

    assert count(SHAPE) == 0
    assert count(SMALL) == 3 * 6  # one block down and two up at half resolution, six tensors each
