# SPDX-License-Identifier: Apache-2.0
"""Membership inference: a model that knows its persons by heart gives them away, an honest one does not."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pasta_model.checkpoint import new_translator
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.diffusion.cycle import Translator
from pasta_model.errors import CheckpointError, PrivacyError
from pasta_model.network.dual_arm import Conditioning
from pasta_model.privacy.attacks.membership import (
    membership,
    person_losses,
    refuse_other_reference,
    refuse_same_persons,
)

SHAPE = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"


class Memory(nn.Module):
    """Knows the PETs of a store by heart, by their MRIs, and has no idea of any other."""

    def __init__(self, network: nn.Module, store: SiteStore) -> None:
        super().__init__()
        self.settings = network.settings
        self.weight = nn.Parameter(torch.zeros(1))
        self._known = {}
        for i in store.indices("train"):
            for start in range(store.slices - 4):
                mri, pet = store.slab(i, start, 5)
                self._known[mri.tobytes()] = torch.from_numpy(pet)

    def condition(self, source: Tensor, *, direction: object) -> Conditioning:
        empty = torch.zeros_like(source[0])
        return Conditioning(
            [], torch.stack([self._known.get(s.contiguous().numpy().tobytes(), empty) for s in source])
        )

    def denoise(self, noised, timesteps, conditioning, clinical, *, direction) -> Tensor:
        return conditioning.preview


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(network__shape=SHAPE, sampling__hop=4)


def loader_of(store: SiteStore, split: str = "train") -> SlabLoader:
    usual = Standardisation((70.0, 0.5, 14.0, 25.0, 15.0, 0.5), (8.0,) * 6)
    return SlabLoader(store, split=split, slab_slices=5, scheme=SCHEMES["adni"], standardisation=usual)


def test_who_is_known_by_heart_is_found(make_store, settings) -> None:
    loaders = [loader_of(make_store(site)) for site in "AB"]
    honest = new_translator(settings)
    memory = Translator(
        Memory(honest.network, loaders[0].store), honest.schedule, memory_format=torch.contiguous_format
    )
    own, usual = (
        [person_losses(t, loader, settings=settings.loss, slabs=4, seed=0) for loader in loaders]
        for t in (memory, honest)
    )
    found = membership(*own, references=[tuple(usual)], rng=np.random.default_rng(0))
    assert (found.auc, found.balanced_accuracy) == (1.0, 1.0)
    assert membership(*own, references=[], rng=np.random.default_rng(0)).auc == 1.0
    swapped = membership(*reversed(own), references=[tuple(reversed(usual))], rng=np.random.default_rng(0))
    assert swapped.auc == 0.0


def test_every_model_sees_the_same_slabs_and_noises(make_store, settings) -> None:
    loader, loss = loader_of(make_store()), settings.loss
    one = person_losses(new_translator(settings), loader, settings=loss, slabs=3, seed=4)
    assert one == person_losses(new_translator(settings), loader, settings=loss, slabs=3, seed=4)
    assert one != person_losses(new_translator(settings), loader, settings=loss, slabs=3, seed=5)
    twin = membership(one, one, references=[(one, one)], rng=np.random.default_rng(0))
    assert twin.auc == 0.5


def test_references_are_averaged_and_taken_off() -> None:
    members, others = {"a": 1.0, "b": 5.0}, {"c": 2.0, "d": 3.0}
    # by the loss alone: -1, -5 against -2, -3; beside the references: 4, 1 against 0, -1
    references = [({"a": 6.0, "b": 6.0}, {"c": 1.0, "d": 2.0}), ({"a": 4.0, "b": 6.0}, {"c": 3.0, "d": 2.0})]
    rng = np.random.default_rng(0)
    assert membership(members, others, references=[], rng=rng).auc == 0.5
    assert membership(members, others, references=references, rng=rng).auc == 1.0


def test_all_visits_of_a_person_are_one(tmp_path, make_session, settings) -> None:
    sessions = [
        make_session("sub-1", session=f"m{v:02}", **{k: tmp_path / f"{k}{v}.nii" for k in ("mri", "pet")})
        for v in range(3)
    ]
    store = prepare_store(tmp_path / "A", [*sessions, make_session("sub-2")], spacing=3.0)
    found = person_losses(new_translator(settings), loader_of(store), settings=settings.loss, slabs=6, seed=0)
    assert found.keys() == {"sub-1", "sub-2"}


def test_damaged_weights_are_refused(make_store, settings) -> None:
    translator = new_translator(settings)
    with torch.no_grad():
        next(translator.network.parameters()).fill_(torch.nan)
    with pytest.raises(PrivacyError, match=r"the loss of 3 of 3 persons of site A is not finite"):
        person_losses(translator, loader_of(make_store()), settings=settings.loss, slabs=2, seed=0)


def test_a_member_among_the_others_is_refused(make_store) -> None:
    store = make_store()
    with pytest.raises(PrivacyError, match="sub-Aada: is at site A and at site A"):
        refuse_same_persons(loader_of(store), loader_of(store))
    refuse_same_persons(loader_of(store), loader_of(store, "valid"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data__spacing": 1.5}, r"data.spacing is 1.5, wanted 3.0"),
        ({"data__clinical": "none"}, r"data.clinical is 'none', wanted 'adni'"),
        ({"network__shape": SHAPE.replace("slices 5", "slices 7")}, "its slabs have 7 slices, wanted 5"),
        ({"diffusion__timestep_stride": 20}, "timestep-stride is 20, wanted 10"),
    ],
)
def test_a_reference_of_other_settings_is_refused(make_settings, settings, change, said) -> None:
    other = make_settings(**{"network__shape": SHAPE, "sampling__hop": 4} | change)
    with pytest.raises(CheckpointError, match=said):
        refuse_other_reference("ref.safetensors", other, settings)
    wider = make_settings(network__shape=SHAPE.replace("width 8", "width 16"), sampling__hop=4)
    refuse_other_reference("ref.safetensors", wider, settings)


def test_fewer_than_two_persons_tell_nothing() -> None:
    with pytest.raises(PrivacyError, match="1 members and 2 others"):
        membership({"a": 1.0}, {"b": 1.0, "c": 2.0}, references=[], rng=np.random.default_rng(0))
