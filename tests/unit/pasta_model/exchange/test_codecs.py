# SPDX-License-Identifier: Apache-2.0
"""How weights are written: bounds of what rounding loses, the oracle of torch, and hostile bytes."""

import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pasta_model.errors import ExchangeError
from pasta_model.exchange.codecs import BLOCK, CODECS, codec

SIZES = st.integers(0, 3 * BLOCK + 5)
LARGE = float(np.float32(1e30))
ORDINARY = st.floats(-LARGE, LARGE, width=32, allow_subnormal=True)
VALUES = SIZES.flatmap(lambda size: arrays(np.float32, size, elements=ORDINARY))
BLOCKED = {"int8": 127, "int4": 7}
each = pytest.mark.parametrize("name", CODECS)
each_blocked = pytest.mark.parametrize("name", BLOCKED)


def there_and_back(name: str, values: np.ndarray) -> np.ndarray:
    return codec(name).decode(codec(name).encode(values), values.size)


@each
@given(values=VALUES)
def test_what_comes_back_is_float32_of_the_same_size_and_finite(name: str, values: np.ndarray) -> None:
    before = values.copy()
    found = there_and_back(name, values)
    assert found.dtype == np.float32
    assert found.shape == values.shape
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(values, before)


@given(values=VALUES)
def test_float32_is_the_identity(values: np.ndarray) -> None:
    assert there_and_back("float32", values).tobytes() == values.tobytes()


@given(values=VALUES)
def test_bfloat16_is_torchs(values: np.ndarray) -> None:
    wanted = torch.from_numpy(values.copy()).to(torch.bfloat16)
    encoded = codec("bfloat16").encode(values)
    assert encoded.dtype == np.int16
    np.testing.assert_array_equal(encoded, wanted.view(torch.int16).numpy())
    np.testing.assert_array_equal(there_and_back("bfloat16", values), wanted.float().numpy())


def test_bfloat16_rounds_ties_to_even_as_torch_does() -> None:
    bits = np.arange(0x3F7F0000, 0x3F830000, 0x4000, dtype=np.uint32)
    values = bits.view(np.float32)
    wanted = torch.from_numpy(values.copy()).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(there_and_back("bfloat16", values), wanted)


@each_blocked
@given(values=VALUES)
def test_error_is_at_most_half_a_step_of_the_block(name: str, values: np.ndarray) -> None:
    error = np.abs(there_and_back(name, values).astype(np.float64) - values)
    for start in range(0, values.size, BLOCK):
        block = np.abs(values[start : start + BLOCK]).astype(np.float64)
        # The scale is the largest value over the levels, up to the next bfloat16: 2^-7 of it at most.
        # Among denormals bfloats lie 2^-133 apart; whatever is smaller comes back as zero.
        step = max(block.max() / BLOCKED[name] * (1 + 2.0**-7), 2.0**-133)
        assert error[start : start + BLOCK].max() <= 0.5 * step * (1 + 1e-5)


@each_blocked
def test_zero_stays_zero_and_signs_stay(name: str) -> None:
    values = np.zeros(2 * BLOCK, np.float32)
    values[:4] = 1, -1, 0.5, 0
    found = there_and_back(name, values)
    assert (found[3:] == 0).all()
    assert np.sign(found[:3]).tolist() == [1, -1, 1]


@each_blocked
def test_blocks_do_not_share_their_scale(name: str) -> None:
    values = np.concatenate([np.full(BLOCK, 1e6), np.full(BLOCK, 1e-6)]).astype(np.float32)
    np.testing.assert_allclose(there_and_back(name, values), values, rtol=0.01)


@each
@pytest.mark.parametrize("tiny", [1e-45, 5e-45, 1e-40, 1.1754944e-38])
def test_denormals_do_no_harm(name: str, tiny: float) -> None:
    values = np.array([tiny, -tiny, 0, 3 * tiny], np.float32)
    found = there_and_back(name, values)
    assert np.isfinite(found).all()
    assert np.abs(found - values).max() <= np.abs(values).max()


@each
def test_largest_numbers_do_not_become_infinite(name: str) -> None:
    values = np.array([3.3e38, -3.3e38], np.float32)
    assert np.isfinite(there_and_back(name, values)).all()


@each_blocked
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_is_not_finite_is_never_made_a_number(name: str, bad: float) -> None:
    values = np.ones(4, np.float32)
    values[2] = bad
    found = there_and_back(name, values)
    assert not np.isfinite(found[2])


@pytest.mark.parametrize("bits", [0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000])
def test_no_nan_becomes_a_number_in_bfloat16(bits: int) -> None:
    values = np.array([bits], np.uint32).view(np.float32)
    assert not np.isfinite(there_and_back("bfloat16", values)).any()


