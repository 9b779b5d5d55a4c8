# SPDX-License-Identifier: Apache-2.0
"""Ablations of the paper are configuration: each changes what its name says, and the title tells of it."""

import pytest
import torch

from pasta_model.checkpoint import new_translator
from pasta_model.config import settings_from_flat
from pasta_model.data.clinical import SCHEMES
from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import step_loss
from pasta_model.network.dual_arm import DualArm
from tests.support.standins import SLICES, SMALL, draws

ABLATIONS = {
    "without CycleEx": {"loss.cycle": False},
    "with a detached cycle": {"loss.detach-cycle": True},
    "without MetaROI weighting": {"loss.metaroi-strength": 0.0},
    "without clinical data": {"data.clinical": "none"},
}
SMALLEST = {"network.shape": SMALL, "training.dtype": "float32", "sampling.hop": 1}


def trained(
    changes: dict, monkeypatch: pytest.MonkeyPatch, *, roi: int = 0
) -> tuple[float, list[dict], DualArm]:
    """Loss of a step as these settings have it, what each pass was told, and the network."""
    settings = settings_from_flat(SMALLEST | changes)
    translator, generator = new_translator(settings), draws(5)
    with torch.no_grad():
        for parameter in translator.network.parameters():
            parameter.add_(0.02)
    mri, pet = (2 * torch.rand(2, SLICES, 12, 16, generator=generator) - 1 for _ in range(2))
    length = SCHEMES[settings.data.clinical].length
    clinical = torch.randn(2, length, generator=generator) if length else None
    m = torch.zeros_like(pet)
    m[:, roi] = 1.0
    passes: list[dict] = []
    real = DualArm.condition

    def note(self, source, *, direction):
        passes.append({"direction": direction.value, "attached": source.requires_grad})
        return real(self, source, direction=direction)

    batch = Batch(mri, pet, m, clinical)
    with monkeypatch.context() as patch:
        patch.setattr(DualArm, "condition", note)
        loss = step_loss(translator, batch, settings=settings.loss, generator=draws())
    loss.backward()
    return loss.item(), passes, translator.network


def test_title_of_the_full_method_names_no_ablation() -> None:
    assert settings_from_flat({}).title == "PASTA tiny"
    assert settings_from_flat({"network.size": "base"}).title == "PASTA base"


@pytest.mark.parametrize("words", ABLATIONS)
def test_title_names_each_ablation(words: str) -> None:
    title = settings_from_flat(ABLATIONS[words]).title
    assert title == f"PASTA tiny, {words}"
    assert [other for other in ABLATIONS if other in title] == [words]


def test_title_names_all_at_once() -> None:
    several = (
        ABLATIONS["without CycleEx"]
        | ABLATIONS["without MetaROI weighting"]
        | ABLATIONS["without clinical data"]
    )
    title = settings_from_flat(several).title
    assert title == "PASTA tiny, without CycleEx, without MetaROI weighting, without clinical data"


def test_without_a_cycle_nothing_is_detached() -> None:
    both = ABLATIONS["without CycleEx"] | ABLATIONS["with a detached cycle"]
    assert settings_from_flat(both).title == "PASTA tiny, without CycleEx"


def test_an_ablation_makes_another_model() -> None:
    digests = {settings_from_flat(changes).digest() for changes in [{}, *ABLATIONS.values()]}
    assert len(digests) == 5


def test_full_method_makes_four_passes_and_passes_gradients_on(monkeypatch: pytest.MonkeyPatch) -> None:
    _, passes, _ = trained({}, monkeypatch)
    assert [p["direction"] for p in passes] == ["mri_to_pet", "pet_to_mri", "pet_to_mri", "mri_to_pet"]
    assert [p["attached"] for p in passes] == [False, True, False, True]


def test_without_cycle_exchange_there_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    _, passes, _ = trained(ABLATIONS["without CycleEx"], monkeypatch)
    assert [p["direction"] for p in passes] == ["mri_to_pet"]


def test_detached_cycle_makes_the_same_passes_and_passes_no_gradient_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, passes, _ = trained(ABLATIONS["with a detached cycle"], monkeypatch)
    assert loss == trained({}, monkeypatch)[0]
    assert not any(p["attached"] for p in passes)


def test_without_metaroi_weighting_the_region_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (trained(ABLATIONS["without MetaROI weighting"], monkeypatch, roi=z)[0] for z in (0, 2))
    assert one == other
    one, other = (trained({}, monkeypatch, roi=z)[0] for z in (0, 2))
    assert one != other


def test_without_clinical_data_no_weight_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, network = trained(ABLATIONS["without clinical data"], monkeypatch)
    assert not [n for n, _ in network.named_parameters() if ".clinical." in n]
    assert all(p.grad is not None for p in network.parameters())
    *_, network = trained({}, monkeypatch)
    assert [n for n, _ in network.named_parameters() if ".clinical." in n]
