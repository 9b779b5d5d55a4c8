# SPDX-License-Identifier: Apache-2.0
"""CycleEx: four passes, each with the right target, condition and place."""

from contextlib import nullcontext

import pytest
import torch

from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.diffusion.losses import ssim
from pasta_model.diffusion.schedule import Schedule
from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.sections import DiffusionSettings, LossSettings, NetworkSettings

FORTH, BACK = Direction.MRI_TO_PET, Direction.PET_TO_MRI


def make_translator(dtype: torch.dtype = torch.float32, **network) -> Translator:
    arms = DualArm(NetworkSettings(**network), clinical_values=9)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in arms.named_parameters():
            spread = 0.7 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
            parameter.add_(float("norm.weight" in name))
    return Translator(arms, Schedule(DiffusionSettings()), dtype)


@pytest.fixture
def batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    mri, pet = (torch.rand(2, 15, 16, 16, generator=generator) * 2 - 1 for _ in range(2))
    return Batch(mri, pet, torch.rand(mri.shape, generator=generator), torch.randn(2, 9, generator=generator))


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def reference(translator: Translator, batch: Batch, settings: LossSettings) -> dict[str, torch.Tensor]:
    """The four passes written out with METHOD's formulas, denoiser and conditioner by name."""
    generator, schedule = draws(), translator.schedule
    pet_arm, mri_arm = translator.network.pet_arm, translator.network.mri_arm
    w = 1 + settings.metaroi_strength * batch.metaroi

    def one(denoiser, conditioner, target, condition, clinical):
        from pasta_model.network.blocks import Conditions

        t = schedule.sample_timesteps(2, generator=generator)
        noise = torch.randn(target.shape, generator=generator)
        a = torch.tensor(schedule.alphas_cumprod)[t][:, None, None, None]
        noised = (a.sqrt() * target + (1 - a).sqrt() * noise).float()
        preview, features = conditioner(condition)
        conditions = Conditions(denoiser.embed(t), clinical)
        x0, _ = denoiser(noised, conditions=conditions, features=features)
        loss = (w * (target - x0).abs()).mean() + settings.task_weight * (w * (target - preview).abs()).mean()
        return x0, loss + 1 - ssim(target, x0)

    pet, a = one(pet_arm, mri_arm, batch.pet, batch.mri, batch.clinical)
    _, b = one(mri_arm, pet_arm, batch.mri, pet, None)
    mri, c = one(mri_arm, pet_arm, batch.mri, batch.pet, None)
    _, d = one(pet_arm, mri_arm, batch.pet, mri, batch.clinical)
    return {"A": a, "B": b, "C": c, "D": d}


@pytest.mark.parametrize("settings", [LossSettings(), LossSettings(metaroi_strength=2.0, task_weight=0.5)])
def test_loss_is_the_sum_of_the_four_passes(batch: Batch, settings: LossSettings) -> None:
    translator = make_translator()
    with torch.no_grad():
        found = step_loss(translator, batch, settings=settings, generator=draws())
        wanted = reference(translator, batch, settings)
    assert found.shape == ()
    assert found.item() == pytest.approx(sum(wanted.values()).item(), rel=1e-5)
    assert all(loss > 0.1 for loss in wanted.values())


def test_without_the_cycle_it_is_pass_a(batch: Batch) -> None:
    translator, settings = make_translator(), LossSettings(cycle=False)
    with torch.no_grad():
        found = step_loss(translator, batch, settings=settings, generator=draws())
        assert found.item() == pytest.approx(reference(translator, batch, settings)["A"].item(), rel=1e-5)


def test_gradients_are_those_of_the_reference(batch: Batch) -> None:
    """Gradients flow through the synthetic slabs, into both arms."""
    results = []
    for sum_of in (
        lambda t: step_loss(t, batch, settings=LossSettings(), generator=draws()),
        lambda t: sum(reference(t, batch, LossSettings()).values()),
    ):
        translator = make_translator()
        sum_of(translator).backward()
        results.append({n: p.grad for n, p in translator.network.named_parameters()})
    for name, found in results[0].items():
        torch.testing.assert_close(
            found, results[1][name], rtol=1e-3, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
        assert found.abs().sum() > 0, name


class Spy:
    """Stands for a translator: notes each pass, answers with a slab of its own."""

    def __init__(self, network: DualArm) -> None:
        self.network = network
        self.passes: list[dict] = []

    def autocast(self):
        return nullcontext()

    def translate(self, target, condition, clinical, *, direction, generator):
        x0 = torch.full_like(target, 3.0 + len(self.passes), requires_grad=True)
        self.passes.append(
            {"target": target, "condition": condition, "clinical": clinical, "direction": direction, "x0": x0}
        )
        return x0, torch.zeros_like(target)


@pytest.mark.parametrize("both", [False, True])
def test_conditions_are_the_slabs_themselves(batch: Batch, both: bool) -> None:
    spy = Spy(DualArm(NetworkSettings(clinical_both_directions=both), clinical_values=9))
    step_loss(spy, batch, settings=LossSettings(), generator=draws())
    a, b, c, d = spy.passes
    mri_clinical = batch.clinical if both else None
    wanted = [
        (a, batch.pet, batch.mri, FORTH, batch.clinical),
        (b, batch.mri, a["x0"], BACK, mri_clinical),  # METHOD, fault 2: not normalised again, not detached
        (c, batch.mri, batch.pet, BACK, mri_clinical),
        (d, batch.pet, c["x0"], FORTH, batch.clinical),
    ]
    for found, target, condition, direction, clinical in wanted:
        assert found["target"] is target
        assert found["condition"] is condition
        assert found["direction"] is direction
        assert found["clinical"] is clinical


def test_same_generator_same_loss(batch: Batch) -> None:
    translator = make_translator()
    with torch.no_grad():
        one, same = (
            step_loss(translator, batch, settings=LossSettings(), generator=draws()) for _ in range(2)
        )
        generator = torch.Generator().manual_seed(12)
        other = step_loss(translator, batch, settings=LossSettings(), generator=generator)
    assert one == same != other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_convolutions_compute_in_the_dtype_that_was_asked_for(
    batch: Batch, dtype: torch.dtype, size: str
) -> None:
    translator = make_translator(dtype, size=size)
    seen: dict[str, torch.dtype] = {}
    for name, module in translator.network.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv1d):
            module.register_forward_hook(lambda m, i, out, name=name: seen.__setitem__(name, out.dtype))
    loss = step_loss(translator, batch, settings=LossSettings(), generator=draws())
    assert set(seen.values()) == {dtype}  # METHOD, fault 3
    assert loss.dtype == torch.float32
    loss.backward()
    assert {p.dtype for p in translator.network.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in translator.network.parameters()} == {torch.float32}


def test_bfloat16_hardly_changes_the_loss(batch: Batch) -> None:
    exact, rough = (
        step_loss(make_translator(dtype), batch, settings=LossSettings(), generator=draws()).item()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough != exact
    assert rough == pytest.approx(exact, rel=0.01)
