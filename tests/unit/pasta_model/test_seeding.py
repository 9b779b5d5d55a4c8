# SPDX-License-Identifier: Apache-2.0
"""Streams of random numbers: repeatable, and apart from each other."""

from hypothesis import given
from hypothesis import strategies as st

from pasta_model.seeding import numpy_generator, stream_seed, torch_generator

NAMES = st.lists(st.text("ab1", max_size=3), max_size=3).map(tuple)


@given(NAMES, NAMES)
def test_streams_are_equal_only_for_equal_names(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (stream_seed(7, *one) == stream_seed(7, *other)) == (one == other)


@given(st.integers(0, 2**63), NAMES)
def test_seed_fits_numpy_and_torch(seed: int, names: tuple[str, ...]) -> None:
    assert 0 <= stream_seed(seed, *names) < 2**63


def test_generators_repeat_and_leave_the_global_ones_alone() -> None:
    import torch

    before = torch.random.get_rng_state()
    for make in (numpy_generator, torch_generator):
        assert make(1, "site", 2).__class__ is make(1, "site", 3).__class__
    draws = [torch.rand(4, generator=torch_generator(1, "site", number)).tolist() for number in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    draws = [numpy_generator(1, "site", number).random(4).tolist() for number in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(before, torch.random.get_rng_state())
