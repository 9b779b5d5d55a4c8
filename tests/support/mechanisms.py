# SPDX-License-Identifier: Apache-2.0
"""Mechanisms of a few weights, and a small network with nothing at zero."""

import torch
from torch import Tensor, nn

from pasta_model.network.dual_arm import DualArm
from pasta_model.privacy.mechanism import Mechanism
from pasta_model.sections import NetworkSettings

SMALLEST = "slices 3, width 8, multipliers 1, blocks 1, attention 1, heads 2, groups 4, patch 2"


def weights(*values: list[float]) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value)) for value in values]


def mechanism(parameters: list[nn.Parameter], *, rate: float = 1.0, **changes) -> Mechanism:
    """One without noise and of plain gradient descent, if nothing else is said."""
    usual = {"noise_multiplier": 0.0, "max_grad_norm": 1.0, "expected_subjects": 1.0}
    return Mechanism(torch.optim.SGD(parameters, lr=rate), **usual | changes)


def give(found: Mechanism, *gradients: list[float] | Tensor | None) -> None:
    """Add one subject."""
    for parameter, gradient in zip(found.parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else torch.as_tensor(gradient).clone()
    found.add()


def dual_arm() -> DualArm:
    network = DualArm(NetworkSettings(shape=SMALLEST, clinical_both_directions=True), clinical_values=2)
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            values = torch.randn(parameter.shape, generator=drawn)
            parameter.copy_(0.2 * values + float(name.endswith("norm.weight")))
    return network
