# SPDX-License-Identifier: Apache-2.0
"""Noise at the server: the mechanism by hand and against Flower's, its cost, and what is refused."""

import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from pasta_model.config import Settings, settings_from_flat
from pasta_model.errors import PrivacyError
from server.privacy import SiteNoise, site_noise
from tests.support.grid import InProcessGrid

SITES = frozenset(f"site-{n:02d}" for n in range(20))


def nothing(count: int) -> np.ndarray:
    """In the place of noise."""
    return np.zeros(count)


def mechanism(sigma: float = 1.0, clip: float = 1.0, **words) -> SiteNoise:
    return SiteNoise(sigma, clip, 1e-4, **({"normals": nothing} | words))


def settings(**changes: float | str) -> Settings:
    private = {"privacy.unit": "site", "aggregation.shares": "equal", "federation.rounds": 20}
    return settings_from_flat(
        private | {k.replace("__", ".").replace("_", "-"): v for k, v in changes.items()}
    )


def norm_of(*buffers: np.ndarray) -> float:
    return float(np.linalg.norm(np.concatenate(buffers).astype(np.float64)))


class TestMean:
    def test_by_hand(self) -> None:
        # A's update, (3, 4) over two buffers, is 5 long and is clipped to 2: (1.2, 1.6). B's is 1 long.
        made, norms = mechanism(clip=2.0), {"A": 5.0, "B": 1.0}
        first = made.mean([("A", np.float32([3])), ("B", np.float32([0]))], norms)
        second = made.mean([("A", np.float32([4])), ("B", np.float32([1]))], norms)
        assert (first.dtype, second.dtype) == (np.float32, np.float32)
        assert [float(first[0]), float(second[0])] == pytest.approx([0.6, 1.3], abs=1e-6)
        # A draw of 1 adds sigma C / n = 3 x 2 / 2.
        noisy = mechanism(3.0, 2.0, normals=np.ones).mean(
            [("A", np.float32([3])), ("B", np.float32([0]))], norms
        )
        assert float(noisy[0]) == pytest.approx(3.6, abs=1e-5)

    def test_update_of_nothing(self) -> None:
        zero = np.zeros(3, np.float32)
        assert mechanism().mean([("A", zero), ("B", zero)], {"A": 0.0, "B": 0.0}).tolist() == [0.0] * 3

    def test_spread_over_many_weights(self) -> None:
        values = 400_000
        made = SiteNoise(3.0, 0.5, 1e-4)  # the real draws
        sent = [(name, np.full(values, 1e-3, np.float32)) for name in "ABCD"]
        norms = {name: norm_of(update) for name, update in sent}  # 0.63: clipped
        found = made.mean(sent, norms).astype(np.float64) - 0.5 / math.sqrt(values)
        wanted = 3.0 * 0.5 / 4
        # The variance of 400,000 draws is known to 0.22 %; five times that is one run in a million.
        assert found.std() == pytest.approx(wanted, rel=0.0056)
        assert abs(found.mean()) < 5 * wanted / math.sqrt(values)
        assert stats.kstest(found / wanted, "norm").pvalue > 1e-6

    @given(
        updates=st.lists(
            st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6), min_size=1, max_size=6
        ),
        clip=st.floats(0.01, 100),
        gone=st.integers(0, 5),
    )
    def test_a_site_moves_the_mean_by_its_clipped_part_at_most(
        self, updates: list[list[float]], clip: float, gone: int
    ) -> None:
        def mean(vectors: list[np.ndarray]) -> np.ndarray:
            norms = {str(n): norm_of(vector) for n, vector in enumerate(vectors)}
            parts = (slice(0, 2), slice(2, 6))
            made = mechanism(1e-3, clip)  # a grid of a billionth of C
            return np.concatenate(
                [made.mean([(str(n), v[p]) for n, v in enumerate(vectors)], norms) for p in parts]
            )

        there = [np.float32(update) for update in updates]
        without = list(there)
        without[gone % len(there)] = np.zeros(6, np.float32)
        assert norm_of(mean(there) - mean(without)) <= clip / len(there) * (1 + 1e-5)

    def test_low_bits_tell_nothing(self) -> None:
        made = SiteNoise(3.0, 1.0, 1e-4)
        found = made.mean([("A", np.float32(np.linspace(-1, 1, 5000)))], {"A": 100.0})
        steps = found.astype(np.float64) / 2.0 ** (1 - 20)  # of a spread of 3
        assert (steps == np.rint(steps)).all()
        assert len(np.unique(steps)) > 4900


