# SPDX-License-Identifier: Apache-2.0
"""Clinical variables of thousands of people, against published group tables.

Sources: MetaROI SUVR about 1.30 / 1.2 / 1.07 (commonly quoted for ADNI with the MetaROI of Landau et al.
2011, doi:10.1016/j.neurobiolaging.2009.07.002; not checked against a primary table).
PMC9014819 (amyloid-positive, so sicker than all comers) for CU / MCI / dementia: age 74.7 / 75.8 / 76.2,
ADAS-Cog 12.9 / 19.9 / 34.3, MMSE 28.9 / 27.3 / 21.6, APOE4 carriers 53 / 63 / 78 %. Ranges below lie
between those values and the milder all-comers of ADNI.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.twins.clinic import DIAGNOSES, Diagnosis, Missingness, Person, sample_person
from simulation.twins.cohort import DEFAULT_SITES, SiteSettings, diagnosis_of

COMPLETE = Missingness(0, 0, 0)


def people(diagnosis: Diagnosis, number: int, missing: Missingness = COMPLETE) -> list[Person]:
    rng = np.random.default_rng(11)
    return [sample_person(rng, diagnosis=diagnosis, missing=missing) for _ in range(number)]


@pytest.fixture(scope="module")
def groups() -> dict[Diagnosis, list[Person]]:
    return {diagnosis: people(diagnosis, 2000) for diagnosis in DIAGNOSES}


@pytest.mark.parametrize(
    ("variable", "cn", "mci", "dementia"),
    [
        ("suvr", (1.28, 1.32), (1.18, 1.24), (1.04, 1.10)),
        ("mmse", (28.5, 29.3), (27.0, 27.9), (21.6, 23.6)),
        ("adas13", (8.5, 12.9), (15.5, 19.9), (28.0, 34.3)),
        ("age", (73.0, 75.5), (72.0, 76.0), (73.5, 76.5)),
        ("education", (16.0, 17.0), (15.5, 16.5), (14.8, 16.1)),
    ],
)
def test_group_means_lie_in_the_published_ranges(
    groups: dict[Diagnosis, list[Person]], variable: str, cn: tuple, mci: tuple, dementia: tuple
) -> None:
    for diagnosis, (low, high) in zip(DIAGNOSES, (cn, mci, dementia), strict=True):
        mean = np.mean([getattr(person, variable) for person in groups[diagnosis]])
        assert low < mean < high, diagnosis


def test_the_spread_of_suvr_and_scores_is_that_of_a_cohort(groups: dict[Diagnosis, list[Person]]) -> None:
    for found in groups.values():
        assert 0.09 < np.std([p.suvr for p in found]) < 0.14
        assert 3.5 < np.std([p.adas13 for p in found]) < 10.0
        assert 0.7 < np.std([p.mmse for p in found]) < 3.9


def test_carriers_of_apoe4_are_more_frequent_in_disease(groups: dict[Diagnosis, list[Person]]) -> None:
    carriers = [np.mean([p.apoe4 > 0 for p in groups[diagnosis]]) for diagnosis in DIAGNOSES]
    assert carriers == sorted(carriers)
    assert 0.2 < carriers[0] < 0.53
    assert 0.55 < carriers[2] < 0.78


def test_mri_informs_about_the_pet_but_does_not_determine_it(groups: dict[Diagnosis, list[Person]]) -> None:
    for found in groups.values():
        r = np.corrcoef([p.atrophy for p in found], [p.suvr for p in found])[0, 1]
        assert -0.6 < r < -0.2


def test_values_are_missing_as_often_as_asked() -> None:
    found = people("MCI", 4000, Missingness())
    rates = [np.mean([getattr(p, name) is None for p in found]) for name in ("mmse", "adas13", "apoe4")]
    # Four standard errors of a share of 4000.
    assert rates == pytest.approx([0.01, 0.04, 0.06], abs=0.015)
    assert rates[0] < rates[1] < rates[2]


def test_a_missing_value_does_not_change_the_rest_of_a_person() -> None:
    whole = people("MCI", 1)[0]
    partly = people("MCI", 1, Missingness(1, 1, 1))[0]
    assert (partly.mmse, partly.adas13, partly.apoe4) == (None, None, None)
    assert (partly.age, partly.suvr, partly.atrophy) == (whole.age, whole.suvr, whole.atrophy)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(20, 400), st.integers(0, 10), st.integers(0, 10), st.integers(1, 10)
)
def test_the_case_mix_is_followed_even_in_a_small_site(
    seed: int, subjects: int, cn: int, mci: int, dementia: int
) -> None:
    shares = np.array([cn, mci, dementia]) / (cn + mci + dementia)
    site = SiteSettings(name="north", subjects=subjects, mix=tuple(shares.tolist()))
    drawn = [diagnosis_of(site, index, seed=seed) for index in range(subjects)]
    found = np.array([drawn.count(diagnosis) for diagnosis in DIAGNOSES])
    assert np.abs(found - shares * subjects).max() < 4


def test_the_default_sites_differ() -> None:
    assert [site.subjects for site in DEFAULT_SITES] == [72, 48, 36, 24]
    assert len({site.mix for site in DEFAULT_SITES}) == 4
    assert len({(site.vendor, site.field) for site in DEFAULT_SITES}) == 4
    assert max(site.missing_adas13 for site in DEFAULT_SITES) >= 0.3
