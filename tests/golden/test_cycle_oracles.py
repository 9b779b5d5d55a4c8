# SPDX-License-Identifier: Apache-2.0
"""CycleEx against four passes written out by hand, with torchmetrics' SSIM; and its ablations' gradients."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.diffusion.schedule import Schedule
from pasta_model.network.blocks import Conditions
from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.network.unet import Arm
from pasta_model.sections import DiffusionSettings, LossSettings
from tests.support.standins import SLICES, draws, random_network

LOSSES = {
    "full": LossSettings(),
    "detached": LossSettings(detach_cycle=True),
    "no MetaROI": LossSettings(metaroi_strength=0),
    "other weights": LossSettings(metaroi_strength=3.0, task_weight=0.4),
    "no CycleEx": LossSettings(cycle=False),
}


@pytest.fixture
def batch() -> Batch:
    generator = draws(5)
    mri, pet, m = (torch.rand(2, SLICES, 16, 16, generator=generator) for _ in range(3))
    return Batch(2 * mri - 1, 2 * pet - 1, m, torch.randn(2, 4, generator=generator))


def structure(x: Tensor, y: Tensor) -> Tensor:
    """torchmetrics' SSIM over whole windows: its reflected border of 5 pixels is left out."""
    flat = [slab.reshape(-1, 1, *slab.shape[-2:]) for slab in (y, x)]
    _, image = structural_similarity_index_measure(*flat, data_range=2.0, sigma=1.5, return_full_image=True)
    return image[..., 5:-5, 5:-5].mean()


def signal_at(t: int) -> float:
    return (
        math.cos(((t + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
        / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    )


def four_passes(network: DualArm, batch: Batch, settings: LossSettings) -> dict[str, Tensor]:
    """METHOD.md, 'Cycle exchange': each pass names its two arms, its target and its condition."""
    generator, pet_arm, mri_arm = draws(11), network.pet_arm, network.mri_arm
    weight = 1 + settings.metaroi_strength * batch.metaroi

    def one(
        denoiser: Arm, conditioner: Arm, x: Tensor, y: Tensor, clinical: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        t = 10 * torch.randint(100, (len(x),), generator=generator)
        noise = torch.randn(x.shape, generator=generator)
        a = torch.tensor([signal_at(int(step)) for step in t])[:, None, None, None]
        preview, features = conditioner(y)
        x_t = a.sqrt() * x + (1 - a).sqrt() * noise
        x0, _ = denoiser(x_t, conditions=Conditions(denoiser.embed(t), clinical), features=features)
        l1, task = (weight * (x - x0).abs()).mean(), (weight * (x - preview).abs()).mean()
        return x0, l1 + settings.task_weight * task + (1 - structure(x, x0))

    def passed_on(synthetic: Tensor) -> Tensor:
        return synthetic.detach() if settings.detach_cycle else synthetic

    losses: dict[str, Tensor] = {}
    pet, losses["A"] = one(pet_arm, mri_arm, batch.pet, batch.mri, batch.clinical)
    if settings.cycle:
        _, losses["B"] = one(mri_arm, pet_arm, batch.mri, passed_on(pet), None)
        mri, losses["C"] = one(mri_arm, pet_arm, batch.mri, batch.pet, None)
        _, losses["D"] = one(pet_arm, mri_arm, batch.pet, passed_on(mri), batch.clinical)
    return losses


def ours(network: DualArm, batch: Batch, settings: LossSettings) -> Tensor:
    translator = Translator(network, Schedule(DiffusionSettings()))
    return step_loss(translator, batch, settings=settings, generator=draws(11))


def gradients(loss: Callable[[DualArm], Tensor]) -> dict[str, Tensor | None]:
    network = random_network()
    loss(network).backward()
    return {name: p.grad for name, p in network.named_parameters()}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_are_those_of_the_passes(batch: Batch, name: str) -> None:
    settings = LOSSES[name]
    losses = four_passes(random_network(), batch, settings)
    assert len(losses) == (4 if settings.cycle else 1)
    assert min(losses.values()) > 0.1
    assert ours(random_network(), batch, settings).item() == pytest.approx(
        sum(losses.values()).item(), rel=1e-5
    )
    wanted = gradients(lambda network: sum(four_passes(network, batch, settings).values()))
    found = gradients(lambda network: ours(network, batch, settings))
    assert {n for n, g in found.items() if g is None} == {n for n, g in wanted.items() if g is None}
    for key, reference in wanted.items():
        if reference is not None:
            torch.testing.assert_close(
                found[key], reference, rtol=1e-3, atol=2e-5, msg=lambda m, k=key: f"{k}: {m}"
            )


@pytest.mark.parametrize("name", ["no CycleEx", "no MetaROI", "detached"])
def test_ablation_changes_the_gradients(batch: Batch, name: str) -> None:
    """Else the test above would not see an ablation that does nothing."""
    full, ablated = (gradients(lambda n, s=s: ours(n, batch, s)) for s in (LOSSES["full"], LOSSES[name]))
    differing = [
        n for n, g in full.items() if ablated[n] is None or not torch.allclose(g, ablated[n], rtol=1e-2)
    ]
    assert len(differing) > len(full) / 2


def test_detached_cycle_stops_the_gradient_at_the_synthetic_slab(batch: Batch, monkeypatch) -> None:
    """Pass A's synthetic PET gets the gradient of its own loss, as without a cycle, and none from pass B."""
    real = DualArm.denoise

    def of_pass_a(settings: LossSettings) -> Tensor:
        synthetic: list[Tensor] = []

        def keep(self: DualArm, *values: object, **words: object) -> Tensor:
            x0 = real(self, *values, **words)
            x0.retain_grad()
            synthetic.append(x0)
            return x0

        monkeypatch.setattr(DualArm, "denoise", keep)
        ours(random_network(), batch, settings).backward()
        return synthetic[0].grad

    alone, detached, attached = (of_pass_a(LOSSES[name]) for name in ("no CycleEx", "detached", "full"))
    torch.testing.assert_close(detached, alone, rtol=1e-5, atol=1e-9)
    assert (attached - alone).norm() > 0.01 * alone.norm()


@pytest.mark.parametrize("direction", Direction)
def test_each_direction_alone_teaches_both_arms(batch: Batch, direction: Direction) -> None:
    """The roles are swapped, the parameters are the same."""
    network = random_network()
    translator = Translator(network, Schedule(DiffusionSettings()))
    forth = direction is Direction.MRI_TO_PET
    pair = (batch.pet, batch.mri) if forth else (batch.mri, batch.pet)
    clinical = batch.clinical if forth else None
    x0, preview = translator.translate(*pair, clinical, direction=direction, generator=draws())
    (x0.square().mean() + preview.square().mean()).backward()
    taught = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    told = {n for n, _ in network.named_parameters() if ".time." in f".{n}" or ".clinical." in n}
    assert taught >= {n for n, _ in network.named_parameters()} - told
    denoiser = (
        "pet_arm" if forth else "mri_arm"
    )  # only the arm that denoises is told time and clinical vector
    assert {n.split(".")[0] for n in taught & told} == {denoiser}