class TestAgainstFlower:
    """Flower 1.41: DifferentialPrivacyServerSideFixedClipping around FedAvg."""

    VALUES = 100_000

    def flowers(self, updates: dict[str, np.ndarray], *, sigma: float, clip: float) -> np.ndarray:
        """The mean of the updates, as Flower releases it."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
        strategy = DifferentialPrivacyServerSideFixedClipping(FedAvg(), sigma, clip, len(updates))
        arrays = ArrayRecord({"w": Array(np.zeros(self.VALUES, np.float32))})
        grid = InProcessGrid(None, run_config={}, nodes=len(updates))
        list(strategy.configure_train(1, arrays, ConfigRecord(), grid))
        replies = []
        for node, update in enumerate(updates.values(), start=1):
            asked = Message(RecordDict(), dst_node_id=node, message_type="train")
            asked.metadata.__dict__["_message_id"] = str(node)
            content = {"arrays": ArrayRecord({"w": Array(update)}), "m": MetricRecord({"num-examples": 1})}
            replies.append(Message(RecordDict(content), reply_to=asked))
        record, _ = strategy.aggregate_train(1, replies)
        return record["w"].numpy()

    @pytest.fixture
    def updates(self) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(3)
        lengths = {"A": 0.2, "B": 1.0, "C": 7.0, "D": 40.0}  # two are clipped
        drawn = {name: rng.normal(size=self.VALUES) for name in lengths}
        return {name: np.float32(v / np.linalg.norm(v) * lengths[name]) for name, v in drawn.items()}

    def test_clipped_mean_is_flowers(self, updates) -> None:
        norms = {name: norm_of(update) for name, update in updates.items()}
        found = mechanism(1e-9, 2.0).mean(updates.items(), norms)
        np.testing.assert_allclose(found, self.flowers(updates, sigma=0.0, clip=2.0), rtol=1e-4, atol=1e-8)

    def test_noise_is_as_large_as_flowers(self, updates) -> None:
        norms = {name: norm_of(update) for name, update in updates.items()}
        clean = mechanism(1e-9, 2.0).mean(updates.items(), norms)
        ours = SiteNoise(1.5, 2.0, 1e-4).mean(updates.items(), norms) - clean
        theirs = self.flowers(updates, sigma=1.5, clip=2.0) - clean
        assert ours.std() == pytest.approx(1.5 * 2.0 / 4, rel=0.012)  # five times what chance does
        assert theirs.std() == pytest.approx(1.5 * 2.0 / 4, rel=0.012)


class TestCost:
    # sigma, rounds, delta; flwr.supercore's RdpAccountant of Flower 1.41 (with dp-accounting 0.6.0), without
    # amplification, for neighbours by one site more or less.
    FLOWERS = (
        (3.0, 20, 1e-5, 7.53230607327611),
        (1.0, 1, 1e-4, 4.17587087798302),
        (8.0, 50, 1e-4, 3.61456727335534),
        (20.0, 200, 1e-3, 2.3304611581976484),
    )

    @pytest.mark.parametrize(("sigma", "rounds", "delta", "wanted"), FLOWERS)
    def test_epsilon_is_flowers(self, sigma: float, rounds: int, delta: float, wanted: float) -> None:
        assert SiteNoise(sigma, 1.0, delta).spent(rounds) == pytest.approx(wanted, rel=1e-12)

    @pytest.mark.parametrize(("sigma", "rounds", "delta"), [row[:3] for row in FLOWERS])
    def test_epsilon_is_an_upper_bound_of_the_exact_one(
        self, sigma: float, rounds: int, delta: float
    ) -> None:
        # T Gaussian mechanisms are one of sigma / sqrt(T); its exact delta is 1805.06530, eq. 6.
        mu, normal = math.sqrt(rounds) / sigma, stats.norm.cdf

        def too_much(epsilon: float) -> float:
            tail = math.exp(epsilon) * normal(-epsilon / mu - mu / 2)
            return float(normal(-epsilon / mu + mu / 2) - tail - delta)

        exact = optimize.brentq(too_much, 1e-6, 100)
        assert exact <= SiteNoise(sigma, 1.0, delta).spent(rounds) <= 1.2 * exact

    def test_nothing_released_costs_nothing(self) -> None:
        assert SiteNoise(3.0, 1.0, 1e-4).spent(0) == 0.0

    def test_the_least_noise_that_is_enough_is_computed(self) -> None:
        made = site_noise(settings(privacy__epsilon=4.0), sites=SITES)
        assert 3.9 < made.spent(20) <= 4.0
        assert made.spent(21) > 4.0
        assert (made.max_update_norm, made.delta) == (1.0, 1e-4)

    def test_given_noise_is_used(self) -> None:
        made = site_noise(settings(privacy__noise_multiplier=9.0, privacy__max_update_norm=0.3), sites=SITES)
        assert (made.noise_multiplier, made.max_update_norm) == (9.0, 0.3)


class TestRefused:
    def test_all_problems_at_once(self) -> None:
        impossible = settings(privacy__delta=0.05, privacy__noise_multiplier=1.0, privacy__epsilon=2.0)
        with pytest.raises(PrivacyError) as error:
            site_noise(impossible, sites=SITES)
        said = str(error.value)
        assert said.startswith("this run cannot keep its sites private: 2 problem(s)\n")
        assert "privacy.delta is 0.05, wanted less than 1 / sites = 0.05" in said
        assert "20 rounds at noise multiplier 1 cost epsilon" in said

    @pytest.mark.parametrize(("held_out", "fits"), [("", False), ("site-00", True)])
    def test_delta_is_compared_with_the_sites_that_train(self, held_out: str, fits: bool) -> None:
        of_19 = settings(privacy__delta=0.051, federation__held_out=held_out)
        if fits:
            site_noise(of_19, sites=SITES)
        else:
            with pytest.raises(
                PrivacyError, match="publishing all of one of 20 sites would count as private"
            ):
                site_noise(of_19, sites=SITES)

    def test_more_rounds_than_the_budget_holds_says_how_many_it_holds(self) -> None:
        long = settings(privacy__noise_multiplier=3.0, federation__rounds=50)
        with pytest.raises(PrivacyError, match=r"that holds (\d+) round\(s\)") as error:
            site_noise(long, sites=SITES)
        holds = int(str(error.value).split("that holds ")[1].split()[0])
        made = SiteNoise(3.0, 1.0, 1e-4)
        assert made.spent(holds) <= 8.0 < made.spent(holds + 1)
        site_noise(settings(privacy__noise_multiplier=3.0, federation__rounds=holds), sites=SITES)

    def test_no_noise_is_no_privacy(self) -> None:
        with pytest.raises(PrivacyError, match="cost epsilon inf"):
            site_noise(settings(privacy__noise_multiplier=0.01), sites=SITES)

    @pytest.mark.parametrize("unit", ["none", "subject"])
    def test_where_the_unit_is_another_there_is_no_noise(self, unit: str) -> None:
        assert site_noise(settings(privacy__unit=unit, privacy__delta=0.5), sites=SITES) is None


class TestForecast:
    def test_numbers_by_hand(self) -> None:
        drowns, said = mechanism(4.0, 0.5).forecast(sites=100, values=2500)
        # 4 x 0.5 / 100 = 0.02 on each of 2,500 weights: 50 times that, 1, beside a mean of 0.5.
        assert not drowns
        assert "noise of standard deviation 4 x 0.5 / 100 = 0.02; over 2,500 weights it is 1 long" in said
        assert said.endswith("the mean is 0.5 at most")

    @pytest.mark.parametrize(("sites", "values"), [(9, 4), (100, 89_000_000)])
    def test_few_sites_or_many_weights_drown(self, sites: int, values: int) -> None:
        drowns, said = mechanism(4.0, 0.5).forecast(sites=sites, values=values)
        assert drowns
        assert "It will drown the mean" in said
        assert "privacy.unit = 'subject'" in said
