# SPDX-License-Identifier: Apache-2.0
"""Steps between weights: both ends get the same bits, and what rounding loses is not lost for good."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.errors import ExchangeError
from pasta_model.exchange.codecs import CODECS
from pasta_model.exchange.steps import Step, encode_step, walk
from pasta_model.exchange.vectors import digest

SIZES = {"float32.000": 130, "float32.001": 70}
each = pytest.mark.parametrize("name", CODECS)
LOSSY = ["bfloat16", "int8", "int4"]


def draw(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.normal(size=size)).astype(np.float32) for name, size in SIZES.items()}


def difference(one: dict, other: dict) -> list[tuple[str, np.ndarray]]:
    return [(name, one[name] - other[name]) for name in SIZES]


class TestWalk:
    @each
    @given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=5))
    def test_chain_at_one_end_is_the_sum_step_by_step_at_the_other(self, name: str, seeds: list[int]) -> None:
        """The server moves its reference a step a round; a site that was away takes all steps at once."""
        reference = start = draw(1000)
        steps = []
        for seed in seeds:
            step, _ = encode_step(name, difference(draw(seed), reference))
            reference = dict(zip(SIZES, walk(reference.items(), [step], SIZES), strict=True))
            steps.append(step)
        there = list(walk(start.items(), steps, SIZES))
        assert digest(there) == digest(reference.values())

    def test_float32_leads_exactly_where_subtraction_is_exact(self) -> None:
        one = {n: np.arange(s, dtype=np.float32) for n, s in SIZES.items()}
        other = {n: np.float32(2) * v + 1 for n, v in one.items()}
        step, rest = encode_step("float32", difference(other, one))
        for values, wanted in zip(walk(one.items(), [step], SIZES), other.values(), strict=True):
            np.testing.assert_array_equal(values, wanted)
        assert all((left == 0).all() for left in rest.values())

    def test_from_zero_with_whole_weights(self) -> None:
        weights = draw(0)
        whole = Step("float32", dict(weights))
        assert digest(walk(None, [whole], SIZES)) == digest(weights.values())

    def test_no_step_is_the_base_itself(self) -> None:
        weights = draw(0)
        assert digest(walk(weights.items(), [], SIZES)) == digest(weights.values())
        assert digest(walk(None, [], SIZES)) == digest(np.zeros(s, np.float32) for s in SIZES.values())

    def test_base_is_left_alone(self) -> None:
        weights = draw(0)
        before = digest(weights.values())
        step, _ = encode_step("int8", difference(draw(1), weights))
        list(walk(weights.items(), [step, step], SIZES))
        assert digest(weights.values()) == before

    def test_missing_buffer_is_named(self) -> None:
        step = Step("float32", {"float32.000": draw(0)["float32.000"]})
        with pytest.raises(ExchangeError, match=r"lacks buffer 'float32\.001'"):
            list(walk(None, [step], SIZES))


class TestErrorFeedback:
    """1-bit SGD's trick (Seide et al. 2014): what is rounded off is added to the next update."""

    @staticmethod
    def rounds(name: str, *, feedback: bool, number: int = 60) -> tuple[np.ndarray, np.ndarray]:
        """Sums of the true and of the decoded updates of one buffer."""
        true = np.zeros(130)
        decoded = np.zeros(130)
        rest = np.zeros(130, np.float32)
        rng = np.random.default_rng(3)
        drift = rng.normal(size=130)
        drift[0] = 30.0  # one large weight: small ones are below half a step, in every round
        for _ in range(number):
            update = (drift + 0.1 * rng.normal(size=130)).astype(np.float32)
            step, left = encode_step(name, [("float32.000", update + rest if feedback else update)])
            rest = left["float32.000"]
            true += update
            decoded += step.decode("float32.000", 130)
        return true, decoded

    @staticmethod
    def one_step(name: str) -> float:
        """The largest error that a single update of this size can have."""
        levels = {"bfloat16": 256, "int8": 127, "int4": 7}[name]
        return 0.5 * 40 / levels * 1.05

    @pytest.mark.parametrize("name", LOSSY)
    def test_sum_stays_within_one_steps_error(self, name: str) -> None:
        true, decoded = self.rounds(name, feedback=True)
        assert np.abs(true - decoded).max() <= self.one_step(name)

    @pytest.mark.parametrize("name", ["int8", "int4"])
    def test_without_it_the_sum_drifts(self, name: str) -> None:
        true, decoded = self.rounds(name, feedback=False)
        assert np.abs(true - decoded).max() > 4 * self.one_step(name)

    @pytest.mark.parametrize("name", LOSSY)
    def test_rest_is_exactly_what_is_missing(self, name: str) -> None:
        values = draw(5)
        step, rest = encode_step(name, values.items())
        for buffer, size in SIZES.items():
            np.testing.assert_array_equal(values[buffer] - step.decode(buffer, size), rest[buffer])


class TestCheck:
    @each
    def test_norm_is_that_of_what_is_decoded(self, name: str) -> None:
        step, _ = encode_step(name, draw(2).items())
        decoded = np.concatenate([step.decode(b, s) for b, s in SIZES.items()]).astype(np.float64)
        assert step.check(SIZES) == pytest.approx(np.linalg.norm(decoded), rel=1e-12)

    def test_norm_of_large_values_does_not_overflow(self) -> None:
        step = Step("float32", {name: np.full(size, 1e30, np.float32) for name, size in SIZES.items()})
        assert step.check(SIZES) == pytest.approx(1e30 * 200**0.5, rel=1e-6)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda a: a.pop("float32.001"), r"missing \['float32\.001'\]"),
            (lambda a: a.update(more=np.zeros(3)), r"superfluous \['more'\]"),
            (
                lambda a: a.update({"float32.001": np.full(70, np.nan, np.float32)}),
                r"'float32\.001' holds NaN",
            ),
            (
                lambda a: a.update({"float32.001": np.zeros(71, np.float32)}),
                r"\(71,\), wanted float32 \(70,\)",
            ),
        ],
        ids=["less", "more", "NaN", "size"],
    )
    def test_what_is_not_exactly_the_layout(self, change, said: str) -> None:
        arrays = draw(0)
        change(arrays)
        with pytest.raises(ExchangeError, match=said):
            Step("float32", arrays).check(SIZES)

    def test_scales_that_overflow_are_refused(self) -> None:
        step, _ = encode_step("int8", draw(0).items())
        raw = step.arrays["float32.000"].copy()
        raw[:2] = np.array([0x7F80], np.uint16).view(np.uint8)  # infinity
        step.arrays["float32.000"] = raw
        with pytest.raises(ExchangeError, match="NaN or infinity"):
            step.check(SIZES)

    def test_bytes_are_those_of_the_arrays(self) -> None:
        step, _ = encode_step("bfloat16", draw(0).items())
        assert step.nbytes == 2 * sum(SIZES.values())
