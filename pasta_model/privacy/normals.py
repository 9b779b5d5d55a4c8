# SPDX-License-Identifier: Apache-2.0
"""Normal draws that nobody can predict: the keystream of ChaCha20, under a key of the operating system's.

A statistical generator will not do. Who knows the mean of some weights (those that no site moved) reads their
noise off the released model. The Mersenne twister is linear: however secret its state was, some
20,000 bits of what came out give away all that follows, and so the noise of every other weight. What is known
of a stream cipher's output says nothing about the rest.
"""

import math
import os
from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray
from scipy.special import ndtri

Normals = Callable[[int], NDArray[np.float64]]
GRID_BITS = 20
KEY_BYTES, NONCE = 32, bytes(16)  # a key is used once, so its nonce may be zero


def secure_normals(count: int) -> NDArray[np.float64]:
    """Draw standard normal values, under a new key.

    A word's lowest bit is the sign; the others are a probability in the lower half, whose quantile is taken:
    z = -/+ Phi^-1((w + 1/2) / 2^64). The tails reach 9 standard deviations.
    """
    cipher = Cipher(ChaCha20(os.urandom(KEY_BYTES), NONCE), mode=None).encryptor()
    words = np.frombuffer(cipher.update(bytes(8 * count)), np.uint64)
    lower = ndtri(((words >> np.uint64(1)).astype(np.float64) + 0.5) * 2.0**-64)
    return np.where(words & np.uint64(1), lower, -lower)


def on_grid(values: NDArray[np.float64], *, spread: float) -> NDArray[np.float32]:
    """Round noisy values to a grid of about a millionth of the noise's spread.

    So nothing shows in the low bits, where the gaps between floating-point draws would tell neighbours apart
    (Mironov 2012), and float32 still holds every point of the grid.
    """
    grid = 2.0 ** (math.floor(math.log2(spread)) - GRID_BITS)
    return (np.rint(values / grid) * grid).astype(np.float32)
