# SPDX-License-Identifier: Apache-2.0
"""One table of timesteps for training and sampling; noise keeps the variance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.diffusion.schedule import Schedule
from pasta_model.errors import ConfigError
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


@given(st.data(), st.sampled_from(["time", "log-snr"]))
def test_shortened_chain_goes_from_its_start_to_the_image(data: st.DataObject, even_in: str) -> None:
    schedule = make()
    start = data.draw(st.sampled_from(schedule.timesteps.tolist()[1:]))
    steps = data.draw(st.integers(2, start // 10 + 1))
    found = schedule.sampling_timesteps(steps, even_in=even_in, start=start)
    assert (found[0], found[-1], len(found)) == (start, 0, steps)
    assert found == sorted(set(found), reverse=True)
    assert set(found) <= set(schedule.timesteps.tolist())


@pytest.mark.parametrize("steps", [2, 3, 5, 10])  # with many more, neighbours must make room for each other
def test_grid_of_log_snr_is_as_even_as_the_table_allows(steps: int) -> None:
    schedule = make()
    found = schedule.sampling_timesteps(steps, even_in="log-snr")
    log_snr = schedule.log_snr[schedule.timesteps]
    wanted = np.linspace(log_snr[-1], log_snr[0], steps)
    # Nothing is nearer to where a step should be than half the widest gap of the table there.
    gaps = np.abs(np.diff(log_snr))
    assert np.abs(schedule.log_snr[found] - wanted).max() <= gaps.max() / 2 + 1e-9
    assert schedule.sampling_timesteps(100, even_in="log-snr") == list(range(990, -1, -10))


def test_log_snr_by_hand() -> None:
    schedule = make()
    a = schedule.alphas_cumprod[300]
    assert schedule.log_snr[300] == pytest.approx(np.log(np.sqrt(a) / np.sqrt(1 - a)))


@pytest.mark.parametrize(
    ("steps", "start", "words"),
    [
        (101, 0, "wanted 1 to 100"),
        (7, 50, "wanted 1 to 6"),
        (0, 0, "wanted 1 to 100"),
        (2, 55, "start 55 is not"),
    ],
)
def test_chain_that_is_not_in_the_table_is_refused(steps: int, start: int, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make().sampling_timesteps(steps, start=start)


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
