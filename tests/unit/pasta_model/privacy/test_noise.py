# SPDX-License-Identifier: Apache-2.0
"""Noise that follows from no seed: the Mersenne twister's own reference reads the state that is set."""

import secrets

import numpy as np
import pytest
import torch

from pasta_model.privacy import noise
from pasta_model.privacy.noise import WORDS, rekey, secure_generator


def bits(generator: torch.Generator, count: int) -> list[int]:
    """Return outputs of 63 bits, each of two of the twister's."""
    return torch.empty(count, dtype=torch.int64).random_(generator=generator).tolist()


class TestState:
    def test_the_key_is_all_of_the_twisters(self, monkeypatch) -> None:
        key = np.random.default_rng(0).integers(0, 2**32, WORDS, dtype=np.uint32)
        monkeypatch.setattr(noise.os, "urandom", lambda count: key.tobytes()[:count])
        oracle = np.random.MT19937()
        oracle.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": WORDS}}
        raw = [int(word) for word in oracle.random_raw(2000)]  # past the end of the table three times
        wanted = [(high << 32 | low) % 2**63 for high, low in zip(raw[::2], raw[1::2], strict=True)]
        assert bits(secure_generator(), 1000) == wanted

    def test_every_word_counts(self, monkeypatch) -> None:
        streams = []
        for word in (None, 1, 300, WORDS - 1):  # of the first word, the twister uses one bit
            key = np.ones(WORDS, np.uint32)
            if word is not None:
                key[word] = 2
            monkeypatch.setattr(noise.os, "urandom", lambda count, key=key: key.tobytes()[:count])
            streams.append(tuple(bits(secure_generator(), WORDS)))
        assert len(set(streams)) == 4

    def test_nothing_of_before_is_left(self, monkeypatch) -> None:
        # Normals are made in pairs: the second must not survive.
        monkeypatch.setattr(noise.os, "urandom", lambda count: b"\x01" * count)
        fresh = torch.randn(3, generator=secure_generator())
        used = torch.Generator().manual_seed(5)
        torch.randn(1, generator=used)
        rekey(used)
        assert torch.equal(torch.randn(3, generator=used), fresh)


class TestSecrecy:
    def test_a_seed_says_nothing(self) -> None:
        first, second = (torch.Generator().manual_seed(7) for _ in range(2))
        rekey(first)
        rekey(second)
        assert bits(first, 4) != bits(second, 4) != bits(torch.Generator().manual_seed(7), 4)
        assert bits(secure_generator(), 4) != bits(secure_generator(), 4)

    def test_rekeying_is_new_every_time(self) -> None:
        generator, seen = secure_generator(), set()
        for _ in range(20):
            rekey(generator)
            seen.add(tuple(bits(generator, 2)))
        assert len(seen) == 20

    def test_the_global_generator_stays_out_of_it(self) -> None:
        before = torch.get_rng_state()
        bits(secure_generator(), 1)
        assert torch.equal(torch.get_rng_state(), before)

    def test_a_gpu_is_keyed_with_all_it_takes(self, monkeypatch) -> None:
        asked: list[int] = []
        monkeypatch.setattr(secrets, "randbits", lambda count: asked.append(count) or 2**64 - 1)

        class OnGpu:
            device = torch.device("cuda")

            def manual_seed(self, seed: int) -> None:
                torch.Generator().manual_seed(seed)  # takes 64 bits

        rekey(OnGpu())
        assert asked == [64]

    def test_a_seed_would_not_be_enough(self) -> None:
        # The reason for all of this. Should PyTorch use whole seeds one day, this fails: read noise.py again.
        low, high = (torch.Generator().manual_seed(7 + k * 2**32) for k in (0, 1))
        assert bits(low, 8) == bits(high, 8)


@pytest.mark.parametrize("size", [(400_000,), (15,) * 4])
def test_normals_are_standard(size) -> None:
    drawn = torch.randn(size, generator=secure_generator(), dtype=torch.float64).flatten()
    count = len(drawn)
    for power, moment, variance in [(1, 0.0, 1), (2, 1.0, 2), (3, 0.0, 15), (4, 3.0, 96)]:
        # Six standard errors: by chance once in half a billion runs.
        assert abs((drawn**power).mean().item() - moment) < 6 * (variance / count) ** 0.5
    neighbours = (drawn[:-1] * drawn[1:]).mean().item()
    assert abs(neighbours) < 6 / count**0.5
