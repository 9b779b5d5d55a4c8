# SPDX-License-Identifier: Apache-2.0
"""Normal draws: standard, never the same twice, and those of the cipher that they say."""

from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from pasta_model.privacy import normals
from pasta_model.privacy.normals import secure_normals

# RFC 8439, appendix A.1, test vector 1: key, nonce and counter are zero.
KEYSTREAM = bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")


def test_draws_are_the_quantiles_of_the_published_keystream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(normals.os, "urandom", bytes)
    words = [int.from_bytes(KEYSTREAM[at : at + 8], "little") for at in range(0, 32, 8)]
    normal = NormalDist()  # Wichura's algorithm, not scipy's
    wanted = [(1 if word % 2 == 0 else -1) * -normal.inv_cdf((word // 2 + 0.5) / 2**64) for word in words]
    np.testing.assert_allclose(secure_normals(4), wanted, rtol=1e-12)
    assert {word % 2 for word in words} == {0, 1}, "both signs"


def test_draws_are_standard_normal() -> None:
    drawn = secure_normals(400_000)
    assert stats.kstest(drawn, "norm").pvalue > 1e-6  # one in a million of these tests fails by chance
    # The tails, which no other test would miss: 3.17e-5 of all are beyond 4.
    assert stats.binomtest(int((np.abs(drawn) > 4).sum()), drawn.size, 2 * stats.norm.sf(4)).pvalue > 1e-6
    signs = np.sign(drawn[1:]) * np.sign(drawn[:-1])
    assert abs(signs.mean()) < 6 / np.sqrt(signs.size)


def test_no_two_draws_are_the_same() -> None:
    drawn = np.concatenate([secure_normals(1000) for _ in range(20)])
    assert len(np.unique(drawn)) == drawn.size


def test_the_smallest_and_the_largest_word_are_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    class Words:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def encryptor(self) -> "Words":
            return self

        def update(self, zeros: bytes) -> bytes:
            return (b"\x00" * 8 + b"\xff" * 8)[: len(zeros)]

    monkeypatch.setattr(normals, "Cipher", Words)
    smallest, largest = secure_normals(2)
    assert smallest == pytest.approx(-NormalDist().inv_cdf(2.0**-65), rel=1e-9)  # 9.2
    assert largest == 0.0
