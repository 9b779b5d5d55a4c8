# SPDX-License-Identifier: Apache-2.0
"""Sums of sites add up to the regression of everybody; a person counts once; few people stay at home."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pasta_model.data.grid import template
from pasta_model.errors import ConfigError, ExchangeError, ManifestError, VolumeError
from pasta_model.norms.model import Norms, fit
from pasta_model.norms.resolution import common_resolution
from pasta_model.norms.sums import VOLUMES, NormSums, scaled_age

CROP = template(3.0).crop


def sums_of(ages, values) -> NormSums:
    """Sums in which voxel i of everybody's PET is their value i, all others 0; (persons, voxels)."""
    x, y = scaled_age(np.asarray(ages)), np.zeros((len(ages), np.prod(CROP.shape)))
    y[:, : values.shape[1]] = values
    volumes = (v.reshape(CROP.shape) for v in (y.sum(0), x @ y, (y**2).sum(0)))
    return NormSums(3.0, 8.0, len(ages), x.sum(), (x**2).sum(), *volumes)


@settings(max_examples=15)
@given(
    ages=arrays(float, 9, elements=st.floats(50, 95)).filter(lambda a: a.std() > 1),
    values=arrays(float, (9, 4), elements=st.floats(0, 3)),
    cuts=st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted),
)
def test_the_sum_over_sites_is_the_fit_of_everybody(ages, values, cuts) -> None:
    a, b = cuts
    sites = [sums_of(ages[part], values[part]) for part in (slice(0, a), slice(a, b), slice(b, 9))]
    line = fit(NormSums.pool(sites))
    level, slope, spread = (part.ravel()[:4] for part in line[:3])
    design = np.column_stack([np.ones(9), (ages - 75) / 10])
    wanted, *_ = np.linalg.lstsq(design, values, rcond=None)
    residual = values - design @ wanted
    np.testing.assert_allclose(np.stack([level, slope]), wanted, atol=1e-6)
    np.testing.assert_allclose(spread, np.sqrt((residual**2).sum(0) / 7), atol=1e-5)


def test_of_people_then_pool_is_pool_then_of(make_people) -> None:
    here, there = make_people(3), make_people(4, seed=1)
    parts = NormSums.of(here, spacing=3.0) + NormSums.of(there, spacing=3.0)
    whole = NormSums.of([*here, *there], spacing=3.0)
    assert parts.count == whole.count == 7
    assert (parts.age, parts.age_squared) == pytest.approx((whole.age, whole.age_squared))
    for name in VOLUMES:
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-12)


def test_sums_are_of_smoothed_pets_by_hand(make_people) -> None:
    people = make_people(2)
    sums = NormSums.of(people, spacing=3.0, fwhm=8.0)
    y = [common_resolution(p.pet, spacing=3.0, fwhm=8.0).astype(float) for p in people]
    x = [(p.age - 75) / 10 for p in people]
    assert (sums.age, sums.age_squared) == pytest.approx((x[0] + x[1], x[0] ** 2 + x[1] ** 2))
    np.testing.assert_allclose(sums.uptake, y[0] + y[1])
    np.testing.assert_allclose(sums.age_uptake, x[0] * y[0] + x[1] * y[1])
    np.testing.assert_allclose(sums.uptake_squared, y[0] ** 2 + y[1] ** 2)


def test_of_several_visits_the_first_counts(make_people, make_pet) -> None:
    first, other = make_people(2)
    later = replace(first, age=first.age + 2, pet=make_pet(0.9))
    once, again = (NormSums.of(p, spacing=3.0) for p in ([first, other], [first, other, later]))
    assert again.count == 2
    np.testing.assert_array_equal(once.uptake, again.uptake)


def test_every_missing_age_and_every_bad_pet_is_named(make_people) -> None:
    people = make_people(4)
    ageless = [people[0], *(replace(p, age=None) for p in people[1:3]), replace(people[3], age=np.nan)]
    with pytest.raises(ManifestError, match="3 problem") as caught:
        NormSums.of(ageless, spacing=3.0)
    assert all(p.person in str(caught.value) for p in people[1:])
    bad = [replace(p, pet=replace(p.pet, unit="Bq/ml")) for p in people[:2]]
    with pytest.raises(VolumeError, match="2 problem"):
        NormSums.of([*bad, *people[2:]], spacing=3.0)


def test_sums_of_another_kind_are_refused() -> None:
    known = NormSums.empty(spacing=3.0)
    with pytest.raises(ExchangeError, match="wanted one kind"):
        known + NormSums.empty(spacing=3.0, fwhm=6.0)
    with pytest.raises(ExchangeError, match="at least one"):
        NormSums.pool([])
    with pytest.raises(ExchangeError, match="age_uptake: found"):
        replace(known, age_uptake=np.zeros((2, 2, 2)))
    with pytest.raises(ExchangeError, match="all finite"):
        replace(known, uptake=np.full(CROP.shape, np.inf))
    with pytest.raises(ExchangeError, match="-1 persons"):
        replace(known, count=-1)
    with pytest.raises(ConfigError, match="FWHM"):
        NormSums.empty(spacing=3.0, fwhm=-1)


def test_norms_are_that_fit(make_people) -> None:
    people = make_people(12)
    norms = Norms.of(NormSums.of(people, spacing=3.0, fwhm=0))
    y = np.stack([common_resolution(p.pet, spacing=3.0, fwhm=0)[norms.brain] for p in people])
    design = np.column_stack([np.ones(12), [(p.age - 75) / 10 for p in people]])
    wanted, squares, *_ = np.linalg.lstsq(design, y, rcond=None)
    np.testing.assert_allclose(norms.level[norms.brain], wanted[0], rtol=1e-4)
    np.testing.assert_allclose(norms.slope[norms.brain], wanted[1], rtol=1e-3, atol=1e-5)
    spread = np.sqrt(squares / 10)
    np.testing.assert_allclose(
        norms.spread[norms.brain], np.maximum(spread, np.median(spread) / 4), rtol=1e-3
    )
