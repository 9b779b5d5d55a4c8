# SPDX-License-Identifier: Apache-2.0
"""Averaging: hand-computed numbers, and what holds for all of them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.errors import ExchangeError
from server.aggregation import CappedAverage, capped_shares, moving_average

COHORTS = st.lists(st.integers(1, 5000), min_size=1, max_size=8).map(
    lambda sizes: {f"site-{i}": n for i, n in enumerate(sizes)}
)


def weights(*values: float, dtype: type = np.float32) -> dict[str, np.ndarray]:
    return {"float32.000": np.array(values, dtype)}


class TestShares:
    def test_by_hand_without_a_cap(self) -> None:
        assert capped_shares({"A": 1, "B": 3}, cap=1.0) == {"A": 0.25, "B": 0.75}

    def test_by_hand_with_a_cap(self) -> None:
        # A is held at 1/2; B and C share the other half as 30 : 10.
        found = capped_shares({"A": 160, "B": 30, "C": 10}, cap=0.5)
        assert found == pytest.approx({"A": 0.5, "B": 0.375, "C": 0.125})

    def test_cap_that_pushes_a_second_site_over(self) -> None:
        # At 0.4, A loses 0.3, of which B would get more than it may keep; C and D share what is left.
        found = capped_shares({"A": 70, "B": 24, "C": 4, "D": 2}, cap=0.4)
        assert found == pytest.approx({"A": 0.4, "B": 0.4, "C": 0.2 * 4 / 6, "D": 0.2 * 2 / 6})

    def test_too_few_sites_for_the_cap_are_equal(self) -> None:
        assert capped_shares({"A": 100, "B": 1}, cap=0.3) == {"A": 0.5, "B": 0.5}
        assert capped_shares({"A": 100}, cap=0.3) == {"A": 1.0}

    @given(COHORTS, st.floats(0.05, 1.0))
    def test_properties(self, subjects: dict[str, int], cap: float) -> None:
        shares = capped_shares(subjects, cap=cap)
        assert shares.keys() == subjects.keys()
        assert sum(shares.values()) == pytest.approx(1.0)
        assert max(shares.values()) <= max(cap, 1 / len(subjects)) + 1e-9
        ranked = sorted(subjects, key=lambda site: subjects[site])
        for smaller, larger in pairwise(ranked):
            assert shares[smaller] <= shares[larger] + 1e-9
            if subjects[smaller] == subjects[larger]:
                assert shares[smaller] == pytest.approx(shares[larger])
        total = sum(subjects.values())
        if max(subjects.values()) / total <= cap:
            assert shares == pytest.approx({site: n / total for site, n in subjects.items()})

    def test_site_without_a_subject(self) -> None:
        with pytest.raises(ExchangeError, match="B, C; leave them out"):
            capped_shares({"A": 3, "C": 0, "B": 0}, cap=0.5)


class TestCappedAverage:
    def test_by_hand(self) -> None:
        average = CappedAverage(cap=1.0)
        average.add("A", weights(1.0, 10.0), subjects=1)
        average.add("B", weights(5.0, -2.0), subjects=3)
        assert average.result()["float32.000"].tolist() == [4.0, 1.0]
        assert average.shares() == {"A": 0.25, "B": 0.75}

    def test_cap_holds_among_those_who_answered(self) -> None:
        # B with 3 subjects is missing: C must not count for 4/5, whatever the order of the answers.
        for order in (("A", "C"), ("C", "A")):
            average = CappedAverage(cap=0.5)
            for site in order:
                average.add(site, weights({"A": 4.0, "C": -2.0}[site]), subjects={"A": 1, "C": 4}[site])
            assert average.result()["float32.000"].tolist() == [1.0]

    @given(
        sites=st.lists(
            st.tuples(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), st.integers(1, 500)),
            min_size=1,
            max_size=8,
        ),
        cap=st.floats(0.15, 1.0),
    )
    def test_equals_numpys_average_with_the_capped_shares(
        self, sites: list[tuple[list[float], int]], cap: float
    ) -> None:
        average = CappedAverage(cap=cap)
        for number, (values, subjects) in enumerate(sites):
            average.add(str(number), weights(*values), subjects=subjects)
        found = average.result()["float32.000"]
        assert found.dtype == np.float32
        shares = capped_shares({str(i): n for i, (_, n) in enumerate(sites)}, cap=cap)
        wanted = np.average(
            [v for v, _ in sites], axis=0, weights=[shares[str(i)] for i in range(len(sites))]
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-3)

    def test_memory_does_not_grow_with_the_sites(self) -> None:
        average = CappedAverage(cap=0.5)
        for number in range(40):
            average.add(str(number), weights(float(number)), subjects=1 + number % 7)
        assert len(average._held) == 2

    def test_sites_buffers_are_left_alone(self) -> None:
        average, sent = CappedAverage(cap=1.0), weights(1.0)
        for site in "ABC":
            average.add(site, sent, subjects=2)
        average.result()
        assert sent["float32.000"].tolist() == [1.0]

    @pytest.mark.parametrize(
        "other",
        [weights(1.0, 2.0), {}, {"float32.001": np.zeros(1, np.float32)}, weights(1.0) | {"x": np.zeros(1)}],
    )
    def test_buffers_that_do_not_fit(self, other: dict[str, np.ndarray]) -> None:
        average = CappedAverage(cap=0.5)
        average.add("A", weights(1.0), subjects=1)
        with pytest.raises(ExchangeError, match="do not fit"):
            average.add("B", other, subjects=1)

    @pytest.mark.parametrize("name", ["int64.000", "bool.000", "bfloat16.000"])
    def test_what_is_no_number_is_not_averaged(self, name: str) -> None:
        with pytest.raises(ExchangeError, match="cannot be averaged"):
            CappedAverage(cap=0.5).add("A", {name: np.zeros(2, np.int16)}, subjects=1)

    def test_nothing_arrived(self) -> None:
        with pytest.raises(ExchangeError, match="nothing to average"):
            CappedAverage(cap=0.5).result()


def test_moving_average_by_hand() -> None:
    found = moving_average(weights(10.0, 0.0), weights(2.0, 4.0), decay=0.75)["float32.000"]
    assert found.tolist() == [8.0, 1.0]
    assert found.dtype == np.float32
