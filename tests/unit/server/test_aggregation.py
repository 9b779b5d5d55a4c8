# SPDX-License-Identifier: Apache-2.0
"""Shares and averages: hand-computed numbers, and what holds for all of them."""

import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.errors import ExchangeError
from pasta_model.federated_sections import AggregationSettings
from server.aggregation import capped_shares, combined, moving_average

COHORTS = st.lists(st.integers(1, 5000), min_size=1, max_size=8).map(
    lambda sizes: {f"site-{i}": n for i, n in enumerate(sizes)}
)


MEAN = AggregationSettings()


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


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


class TestMean:
    def test_by_hand(self) -> None:
        updates = [("A", floats(1.0, 10.0)), ("B", floats(5.0, -2.0))]
        assert combined(updates, {"A": 0.25, "B": 0.75}, MEAN).tolist() == [4.0, 1.0]

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
        shares = capped_shares({str(i): n for i, (_, n) in enumerate(sites)}, cap=cap)
        found = combined(((str(i), floats(*v)) for i, (v, _) in enumerate(sites)), shares, MEAN)
        assert found.dtype == np.float32
        wanted = np.average(
            [v for v, _ in sites], axis=0, weights=[shares[str(i)] for i in range(len(sites))]
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-3)

    def test_one_update_is_held_at_a_time(self) -> None:
        alive: list[weakref.ref[np.ndarray]] = []

        def updates() -> Iterator[tuple[str, np.ndarray]]:
            for number in range(20):
                assert sum(one() is not None for one in alive) <= 1
                values = floats(number)
                alive.append(weakref.ref(values))
                yield str(number), values

        combined(updates(), {str(n): 0.05 for n in range(20)}, MEAN)
        assert len(alive) == 20

    def test_sites_updates_are_left_alone(self) -> None:
        sent = floats(1.0)
        combined([(site, sent) for site in "ABC"], dict.fromkeys("ABC", 1 / 3), MEAN)
        assert sent.tolist() == [1.0]

    def test_small_updates_beside_large_ones_are_not_lost(self) -> None:
        # In float32, 1e8 + 1 - 1e8 would be 0.
        updates = [("A", floats(1e8)), ("B", floats(3.0)), ("C", floats(-1e8))]
        assert combined(updates, dict.fromkeys("ABC", 1 / 3), MEAN)[0] == pytest.approx(1.0, abs=1e-6)

    def test_nothing_arrived(self) -> None:
        with pytest.raises(ExchangeError, match="nothing to average"):
            combined([], {}, MEAN)


class TestRobustRules:
    UPDATES: ClassVar = {"A": floats(1, 7), "B": floats(2, 8), "C": floats(4, 9), "D": floats(-900, 900)}

    def test_median_by_hand(self) -> None:
        found = combined(self.UPDATES.items(), {}, AggregationSettings(rule="median"))
        assert found.tolist() == [1.5, 8.5]
        assert found.dtype == np.float32

    def test_trimmed_mean_by_hand(self) -> None:
        found = combined(self.UPDATES.items(), {}, AggregationSettings(rule="trimmed-mean", trim=0.25))
        assert found.tolist() == [1.5, 8.5]
        assert found.dtype == np.float32

    @pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
    def test_one_site_of_five_cannot_move_the_result_far(self, rule: str) -> None:
        honest = {name: floats(*np.random.default_rng(i).normal(size=50)) for i, name in enumerate("ABCD")}
        for evil in (1e30, -1e30):
            found = combined(
                [*honest.items(), ("E", np.full(50, evil, np.float32))], {}, AggregationSettings(rule=rule)
            )
            stack = np.stack(list(honest.values()))
            assert (found >= stack.min(axis=0)).all()
            assert (found <= stack.max(axis=0)).all()


def test_moving_average_by_hand() -> None:
    found = moving_average(floats(10.0, 0.0), floats(2.0, 4.0), decay=0.75)
    assert found.tolist() == [8.0, 1.0]
    assert found.dtype == np.float32
