# SPDX-License-Identifier: Apache-2.0
"""Samplers: pure functions of (predict, noise, timesteps).

`predict(x_t, t)` returns x_0 of the same shape. A sampler draws nothing itself: the noise is given.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from pasta_model.diffusion.schedule import Schedule

Predict = Callable[[Tensor, int], Tensor]


def ddim(predict: Predict, noise: Tensor, timesteps: Sequence[int], *, schedule: Schedule) -> Tensor:
    """Deterministic DDIM (2010.02502, eq. 12 with sigma = 0).

    Parameters
    ----------
    predict
        Network: x_t and timestep to x_0.
    noise
        Standard normal start, any shape.
    timesteps
        Trained timesteps from noise to image; the prediction at the last one is returned.

    Returns
    -------
    Tensor
        x_0, shaped as `noise`.
    """
    alphas = schedule.alphas_cumprod
    x, x0 = noise, noise
    for here, after in zip(timesteps, [*timesteps[1:], None], strict=True):
        x0 = predict(x, int(here))
        if after is not None:
            a, a_next = float(alphas[here]), float(alphas[after])
            direction = (x - a**0.5 * x0) / (1 - a) ** 0.5  # the noise that x_t and x_0 imply
            x = a_next**0.5 * x0 + (1 - a_next) ** 0.5 * direction
    return x0
