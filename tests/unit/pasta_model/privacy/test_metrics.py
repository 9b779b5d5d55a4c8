# SPDX-License-Identifier: Apache-2.0
"""A noised validation error: one person more, less or other moves its sum by no more than the bound."""

import json
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pasta_model.checkpoint import new_network, new_translator
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Standardisation
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.diffusion.cycle import Translator
from pasta_model.privacy import metrics
from pasta_model.privacy.metrics import BOUND, clipped_sum, noised_validation_mae, subject_errors

SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
PEOPLE = ("sub-ada", "sub-bob", "sub-cyd", "sub-dan")
QUIET = 1e-9  # a noise multiplier that shows what is below the noise

anything = st.floats(allow_nan=True, allow_infinity=True, width=32)
errors = st.lists(anything | st.floats(0, 2, width=32), min_size=1, max_size=20)


class TestSensitivity:
    @given(others=errors, one=anything, place=st.integers(0, 20))
    def test_one_person_more_or_less(self, others: list[float], one: float, place: int) -> None:
        more = [*others[:place], one, *others[place:]]
        change = clipped_sum(torch.tensor(more)) - clipped_sum(torch.tensor(others))
        assert float(change) + 1e-12 >= 0
        assert float(change) <= BOUND + 1e-12

    @given(others=errors, one=anything, place=st.integers(0, 19))
    def test_another_person_in_place_of_one(self, others: list[float], one: float, place: int) -> None:
        changed = list(others)
        changed[place % len(others)] = one
        change = clipped_sum(torch.tensor(changed)) - clipped_sum(torch.tensor(others))
        assert abs(float(change)) <= BOUND + 1e-12

    def test_usual_errors_are_not_clipped(self) -> None:
        assert float(clipped_sum(torch.tensor([0.1, 0.25, 0.5, 0.7]))) == pytest.approx(
            0.1 + 0.25 + 0.5 + 0.5
        )

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_an_error_that_is_no_number_does_not_show(self, make_settings, monkeypatch, bad: float) -> None:
        """Weights can be made so that they overflow for one person's scan."""
        found = [released(make_settings, monkeypatch, [0.1, 0.2, one]) for one in (bad, BOUND)]
        assert found[0] == found[1] == pytest.approx((0.1 + 0.2 + BOUND) / 3, abs=1e-4)


def released(make_settings, monkeypatch, values: Sequence[float], *, noise: float = QUIET) -> float:
    """What is told where these are the errors."""
    monkeypatch.setattr(metrics, "subject_errors", lambda *_, **__: torch.tensor(values))
    settings = make_settings(privacy__metrics_noise_multiplier=noise)
    return noised_validation_mae(None, None, settings=settings)  # type: ignore[arg-type]


class TestNoise:
    def test_its_spread_is_the_multiplier_times_the_bound(self, make_settings, monkeypatch) -> None:
        values, sigma = [0.2, 0.3, 0.4, 0.9], 0.1
        found = [released(make_settings, monkeypatch, values, noise=sigma) for _ in range(2000)]
        middle, spread = (0.2 + 0.3 + 0.4 + BOUND) / 4, sigma * BOUND / 4
        assert len(set(found)) > 500, "rounded to four digits, and no seed makes it again"
        assert statistics.pstdev(found) == pytest.approx(spread, rel=0.08)  # five standard errors
        assert stats.kstest(found, "norm", args=(middle, spread)).pvalue > 1e-6

    def test_it_is_not_told_below_zero(self, make_settings, monkeypatch) -> None:
        found = [released(make_settings, monkeypatch, [0.0, 0.0], noise=10.0) for _ in range(200)]
        assert min(found) == 0
        assert 60 < sum(one == 0 for one in found) < 140, "half of it is below zero"

    def test_no_seed_of_a_run_gives_it(self, make_settings, monkeypatch) -> None:
        found = [released(make_settings, monkeypatch, [0.3], noise=0.1) for _ in range(3)]
        assert len(set(found)) == 3


# --- The real function, on a real store ---------------------------------------------------


@pytest.fixture
def settings(make_settings) -> Settings:
    return make_settings(
        network__shape=SMALLEST,
        sampling__hop=4,
        privacy__metrics_noise_multiplier=QUIET,
        data__clinical="none",
    )


@pytest.fixture
def translator(settings: Settings) -> Translator:
    """A network in which noise, scan and weights all matter."""
    generator = torch.Generator().manual_seed(0)
    state = new_network(settings).state_dict()
    return new_translator(
        settings, {n: t + 0.05 * torch.randn(t.shape, generator=generator) for n, t in state.items()}
    )


@pytest.fixture
def store(tmp_path: Path, make_session) -> SiteStore:
    """Four people, the last with two visits."""
    sessions = [make_session(name, split="valid") for name in PEOPLE]
    again = {"mri": tmp_path / "scans" / "m12_T1w.nii", "pet": tmp_path / "scans" / "m12_pet.nii"}
    sessions.append(make_session(PEOPLE[-1], split="valid", session="m12", **again))
    return prepare_store(tmp_path / "A", sessions, spacing=3.0)


@pytest.fixture
def loader(store: SiteStore, settings: Settings) -> Callable[..., SlabLoader]:
    """A loader of these people alone."""

    def make(*people: str) -> SlabLoader:
        path = store.path.with_name("-".join(people))
        shutil.copytree(store.path, path)
        index = json.loads((path / "index.json").read_text())
        for entry in index["entries"]:
            entry["split"] = "valid" if entry["subject"] in people else "train"
        (path / "index.json").write_text(json.dumps(index))
        return SlabLoader(
            SiteStore(path),
            split="valid",
            slab_slices=settings.network.slab_slices,
            scheme=SCHEMES[settings.data.clinical],
            standardisation=Standardisation((), ()),
        )

    return make


def test_nobodys_error_depends_on_who_else_is_there(translator, settings, loader) -> None:
    together = subject_errors(translator, loader(*PEOPLE), settings=settings)
    assert together.shape == (4,), "two visits are one person"
    assert len({round(float(e), 5) for e in together}) == 4
    for number, name in enumerate(PEOPLE):
        alone = subject_errors(translator, loader(name), settings=settings)
        assert torch.equal(alone, together[number : number + 1]), "to the last bit"


def test_one_person_more_in_the_store(translator, settings, loader) -> None:
    mean = [noised_validation_mae(translator, loader(*PEOPLE[:count]), settings=settings) for count in (3, 4)]
    change = 4 * mean[1] - 3 * mean[0]
    assert -7e-4 <= change <= BOUND + 7e-4  # told in four digits
    assert change > 0.01


def test_same_weights_give_the_same_error_below_the_noise(translator, settings, loader) -> None:
    people = loader(*PEOPLE)
    wanted = float(clipped_sum(subject_errors(translator, people, settings=settings))) / 4
    for _ in range(2):
        found = noised_validation_mae(translator, people, settings=settings)
        assert found == pytest.approx(wanted, abs=1e-4)
