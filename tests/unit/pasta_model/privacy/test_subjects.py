# SPDX-License-Identifier: Apache-2.0
"""The unit that is protected: a person with all visits, slabs and draws of noise."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pasta_model.checkpoint import new_translator
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import prepare_store
from pasta_model.diffusion.losses import pass_loss
from pasta_model.network.dual_arm import Direction
from pasta_model.privacy.subjects import SlabSubjects

SHAPE = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
PLAIN = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)


@pytest.fixture
def store(make_session, tmp_path):
    """Ann has one visit; Bob has two under one name and one under another."""
    sessions = [
        make_session("ann"),
        make_session("bob", rid="7"),
        make_session("bob", session="m12", rid="7"),
        make_session("rob", session="m24", rid="07"),
        make_session("dan", split="valid"),
    ]
    return prepare_store(tmp_path / "store", sessions, spacing=3.0)


@pytest.fixture
def make_subjects(store, make_settings):
    """Make the subjects of the store, with a network whose weights are nowhere zero."""

    def make(*, seed: int = 0, **changes):
        settings = make_settings(network__shape=SHAPE, sampling__hop=4, **changes)
        translator = new_translator(settings)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in translator.network.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        loader = SlabLoader(
            store, split="train", slab_slices=5, scheme=SCHEMES["adni"], standardisation=PLAIN
        )
        subjects = SlabSubjects(
            translator,
            loader,
            settings=settings,
            generator=torch.Generator().manual_seed(seed),
            rng=np.random.default_rng(seed),
        )
        return subjects, translator, loader

    return make


def gradient(subjects: SlabSubjects, translator, name: str) -> torch.Tensor:
    translator.network.zero_grad(set_to_none=True)
    subjects.backward(name)
    return torch.cat([p.grad.flatten() for p in translator.network.parameters() if p.grad is not None])


def noted_places(loader: SlabLoader, monkeypatch) -> list[Sequence[tuple[int, int]]]:
    """Note where slabs are taken."""
    taken: list[Sequence[tuple[int, int]]] = []
    at = loader.at
    monkeypatch.setattr(loader, "at", lambda places, **how: taken.append(places) or at(places, **how))
    return taken


def noted_noisings(translator, monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Note what is noised: slabs, noises, timesteps."""
    noised: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    add = translator.schedule.add_noise
    monkeypatch.setattr(
        type(translator.schedule),
        "add_noise",
        lambda self, *three: noised.append(tuple(t.clone() for t in three)) or add(*three),
    )
    return noised


class TestWhoIsOne:
    def test_a_person_of_two_names_is_one_and_who_validates_none(self, make_subjects) -> None:
        subjects, _, loader = make_subjects()
        assert sorted(subjects.names) == ["ann", "rid:7"]
        assert [entry.person for entry in loader.store.entries].count("rid:7") == 3

    def test_all_visits_of_a_person_are_drawn_and_no_one_elses(self, make_subjects, monkeypatch) -> None:
        subjects, translator, loader = make_subjects(privacy__slabs_per_subject=6)
        taken = noted_places(loader, monkeypatch)
        for _ in range(15):
            gradient(subjects, translator, "rid:7")
        drawn = Counter(index for places in taken for index, _ in places)
        assert sorted(drawn) == [1, 2, 3]
        assert drawn.total() == 90
        # 30 each; five standard deviations are 22.
        assert max(abs(count - 30) for count in drawn.values()) < 22
        gradient(subjects, translator, "ann")
        assert {index for index, _ in taken[-1]} == {0}

    def test_slabs_of_a_turn_are_several_and_turns_differ(self, make_subjects, monkeypatch) -> None:
        subjects, translator, loader = make_subjects(privacy__slabs_per_subject=6)
        taken = noted_places(loader, monkeypatch)
        first, second = (gradient(subjects, translator, "rid:7") for _ in range(2))
        assert len(set(taken[0])) > 3
        assert taken[0] != taken[1]
        assert not torch.equal(first, second)


