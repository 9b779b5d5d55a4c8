# SPDX-License-Identifier: Apache-2.0
"""The classifier: the same by seed, each scan for itself, clinical values beside it."""

import pytest
import torch

from pasta_model.diagnosis.network import ScanClassifier, new_classifier

SHAPE = (8, 12, 8)


def made(**changes: int) -> ScanClassifier:
    return new_classifier(SHAPE, **({"classes": 3, "clinical": 2, "width": 4, "seed": 1} | changes)).eval()


def scans(count: int) -> torch.Tensor:
    return torch.randn(count, 1, *SHAPE, generator=torch.Generator().manual_seed(2))


def test_seed_gives_the_weights_and_leaves_the_global_stream() -> None:
    before = torch.get_rng_state()
    one, same, other = made(), made(), made(seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.head.weight, other.head.weight)


@pytest.mark.parametrize("training", [True, False])
def test_company_changes_nothing(training: bool) -> None:
    network = made().train(training)
    batch, values = scans(3), torch.zeros(3, 2)
    alone = torch.cat([network(batch[i : i + 1], values[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(network(batch, values), alone, atol=1e-5, rtol=0)


def test_every_parameter_is_used() -> None:
    network = made()
    network(scans(2), torch.ones(2, 2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_clinical_values_reach_the_last_layer_only() -> None:
    network = made()
    difference = network(scans(2), torch.tensor([[1.0, 2.0]] * 2)) - network(scans(2), torch.zeros(2, 2))
    wanted = network.head.weight[:, -2:] @ torch.tensor([1.0, 2.0])
    torch.testing.assert_close(difference, wanted.expand(2, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("shape", "layers"), [((8, 8, 8), 1), ((48, 48, 56), 4), ((96, 96, 112), 5)])
def test_depth_follows_the_grid(shape: tuple[int, int, int], layers: int) -> None:
    network = new_classifier(shape, classes=2, clinical=0, width=4, seed=0)
    assert len(network.encoder.net) == layers
    assert max(network.encoder.final_size) <= 4
