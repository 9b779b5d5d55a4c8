# SPDX-License-Identifier: Apache-2.0
"""Samplers: pure functions of (predict, noised start, timesteps).

`predict(x_t, t)` returns x_0 of the same shape. A sampler draws nothing itself: the start is given, pure
noise or a noised preview. The prediction at the last timestep is the result.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from pasta_model.diffusion.schedule import Schedule

Predict = Callable[[Tensor, int], Tensor]


def ddim(predict: Predict, start: Tensor, timesteps: Sequence[int], *, schedule: Schedule) -> Tensor:
    """Deterministic DDIM (2010.02502, eq. 12 with sigma = 0).

    Parameters
    ----------
    predict
        Network: x_t and timestep to x_0.
    start
        x_t at the first timestep, any shape.
    timesteps
        Trained timesteps from noise to image.

    Returns
    -------
    Tensor
        x_0, shaped as `start`.
    """
    alphas = schedule.alphas_cumprod
    x = start
    for here, after in pairwise(timesteps):
        x0 = predict(x, int(here))
        a, a_next = float(alphas[here]), float(alphas[after])
        direction = (x - a**0.5 * x0) / (1 - a) ** 0.5  # the noise that x_t and x_0 imply
        x = a_next**0.5 * x0 + (1 - a_next) ** 0.5 * direction
    return predict(x, int(timesteps[-1]))


def dpm_solver_2m(predict: Predict, start: Tensor, timesteps: Sequence[int], *, schedule: Schedule) -> Tensor:
    """DPM-Solver++(2M) for a network that predicts x_0 (2211.01095, algorithm 2).

    With lambda = log(alpha / sigma) and h its step::

        D = (1 + h/(2 h_before)) x0 - h/(2 h_before) x0_before;  x <- (sigma'/sigma) x - alpha' (e^-h - 1) D

    The first step is of first order: nothing lies before it. Parameters and result are those of `ddim`.
    """
    x, before, h_before = start, None, 1.0
    for here, after in pairwise(timesteps):
        x0 = predict(x, int(here))
        h = float(schedule.log_snr[after] - schedule.log_snr[here])
        multistep = x0 if before is None else x0 + (x0 - before) * (h / (2 * h_before))
        a, a_next = float(schedule.alphas_cumprod[here]), float(schedule.alphas_cumprod[after])
        x = ((1 - a_next) / (1 - a)) ** 0.5 * x - a_next**0.5 * math.expm1(-h) * multistep
        before, h_before = x0, h
    return predict(x, int(timesteps[-1]))


SOLVERS: Mapping[str, Callable[..., Tensor]] = {"ddim": ddim, "dpm++2m": dpm_solver_2m}


def clip_dynamically(x0: Tensor, quantile: float) -> Tensor:
    """Clip x_0 to +-s, s the larger of 1 and this quantile of its size (after Imagen, 2205.11487, 2.3).

    Imagen then divides by s; that would change SUVR, so it is left out. A quantile of 0 clips nothing.
    """
    if not quantile:
        return x0
    size = x0.abs().flatten()
    rank = max(1, math.ceil(quantile * size.numel()))  # torch.quantile refuses volumes
    bound = max(1.0, float(size.kthvalue(rank).values))
    return x0.clamp(-bound, bound)