@pytest.mark.parametrize(("name", "most"), [("bfloat16", 16.0), ("int8", 8.3), ("int4", 4.3)])
def test_bits_a_weight(name: str, most: float) -> None:
    """Block scales cost a quarter of a bit; Huffman's codes make less of what is not evenly spread."""
    values = np.random.default_rng(0).standard_t(3, 100_000).astype(np.float32)
    assert codec(name).encode(values).nbytes * 8 / values.size <= most


def test_int4_is_at_most_an_eighth_of_float32_for_differences_of_weights() -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    assert codec("int4").encode(values).nbytes < values.nbytes / 8


class TestHostileBytes:
    @each_blocked
    @given(raw=st.binary(max_size=300), size=st.integers(0, 200))
    def test_any_bytes_are_refused_or_the_size_asked_for(self, name: str, raw: bytes, size: int) -> None:
        try:
            found = codec(name).decode(np.frombuffer(raw, np.uint8), size)
        except ExchangeError:
            return
        assert found.shape == (size,)

    @each_blocked
    @given(cut=st.integers(1, 40))
    def test_truncated(self, name: str, cut: int) -> None:
        encoded = codec(name).encode(np.linspace(-1, 1, 130, dtype=np.float32))
        with pytest.raises(ExchangeError):
            codec(name).decode(encoded[:-cut], 130)

    @each_blocked
    def test_something_behind_the_end(self, name: str) -> None:
        encoded = codec(name).encode(np.ones(130, np.float32))
        with pytest.raises(ExchangeError, match="does not hold 130 values"):
            codec(name).decode(np.append(encoded, np.uint8(0)), 130)

    @each_blocked
    @pytest.mark.parametrize("size", [0, 1, 64, 65, 128, 129, 193, 10**6])
    def test_another_size_than_was_written(self, name: str, size: int) -> None:
        encoded = codec(name).encode(np.ones(130, np.float32))
        with pytest.raises(ExchangeError):
            codec(name).decode(encoded, size)

    @each_blocked
    def test_nothing_hides_behind_the_last_value(self, name: str) -> None:
        full = codec(name).encode(np.ones(64, np.float32))
        with pytest.raises(ExchangeError, match="does not hold 1 values"):
            codec(name).decode(full, 1)

    @each_blocked
    def test_bomb_takes_no_more_memory_than_the_values_asked_for(self, name: str) -> None:
        scales = np.zeros(2, np.uint8).tobytes()
        bomb = scales + zlib.compress(bytes(20 * 2**20), 9)
        array = np.frombuffer(bomb, np.uint8)
        tracemalloc.start()
        try:
            with pytest.raises(ExchangeError, match="does not hold 64 values"):
                codec(name).decode(array, 64)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < array.nbytes + 2**20

    @each_blocked
    @pytest.mark.parametrize(
        "array",
        [
            np.zeros(200, np.int8),
            np.zeros(200, np.float32),
            np.zeros((2, 100), np.uint8),
            np.array("x"),
            np.zeros(0, np.uint8),
        ],
        ids=["int8", "float32", "two axes", "text", "nothing"],
    )
    def test_other_arrays_than_bytes(self, name: str, array: np.ndarray) -> None:
        with pytest.raises(ExchangeError):
            codec(name).decode(array, 130)

    @pytest.mark.parametrize(
        ("name", "array"),
        [
            ("float32", np.zeros(3, np.float64)),
            ("float32", np.zeros(4, np.float32)),
            ("float32", np.zeros((3, 1), np.float32)),
            ("float32", np.zeros(3, ">f4")),
            ("bfloat16", np.zeros(3, np.uint16)),
            ("bfloat16", np.zeros(3, np.float16)),
            ("bfloat16", np.zeros(4, np.int16)),
            ("bfloat16", np.zeros(3, ">i2")),
        ],
    )
    def test_plain_codecs_want_their_dtype_and_size(self, name: str, array: np.ndarray) -> None:
        with pytest.raises(ExchangeError, match="an encoded buffer is"):
            codec(name).decode(array, 3)

    def test_codes_beyond_the_levels_are_at_most_one_step_more(self) -> None:
        # 15 is no code of int4; a site that sends it gains no more than a step.
        encoded = codec("int4").encode(np.ones(64, np.float32))
        forged = encoded[:2].tobytes() + zlib.compress(b"\xff" * 32)
        found = codec("int4").decode(np.frombuffer(forged, np.uint8), 64)
        assert found.max() <= 8 / 7 * (1 + 2.0**-7)


def test_unknown_codec() -> None:
    with pytest.raises(ExchangeError, match=r"found codec 'gzip'.*bfloat16.*float32.*int4.*int8"):
        codec("gzip")
