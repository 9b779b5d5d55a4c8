# SPDX-License-Identifier: Apache-2.0
"""Randomness that nobody can guess: what privacy noise and secret draws come from.

A seed is not enough: PyTorch's generator on a CPU uses the low 32 bits of it, and 2^32 noises can be tried
out against a released update. So the whole state comes from the operating system's secure source: for who is
drawn, and on a GPU, anew at every step, for the noise (on a CPU that is `normals`).
"""

import os
import secrets

import numpy as np
import torch

WORDS, WORD_BYTES = 624, 8  # of the Mersenne twister, and of a word of its state in PyTorch
HEADER = 24  # seed, words left, whether seeded, next word


def secure_generator(device: str = "cpu") -> torch.Generator:
    """Return a generator keyed by the operating system."""
    generator = torch.Generator(device=device)
    rekey(generator)
    return generator


def rekey(generator: torch.Generator) -> None:
    """Give a generator a new secret state: 19,968 bits on a CPU, a key of 64 bits on a GPU (Philox)."""
    generator.manual_seed(secrets.randbits(64))
    if generator.device.type != "cpu":
        return
    state = generator.get_state().numpy()
    words = state[HEADER : HEADER + WORDS * WORD_BYTES].reshape(WORDS, WORD_BYTES)
    # Each of the 624 words holds 32 bits; the counter already says that all of them are still to be mixed.
    words[:, :4] = np.frombuffer(os.urandom(4 * WORDS), np.uint8).reshape(WORDS, 4)
    words[:, 4:] = 0
    generator.set_state(torch.from_numpy(state))
