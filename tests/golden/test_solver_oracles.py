# SPDX-License-Identifier: Apache-2.0
"""Both solvers on every grid that a chain can have, against diffusers."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from pasta_model.diffusion.samplers import SOLVERS, Predict
from pasta_model.diffusion.schedule import Evenness, Schedule
from pasta_model.sections import DiffusionSettings

# diffusers hands a tensor to numpy in the way of numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SCHEDULE = Schedule(DiffusionSettings())
NOISE = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
GRIDS: list[tuple[int, Evenness, int]] = [
    (1, "time", 0), (2, "time", 0), (10, "time", 0), (100, "time", 0), (37, "time", 0),
    (2, "log-snr", 0), (3, "log-snr", 0), (10, "log-snr", 0), (25, "log-snr", 0),
    (1, "time", 500), (5, "time", 500), (5, "log-snr", 500), (31, "log-snr", 300), (2, "log-snr", 10),
]  # fmt: skip


def cosine(t: int) -> float:
    """Cumulative signal after timestep t of 1,000 (2102.09672, eq. 17), where no beta meets its cap."""
    return (
        math.cos(((t + 1) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
        / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    )


BETAS = [min(1 - cosine(t) / cosine(t - 1), 0.999) for t in range(1000)]


def predict(x: Tensor, timestep: int) -> Tensor:
    """A network that bends: answers depend on x and on time, and leave [-1, 1]."""
    return 1.5 * torch.tanh(0.7 * x + timestep / 1000 - 0.3) - 0.2 * x


def diffusers_ddim(predict: Predict, x: Tensor, timesteps: Sequence[int]) -> Tensor:
    oracle = DDIMScheduler(
        trained_betas=np.array(BETAS), prediction_type="sample", clip_sample=False, set_alpha_to_one=True
    )
    for here, after in zip(timesteps, [*timesteps[1:], -1], strict=True):
        # diffusers goes from t to t - T / num_inference_steps; both are chosen to give our next timestep.
        oracle.num_inference_steps = 1
        oracle.config.num_train_timesteps = here - after
        x = oracle.step(predict(x, here), here, x, eta=0.0).prev_sample
    return x


def diffusers_dpm(predict: Predict, x: Tensor, timesteps: Sequence[int]) -> Tensor:
    oracle = DPMSolverMultistepScheduler(
        trained_betas=np.array(BETAS),
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        prediction_type="sample",
        final_sigmas_type="zero",  # its last step goes to sigma 0: the prediction itself
    )
    oracle.set_timesteps(timesteps=list(timesteps))
    assert oracle.timesteps.tolist() == list(timesteps)
    for timestep in oracle.timesteps:
        x = oracle.step(predict(x, int(timestep)), timestep, x).prev_sample
    return x


ORACLES: dict[str, Callable[[Predict, Tensor, Sequence[int]], Tensor]] = {
    "ddim": diffusers_ddim,
    "dpm++2m": diffusers_dpm,
}


@pytest.mark.parametrize(("steps", "even_in", "start"), GRIDS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_solver_takes_diffusers_steps(solver: str, steps: int, even_in: Evenness, start: int) -> None:
    timesteps = SCHEDULE.sampling_timesteps(steps, even_in=even_in, start=start)
    asked: list[int] = []

    def noting(x: Tensor, timestep: int) -> Tensor:
        asked.append(timestep)
        return predict(x, timestep)

    found = SOLVERS[solver](noting, NOISE, timesteps, schedule=SCHEDULE)
    assert asked == timesteps
    torch.testing.assert_close(found, ORACLES[solver](predict, NOISE, timesteps), rtol=2e-4, atol=2e-5)


def test_solvers_differ_where_the_second_order_counts() -> None:
    """Else one oracle could stand for the other."""
    timesteps = SCHEDULE.sampling_timesteps(10)
    ours, other = (SOLVERS[s](predict, NOISE, timesteps, schedule=SCHEDULE) for s in ("ddim", "dpm++2m"))
    assert (ours - other).abs().max() > 1e-2


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_last_prediction_is_the_result(solver: str) -> None:
    timesteps = [990, 500, 0]
    answers = {t: torch.full((2,), float(t)) for t in timesteps}
    found = SOLVERS[solver](lambda x, t: answers[t], torch.zeros(2), timesteps, schedule=SCHEDULE)
    assert torch.equal(found, answers[0])


def test_cosine_schedule_by_its_formula() -> None:
    wanted = np.array([cosine(t) for t in range(1000)])
    np.testing.assert_allclose(SCHEDULE.alphas_cumprod[:-1], wanted[:-1], rtol=1e-9)
    assert SCHEDULE.alphas_cumprod[-1] == pytest.approx(wanted[-2] * 0.001)  # the last beta is capped


@pytest.mark.parametrize("timestep", [0, 10, 500, 990])
def test_noising_by_its_formula(timestep: int) -> None:
    x0, noise = NOISE[None], NOISE.flip(-1)[None]
    a = cosine(timestep)
    wanted = math.sqrt(a) * x0 + math.sqrt(1 - a) * noise
    torch.testing.assert_close(SCHEDULE.add_noise(x0, noise, torch.tensor([timestep])), wanted)


def test_log_snr_is_diffusers_lambda() -> None:
    oracle = DPMSolverMultistepScheduler(trained_betas=np.array(BETAS))
    np.testing.assert_allclose(SCHEDULE.log_snr[:-1], oracle.lambda_t[:-1].numpy(), atol=2e-3)


def test_ten_steps_even_in_log_snr_are_those_of_the_method() -> None:
    found = SCHEDULE.sampling_timesteps(10, even_in="log-snr")
    assert found == [990, 970, 930, 800, 540, 240, 80, 30, 10, 0]


def test_ten_steps_even_in_time_by_hand() -> None:
    assert SCHEDULE.sampling_timesteps(10) == [990, 880, 770, 660, 550, 440, 330, 220, 110, 0]
    assert SCHEDULE.sampling_timesteps(8) == [990, 850, 710, 570, 420, 280, 140, 0]  # 990 / 7 = 141.4
    assert SCHEDULE.sampling_timesteps(6, start=500) == [500, 400, 300, 200, 100, 0]
    assert SCHEDULE.sampling_timesteps(100) == list(range(990, -1, -10))
