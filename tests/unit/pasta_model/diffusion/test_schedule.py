# SPDX-License-Identifier: Apache-2.0
"""One table of timesteps for training and sampling; noise keeps the variance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.diffusion.schedule import Schedule
from pasta_model.sections import DiffusionSettings


def make(total: int = 1000, stride: int = 10) -> Schedule:
    return Schedule(DiffusionSettings(num_train_timesteps=total, timestep_stride=stride))


@given(st.integers(1, 1000), st.integers(1, 50), st.data())
def test_sampling_shows_only_trained_timesteps(total: int, stride: int, data: st.DataObject) -> None:
    stride = min(stride, total)
    schedule = make(total, stride)
    steps = data.draw(st.integers(1, len(schedule.timesteps)))
    found = schedule.sampling_timesteps(steps)
    assert len(found) == steps
    assert set(found) <= set(schedule.timesteps.tolist())
    assert found == sorted(set(found), reverse=True)  # from noise to image, none twice
    assert found[0] == schedule.timesteps[-1]
    if steps > 1:
        assert found[-1] == 0


def test_training_draws_the_same_table_evenly() -> None:
    schedule = make()
    drawn = schedule.sample_timesteps(20_000, generator=torch.Generator().manual_seed(0))
    values, counts = np.unique(drawn.numpy(), return_counts=True)
    np.testing.assert_array_equal(values, np.arange(0, 1000, 10))  # METHOD, fault 1
    assert abs(counts - 200).max() < 5 * 200**0.5


def test_draws_follow_the_generator() -> None:
    one, same, other = (
        make().sample_timesteps(8, generator=torch.Generator().manual_seed(seed)).tolist()
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_signal_falls_from_almost_all_to_almost_nothing() -> None:
    alphas = make().alphas_cumprod
    assert np.all(np.diff(alphas) < 0)
    assert alphas[0] > 0.9999
    assert alphas[-1] < 1e-4


def test_noise_is_added_by_slab() -> None:
    schedule = make()
    x0, noise = torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), -1.0)
    found = schedule.add_noise(x0, noise, torch.tensor([0, 500]))
    for slab, timestep in zip(found, (0, 500), strict=True):
        a = schedule.alphas_cumprod[timestep]
        torch.testing.assert_close(slab, torch.full((1, 2, 2), float(3 * a**0.5 - (1 - a) ** 0.5)))
    assert found.dtype == torch.float32


@pytest.mark.parametrize("timestep", [0, 300, 990])
def test_variance_is_preserved(timestep: int) -> None:
    signal, sigma = make().signal_and_noise(torch.tensor([timestep]))
    assert (signal**2 + sigma**2).item() == pytest.approx(1.0)
