# SPDX-License-Identifier: Apache-2.0
"""Sums over persons on the wire: what possible persons have passes, all else is refused with a reason."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from pasta_model.config import Settings
from pasta_model.errors import ConfigError, ExchangeError
from pasta_model.exchange import contents, reference
from pasta_model.exchange.contents import REFERENCE, Parcel
from pasta_model.exchange.departure import check_departure
from pasta_model.exchange.reference import MIN_PERSONS, ReferenceReport, ReferenceTask
from pasta_model.familiarity.features import COUNT
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.norms.sums import NormSums, scaled_age
from tests.support.people import GRID, SPACING

SHAPE = GRID.crop.shape


def norm_sums(persons: int = 8, *, seed: int = 0, mean: float = 1.2, spread: float = 0.15, ages=None):
    """The sums of random persons, by hand."""
    rng = np.random.default_rng(seed)
    x = np.array([scaled_age(age) for age in (rng.uniform(55, 95, persons) if ages is None else ages)])
    y = np.maximum(mean + spread * rng.standard_normal((len(x), *SHAPE)), 0.0)
    y[:, :4] = 0.0  # outside the brain
    volumes = y.sum(0), np.tensordot(x, y, 1), (y**2).sum(0)
    return NormSums(SPACING, 8.0, len(x), float(x.sum()), float((x**2).sum()), *volumes)


def norms(**changes: object) -> Parcel:
    return ReferenceReport("A", norm_sums(**changes)).parcel()


def features(persons: int = 8) -> Parcel:
    table = np.random.default_rng(0).normal(2.0, 3.0, (persons, COUNT))
    return ReferenceReport("A", FeatureSums.of(table)).parcel()


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(federation__reference="both")


def test_the_list_of_what_may_leave_names_every_type() -> None:
    types = [
        name
        for module in (contents, reference)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and kind.__module__ == module.__name__ and hasattr(kind, "of")
    ]
    assert {"SiteReport", "ReferenceTask", "ReferenceReport"} <= set(types)
    assert not [name for name in types if f"`{name}`" not in str(contents.__doc__)]


class TestTask:
    @pytest.mark.parametrize("what", ["norms", "familiarity"])
    def test_round_trip(self, what) -> None:
        assert ReferenceTask.of(ReferenceTask("A", what).parcel()) == ReferenceTask("A", what)

    @pytest.mark.parametrize("what", ["rows", "", 3, ["norms"], "both"])
    def test_something_else_is_not_asked_for(self, what: object) -> None:
        with pytest.raises(ExchangeError, match="wanted one of norms, familiarity"):
            ReferenceTask.of(Parcel({"site": "A", "what": what}, {}))

    def test_nothing_rides_along(self) -> None:
        with pytest.raises(ExchangeError, match="subject"):
            ReferenceTask.of(Parcel({"site": "A", "what": "norms", "subject": "sub-1"}, {}))


class TestRoundTrip:
    def test_norms(self) -> None:
        sums = norm_sums()
        parcel = ReferenceReport("A", sums).parcel()
        assert parcel.values == {
            "site": "A", "what": "norms", "persons": 8, "spacing": 3.0, "fwhm": 8.0,
            "age": sums.age, "age-squared": sums.age_squared,
        }  # fmt: skip
        assert {name: (a.dtype, a.shape) for name, a in parcel.arrays.items()} == dict.fromkeys(
            ("uptake", "age_uptake", "uptake_squared"), (np.float32, SHAPE)
        )
        found = ReferenceReport.of(parcel)
        assert (found.site, found.what, found.persons) == ("A", "norms", 8)
        np.testing.assert_allclose(found.sums.uptake, sums.uptake, rtol=6e-8)
        again = found.parcel()
        assert again.values == parcel.values
        for name, array in parcel.arrays.items():
            np.testing.assert_array_equal(again.arrays[name], array)

    def test_familiarity_travels_in_full(self) -> None:
        table = np.random.default_rng(1).normal(2.0, 3.0, (9, COUNT))
        found = ReferenceReport.of(ReferenceReport("A", FeatureSums.of(table)).parcel())
        assert (found.what, found.persons) == ("familiarity", 9)
        np.testing.assert_array_equal(found.sums.outer, table.T @ table)
        assert sum(a.nbytes for a in found.parcel().arrays.values()) < 10_000

    def test_size_at_3_mm(self) -> None:
        assert sum(a.nbytes for a in norms().arrays.values()) == 3 * 48 * 56 * 48 * 4


@pytest.mark.parametrize("sites", [1, 4])
def test_what_float32_costs(sites: int) -> None:
    """The spread that is found from the sums on the wire, beside that of float64: 2e-7 (m^2 + s^2) / s^2."""
    mean, spread = 1.5, 0.15
    whole = [norm_sums(10, seed=n, mean=mean, spread=spread) for n in range(sites)]
    sent = [ReferenceReport.of(ReferenceReport("A", part).parcel()).sums for part in whole]

    def found(parts) -> np.ndarray:
        s = NormSums.pool(parts)
        scatter = s.age_squared - s.age**2 / s.count
        slope = (s.age_uptake - s.age * s.uptake / s.count) / scatter
        residual = s.uptake_squared - s.uptake**2 / s.count - slope**2 * scatter
        return np.sqrt(residual[4:] / (s.count - 2))

    exact, rounded = found(whole), found(sent)
    off = np.abs(rounded / exact - 1)
    assert (off <= 2e-7 * (mean**2 + exact**2) / exact**2).all(), "of each voxel's own spread"
    assert 0 < np.median(off) < 1e-5


@limits(max_examples=10)
@given(
    seed=st.integers(0, 2**16),
    persons=st.integers(MIN_PERSONS, 12),
    mean=st.floats(0.0, 3.0),
    spread=st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 0.5]),
    one_age=st.booleans(),
)
def test_sums_of_possible_persons_are_never_refused(seed, persons, mean, spread, one_age) -> None:
    ages = [70.0] * persons if one_age else None
    ReferenceReport.of(norms(persons=persons, seed=seed, mean=mean, spread=spread, ages=ages))
    rng = np.random.default_rng(seed)
    table = rng.normal(mean, spread, (persons, COUNT)) * 10.0 ** rng.integers(-3, 3, COUNT)
    table[:, 0] = 0.0  # a feature that says nothing
    ReferenceReport.of(ReferenceReport("A", FeatureSums.of(table)).parcel())


def changed(parcel: Parcel, **changes: object) -> Parcel:
    """A parcel with other values, or, as functions, other arrays."""
    values, arrays = dict(parcel.values), dict(parcel.arrays)
    for name, change in changes.items():
        if callable(change):
            arrays[name] = change(arrays[name])
        else:
            values[name.replace("__", "-")] = change
    return Parcel(values, arrays)


def one(value: float, *, add: bool = False):
    """A change of a single number of an array."""

    def change(array: np.ndarray) -> np.ndarray:
        found = array.copy()
        found.flat[found.size // 2] = value + (found.flat[found.size // 2] if add else 0.0)
        return found

    return change


POISON = {
    "NaN": ({"uptake": one(np.nan)}, "NaN or infinity"),
    "infinity": ({"uptake_squared": one(np.inf)}, "NaN or infinity"),
    "negative squares": ({"uptake_squared": one(-1.0)}, "less than their sums allow"),
    "squares less than Cauchy and Schwarz allow": ({"uptake_squared": one(8.0)}, "less than their sums"),
    "a voxel that is far too bright": ({"uptake": one(1e3)}, "above 20 SUVR a person"),
    "squares that are far too large": ({"uptake_squared": one(1e6)}, "above 20 SUVR a person"),
    "a covariance more than both spreads": ({"age_uptake": one(3.0, add=True)}, "more than both spreads"),
    "the whole map moved with age": ({"age_uptake": lambda a: a + np.float32(3)}, "more than both spreads"),
    "float64": ({"uptake": lambda a: a.astype(np.float64)}, "is float64, wanted float32"),
    "the other byte order": ({"uptake": lambda a: a.astype(">f4")}, "wanted float32"),
    "another shape": ({"uptake": lambda a: a[:-1]}, "wanted (48, 56, 48)"),
    "a line of numbers": ({"age_uptake": lambda a: a.ravel()}, "wanted (48, 56, 48)"),
    "no persons": ({"persons": 0}, "sums over 0 person(s), wanted at least 5"),
    "four persons": ({"persons": 4}, "sums over 4 person(s), wanted at least 5"),
    "fewer persons than there are": ({"persons": 6}, "that 6 persons cannot have|less than their sums"),
    "minus one": ({"persons": -1}, "wanted a count"),
    "half a person": ({"persons": 7.5}, "wanted a count"),
    "names of persons": ({"persons": ["sub-1"]}, "wanted a count"),
    "centuries": ({"age": 800.0}, "sums of ages that 8 persons cannot have"),
    "squares of ages": ({"age__squared": 0.0}, "sums of ages that 8 persons cannot have"),
    "ages that nobody has": ({"age__squared": 1e4}, "sums of ages that 8 persons cannot have"),
    "an age that is no number": ({"age": float("nan")}, "finite number"),
    "no such grid": ({"spacing": 2.0}, "nobody can use"),
    "no such resolution": ({"fwhm": -1.0}, "nobody can use"),
    "something else": ({"what": "rows"}, "wanted one of norms, familiarity"),
    "called what it is not": ({"what": "familiarity"}, "a message holds"),
    "something rides along": ({"note": "sub-1"}, "note"),
    "no site": ({"site": ""}, "wanted a name"),
}


@pytest.mark.parametrize("kind", POISON)
def test_poisoned_sums_for_norms_are_refused(kind: str) -> None:
    changes, said = POISON[kind]
    with pytest.raises(ExchangeError) as error:
        ReferenceReport.of(changed(norms(), **changes))
    assert any(part in str(error.value) for part in said.split("|")), str(error.value)


def scale_first(factor: float):
    def change(array: np.ndarray) -> np.ndarray:
        found = array.copy()
        found[0] *= factor
        return found

    return change


FEATURE_POISON = {
    "NaN": ({"total": one(np.nan)}, "NaN or infinity"),
    "float32": ({"total": lambda a: a.astype(np.float32)}, "is float32, wanted float64"),
    "other features": ({"total": lambda a: a[:-1]}, "wanted 19; use one version"),
    "products of another shape": ({"outer": lambda a: a[:-1]}, "wanted a count of at least 0, k sums"),
    "products that are not symmetric": ({"outer": lambda a: a + np.triu(np.ones_like(a))}, "not symmetric"),
    "negative squares": ({"outer": lambda a: -a}, "nobody can have"),
    "squares that are far too large": ({"outer": lambda a: a * 1e15}, "nobody can have"),
    "squares less than Cauchy and Schwarz allow": ({"total": lambda a: 3 * a}, "do not allow"),
    "a product of two features": ({"outer": lambda a: a + 200 * (1 - np.eye(len(a)))}, "do not allow"),
    "four persons": ({"persons": 4}, "sums over 4 person(s), wanted at least 5"),
}


@pytest.mark.parametrize("kind", FEATURE_POISON)
def test_poisoned_sums_of_features_are_refused(kind: str) -> None:
    changes, said = FEATURE_POISON[kind]
    with pytest.raises(ExchangeError) as error:
        ReferenceReport.of(changed(features(), **changes))
    assert said in str(error.value)


class TestDeparture:
    @pytest.mark.parametrize("parcel", [norms(), features()], ids=["norms", "familiarity"])
    def test_what_the_run_asks_for_may_leave(self, settings: Settings, parcel: Parcel) -> None:
        check_departure(REFERENCE, parcel, settings)

    @pytest.mark.parametrize(
        ("asked", "sent"), [("none", norms), ("norms", features), ("familiarity", norms)]
    )
    def test_what_it_does_not_ask_for_stays(self, make_settings, asked: str, sent) -> None:
        settings = make_settings(federation__reference=asked)
        with pytest.raises(ExchangeError, match=f"federation.reference of this run is '{asked}'"):
            check_departure(REFERENCE, sent(), settings)

    def test_a_held_out_site_tells_nothing(self, make_settings) -> None:
        settings = make_settings(federation__reference="both", federation__held_out="A, B")
        with pytest.raises(ExchangeError, match="site A is held out"):
            check_departure(REFERENCE, norms(), settings)

    def test_another_resolution_stays(self, settings: Settings) -> None:
        with pytest.raises(ExchangeError, match=r"spacing and FWHM \(3.0, 4.0\) mm, wanted \(3.0, 8.0\)"):
            check_departure(REFERENCE, changed(norms(), fwhm=4.0), settings)

    def test_another_grid_stays(self, make_settings) -> None:
        settings = make_settings(federation__reference="norms", data__spacing=1.5)
        with pytest.raises(ExchangeError, match=r"\(3.0, 8.0\) mm, wanted \(1.5, 8.0\)"):
            check_departure(REFERENCE, norms(), settings)


@pytest.mark.parametrize("unit", ["subject", "site"])
def test_no_private_run_asks_for_sums(make_settings, unit: str) -> None:
    shares = {"aggregation__shares": "equal"} if unit == "site" else {}
    with pytest.raises(ConfigError, match=f"privacy.unit = '{unit}' has no mechanism for them"):
        make_settings(privacy__unit=unit, federation__reference="norms", **shares)
    make_settings(privacy__unit=unit, **shares)


def test_asking_does_not_change_what_a_run_is(make_settings) -> None:
    assert make_settings().digest() == make_settings(federation__reference="both").digest()
    asked = {name: make_settings(federation__reference=name).federation.references for name in
             ("none", "norms", "familiarity", "both")}  # fmt: skip
    assert asked == {
        "none": (), "norms": ("norms",), "familiarity": ("familiarity",), "both": ("norms", "familiarity"),
    }  # fmt: skip
