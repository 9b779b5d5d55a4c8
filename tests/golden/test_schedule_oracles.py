# SPDX-License-Identifier: Apache-2.0
"""Schedule, noising and sampler against diffusers."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from pasta_model.diffusion.samplers import ddim
from pasta_model.diffusion.schedule import Schedule
from pasta_model.sections import DiffusionSettings

COMMON = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return Schedule(DiffusionSettings())


def test_alphas(schedule: Schedule) -> None:
    wanted = DDPMScheduler(**COMMON).alphas_cumprod.numpy()
    np.testing.assert_allclose(schedule.alphas_cumprod, wanted, rtol=2e-4, atol=1e-6)


def test_noising(schedule: Schedule) -> None:
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(4, 3, 5, 5, generator=generator) for _ in range(2))
    timesteps = torch.tensor([0, 10, 500, 990])
    wanted = DDPMScheduler(**COMMON).add_noise(x0, noise, timesteps)
    torch.testing.assert_close(schedule.add_noise(x0, noise, timesteps), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 10, 37, 100])
def test_ddim(schedule: Schedule, steps: int) -> None:
    """Step along the same timesteps with the same predictor."""

    def predict(x: torch.Tensor, timestep: int) -> torch.Tensor:
        return torch.tanh(0.7 * x + timestep / 1000 - 0.3)

    noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).double()
    timesteps = schedule.sampling_timesteps(steps)
    oracle = DDIMScheduler(**COMMON, prediction_type="sample", clip_sample=False, set_alpha_to_one=True)
    alphas = oracle.alphas_cumprod
    x = noise
    for here, after in zip(timesteps, [*timesteps[1:], None], strict=True):
        # diffusers steps from t to t - T / num_inference_steps; choose that to be our next timestep.
        oracle.num_inference_steps = 1
        oracle.config.num_train_timesteps = here - after if after is not None else 1000
        x = oracle.step(predict(x, here), here, x, eta=0.0).prev_sample
    assert len(alphas) == 1000
    torch.testing.assert_close(ddim(predict, noise, timesteps, schedule=schedule), x, rtol=1e-3, atol=1e-4)
