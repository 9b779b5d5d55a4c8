# SPDX-License-Identifier: Apache-2.0
"""Roughness and power spectrum, by hand."""

import numpy as np
import pytest

from pasta_model.errors import VolumeError
from pasta_model.metrics.texture import power_spectrum, roughness, spectrum_distance

WHOLE = np.ones((16, 16, 16), dtype=bool)


def wave(cycles: int, axis: int = 0) -> np.ndarray:
    """A cosine of so many cycles over 16 voxels."""
    line = np.cos(2 * np.pi * cycles * np.arange(16) / 16)
    return np.broadcast_to(np.moveaxis(line[:, None, None], 0, axis), (16, 16, 16)).copy()


def test_a_ramp_is_smooth_and_steps_are_not() -> None:
    ramp = np.broadcast_to(np.arange(16.0), (16, 16, 16))
    assert roughness(ramp, mask=WHOLE) == 0
    # 0, 1, 0, 1, ...: every second difference is 2.
    assert roughness(ramp % 2, mask=WHOLE) == 2
    assert roughness(ramp % 2, mask=WHOLE, axis=0) == 0


def test_the_rim_of_the_brain_is_no_roughness() -> None:
    mask = WHOLE.copy()
    mask[..., 8:] = False
    flat = np.where(mask, 1.5, 0)
    assert roughness(flat, mask=mask) == 0
    with pytest.raises(VolumeError, match="three neighbouring"):
        roughness(flat, mask=np.arange(16) % 2 * WHOLE > 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_wave_has_its_power_at_its_frequency(axis: int) -> None:
    power = power_spectrum(wave(3, axis), mask=WHOLE, shells=8)  # a shell a cycle
    assert power.argmax() == 2
    assert power[2] > 1e9 * np.delete(power, 2).max()


def test_the_mean_does_not_count() -> None:
    powers = [power_spectrum(wave(2) + mean, mask=WHOLE, shells=8) for mean in (0, 1)]
    assert np.allclose(*powers, atol=1e-9)
    with pytest.raises(VolumeError, match="fewer than 9"):
        power_spectrum(wave(2), mask=WHOLE, shells=9)


def test_half_the_amplitude_is_six_decibels_less() -> None:
    noise = np.random.default_rng(0).normal(size=(16, 16, 16))
    assert spectrum_distance(noise, noise, mask=WHOLE, shells=8) == 0
    halved = spectrum_distance(noise, noise / 2, mask=WHOLE, shells=8)
    assert halved == pytest.approx(20 * np.log10(2))