class TestNobodyElse:
    """With everything known but the privacy noise, a person more changes one gradient, not all."""

    def test_a_gradient_does_not_depend_on_who_was_drawn_before(self, make_subjects) -> None:
        alone, translator, _ = make_subjects()
        wanted = [gradient(alone, translator, "ann") for _ in range(2)]
        company, translator, _ = make_subjects()
        found = []
        for _ in range(2):
            gradient(company, translator, "rid:7")
            found.append(gradient(company, translator, "ann"))
        assert torch.equal(wanted[0], found[0])
        assert torch.equal(wanted[1], found[1])
        assert not torch.equal(*wanted)

    def test_a_seed_says_which_slabs_and_noises(self, make_subjects) -> None:
        one, same, other = (gradient(*make_subjects(seed=seed)[:2], "ann") for seed in (3, 3, 4))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_a_generator_goes_on(self, store, make_subjects) -> None:
        # The next round's subjects may begin with the same generators.
        subjects, translator, loader = make_subjects()
        generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
        rounds = [
            SlabSubjects(translator, loader, settings=subjects._settings, generator=generator, rng=rng)
            for _ in range(2)
        ]
        first, second = (gradient(one, translator, "ann") for one in rounds)
        assert not torch.equal(first, second)


class TestDraws:
    def test_a_slab_is_noised_so_many_times_with_noises_of_its_own(self, make_subjects, monkeypatch) -> None:
        subjects, translator, loader = make_subjects(privacy__slabs_per_subject=2, privacy__draws_per_slab=3)
        taken = noted_places(loader, monkeypatch)
        noised = noted_noisings(translator, monkeypatch)
        gradient(subjects, translator, "rid:7")
        ((slabs, noises, timesteps),) = noised
        assert [len(places) for places in taken] == [2]
        wanted = loader.at(taken[0]).pet
        assert torch.equal(slabs, torch.cat([wanted] * 3))
        assert len({noise.sum().item() for noise in noises}) == 6
        assert len(set(timesteps.tolist())) > 1

    def test_clinical_values_go_with_their_slabs(self, make_subjects, monkeypatch) -> None:
        subjects, translator, loader = make_subjects(privacy__slabs_per_subject=2, privacy__draws_per_slab=3)
        taken, given = noted_places(loader, monkeypatch), []
        denoise = translator.network.denoise
        monkeypatch.setattr(
            translator.network,
            "denoise",
            lambda *four, **how: given.append(four[3]) or denoise(*four, **how),
        )
        gradient(subjects, translator, "rid:7")
        assert torch.equal(given[0], torch.cat([loader.at(taken[0]).clinical] * 3))

    @pytest.mark.parametrize("channels_last", [False, True])
    def test_the_gradient_is_that_of_the_mean_loss(self, make_subjects, monkeypatch, channels_last) -> None:
        subjects, translator, loader = make_subjects(
            privacy__slabs_per_subject=2,
            privacy__draws_per_slab=2,
            loss__metaroi_strength=3.0,
            training__channels_last=channels_last,
        )
        taken = noted_places(loader, monkeypatch)
        noised = noted_noisings(translator, monkeypatch)
        translator.network.zero_grad(set_to_none=True)
        loss = subjects.backward("rid:7")
        network, mean = translator.network, torch.zeros(())
        found = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        # The same slabs and noises, one by one.
        batch = loader.at(taken[0])
        network.zero_grad(set_to_none=True)
        for number, (slab, noise, timestep) in enumerate(zip(*noised[0], strict=True)):
            i = [number % 2]
            conditioning = network.condition(batch.mri[i], direction=Direction.MRI_TO_PET)
            x_t = translator.schedule.add_noise(slab[None], noise[None], timestep[None])
            x0 = network.denoise(
                x_t, timestep[None], conditioning, batch.clinical[i], direction=Direction.MRI_TO_PET
            )
            own = subjects._settings.loss
            mean = mean + pass_loss(
                batch.pet[i], x0, conditioning.preview, batch.metaroi[i],
                strength=own.metaroi_strength, task=own.task_weight,
            ) / 4  # fmt: skip
        mean.backward()
        torch.testing.assert_close(loss, mean.detach())
        assert not loss.requires_grad
        assert len(found) > 20
        for name, parameter in network.named_parameters():
            if name in found:
                torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5)
