# SPDX-License-Identifier: Apache-2.0
"""Clinical vectors; sums of sites give the statistics of the table that nobody has."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pasta_model.data.clinical import SCHEMES, ClinicalScheme, Moments, Standardisation, clinical_table
from pasta_model.errors import ExchangeError

CELLS = st.floats(0, 120, width=32) | st.just(float("nan"))


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=CELLS), st.data())
def test_pooled_statistics_are_those_of_the_whole_table(table: np.ndarray, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(table)), max_size=3)))
    pooled = Moments.pool([Moments.of(part) for part in np.split(table, cuts)]).standardisation()
    for column, mean, spread in zip(table.T, pooled.mean, pooled.spread, strict=True):
        present = column[~np.isnan(column)]
        if not present.size:
            assert (mean, spread) == (0.0, 1.0)
            continue
        assert mean == pytest.approx(present.mean(), abs=1e-9)
        if present.std() > 1e-3:
            assert spread == pytest.approx(present.std(), rel=1e-6)
        elif np.ptp(present) == 0:
            assert spread == 1.0 or spread < 1e-3


def test_vector_by_hand() -> None:
    scheme = ClinicalScheme(("age", "sex", "mmse"), ("mmse",))
    rows = [{"age": 60.0, "sex": 0.0, "mmse": 20.0}, {"age": 80.0, "sex": 0.0}]
    found = Moments.of(clinical_table(rows, scheme)).standardisation()
    assert found == Standardisation((70.0, 0.0, 20.0), (10.0, 1.0, 1.0))
    np.testing.assert_array_equal(
        found.vector({"age": 65.0, "sex": 1.0, "mmse": 22.0}, scheme), [-0.5, 1, 2, 1]
    )
    np.testing.assert_array_equal(found.vector({"age": 85.0, "mmse": None}, scheme), [1.5, 0, 0, 0])


def test_adni_vector_has_the_published_length() -> None:
    scheme = SCHEMES["adni"]
    assert scheme.length == 9
    vector = Standardisation((0.0,) * 6, (1.0,) * 6).vector({}, scheme)
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, np.zeros(9))


def test_nan_counts_as_missing() -> None:
    scheme = ClinicalScheme(("mmse",), ("mmse",))
    vector = Standardisation((25.0,), (5.0,)).vector({"mmse": float("nan")}, scheme)
    np.testing.assert_array_equal(vector, [0, 0])


def test_scheme_without_columns() -> None:
    scheme = SCHEMES["none"]
    moments = Moments.of(clinical_table([{"age": 60.0}, {}], scheme))
    assert moments.standardisation() == Standardisation((), ())
    assert moments.standardisation().vector({"age": 60.0}, scheme).shape == (0,)


def test_pool_of_nothing_or_of_different_schemes() -> None:
    with pytest.raises(ExchangeError, match="no site"):
        Moments.pool([])
    with pytest.raises(ExchangeError, match="different length"):
        Moments.pool([Moments.of(np.zeros((1, 2))), Moments.of(np.zeros((1, 3)))])


def test_public_reference_has_each_column_of_each_scheme() -> None:
    for scheme in SCHEMES.values():
        scheme.reference.check(scheme)
    assert SCHEMES["demographics"].reference == Standardisation((73.0, 0.5, 16.0), (7.0, 0.5, 3.0))
    assert SCHEMES["none"].reference == Standardisation((), ())


# CN, MCI, AD of ADNI's baseline, as published: share, mean, standard deviation.
PUBLISHED = {
    "age": [(0.35, 74, 6), (0.45, 73, 7.5), (0.2, 75, 8)],
    "education": [(0.35, 16.4, 2.7), (0.45, 16.0, 2.8), (0.2, 15.3, 2.9)],
    "mmse": [(0.35, 29.0, 1.1), (0.45, 27.4, 1.7), (0.2, 23.0, 2.6)],
    "adas13": [(0.35, 8.9, 4.7), (0.45, 17.2, 6.6), (0.2, 30.0, 9.9)],
    "apoe4": [(0.35, 0.31, 0.52), (0.45, 0.61, 0.68), (0.2, 0.85, 0.71)],
}


@pytest.mark.parametrize("column", PUBLISHED)
def test_public_reference_is_near_a_memory_clinics_patients(column: str) -> None:
    """Then z-scores are about 1, which is all that the network needs of it."""
    share, mean, spread = np.array(PUBLISHED[column]).T
    pooled = share @ mean
    deviation = np.sqrt(share @ (spread**2 + (mean - pooled) ** 2))
    scheme = SCHEMES["adni"]
    at = scheme.columns.index(column)
    assert abs(scheme.reference.mean[at] - pooled) < 0.25 * deviation
    assert 0.8 < scheme.reference.spread[at] / deviation < 1.25
