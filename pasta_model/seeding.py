# SPDX-License-Identifier: Apache-2.0
"""One seed, many independent streams: by site, round and purpose."""

import hashlib

import numpy as np
import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed for the stream that `names` describe, the same on every machine.

    Hashing keeps streams apart whatever the names; adding sites or rounds never shifts another
    stream.
    """
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_generator(seed: int, *names: str | int, device: str = "cpu") -> torch.Generator:
    """Return a torch generator for a stream."""
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return a numpy generator for a stream."""
    return np.random.default_rng(stream_seed(seed, *names))
