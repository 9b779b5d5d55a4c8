# SPDX-License-Identifier: Apache-2.0
"""The noise schedule, q(x_t | x_0), and the one table of timesteps for training and sampling."""

import math
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pasta_model.errors import ConfigError
from pasta_model.sections import DiffusionSettings

Evenness: TypeAlias = Literal["time", "log-snr"]


def cosine_alphas_cumprod(num_train_timesteps: int) -> NDArray[np.float64]:
    """Cumulative signal fraction of the cosine schedule, (T,) (improved DDPM 2102.09672, eq. 17).

    Betas are capped at 0.999, and the products taken again, as in that paper.
    """
    steps = np.arange(num_train_timesteps + 1, dtype=np.float64) / num_train_timesteps
    curve = np.cos((steps + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = np.clip(1 - curve[1:] / curve[:-1], 0, 0.999)
    return np.cumprod(1 - betas)


class Schedule:
    """Signal and noise by timestep, shared by the loss and the samplers.

    Parameters
    ----------
    settings
        `num_train_timesteps` T and `timestep_stride`: the network is only ever shown the timesteps
        of `self.timesteps` (0, stride, 2 stride, ...), in training and in sampling alike.
    """

    def __init__(self, settings: DiffusionSettings) -> None:
        self.settings = settings
        self.timesteps = np.arange(0, settings.num_train_timesteps, settings.timestep_stride)
        self._tables: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    @cached_property
    def alphas_cumprod(self) -> NDArray[np.float64]:
        """Cumulative signal fraction of every timestep, (T,)."""
        return cosine_alphas_cumprod(self.settings.num_train_timesteps)

    def sample_timesteps(self, batch: int, *, generator: torch.Generator) -> Tensor:
        """Draw timesteps uniformly from the table, (B,) int64, on the generator's device."""
        device = generator.device
        index = torch.randint(len(self.timesteps), (batch,), generator=generator, device=device)
        return self._on(device)[0][index]

    def signal_and_noise(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(a_t) and sqrt(1 - a_t), each (B, 1, 1, 1) float32."""
        _, signal, noise = self._on(timesteps.device)
        return signal[timesteps].reshape(-1, 1, 1, 1), noise[timesteps].reshape(-1, 1, 1, 1)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Timesteps, sqrt(a) and sqrt(1 - a), taken to a device once: a copy would wait for it."""
        if device not in self._tables:
            a = torch.from_numpy(self.alphas_cumprod)
            tables = (torch.from_numpy(self.timesteps), a.sqrt().float(), (1 - a).sqrt().float())
            with torch.inference_mode(mode=False):  # kept for training too
                self._tables[device] = tables[0].to(device), tables[1].to(device), tables[2].to(device)
        return self._tables[device]

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """q(x_t | x_0): sqrt(a_t) x_0 + sqrt(1 - a_t) noise (DDPM eq. 4)."""
        signal, sigma = self.signal_and_noise(timesteps)
        return signal * x0 + sigma * noise

    @cached_property
    def log_snr(self) -> NDArray[np.float64]:
        """Half the log signal-to-noise ratio, log(alpha / sigma), of every timestep, (T,)."""
        a = self.alphas_cumprod
        return np.asarray(0.5 * (np.log(a) - np.log1p(-a)), dtype=np.float64)

    def sampling_timesteps(self, steps: int, *, even_in: Evenness = "time", start: int = 0) -> list[int]:
        """Return `steps` trained timesteps from noise to image, ending at 0.

        A single step is the one from the start.

        Parameters
        ----------
        even_in
            Spread evenly in time, or in log-SNR (for DPM-Solver++; 2211.01095, section 5).
        start
            Where a shortened chain starts, a trained timestep; 0 is the last one, pure noise.

        Raises
        ------
        ConfigError
            When there are fewer trained timesteps than that, or `start` is not one.
        """
        table = self.timesteps.tolist()
        if start and start not in table:
            raise ConfigError(f"sampling.start {start} is not a trained timestep; wanted one of {table}")
        last = table.index(start) if start else len(table) - 1
        if not 1 <= steps <= last + 1:
            raise ConfigError(f"sampling.steps {steps}, wanted 1 to {last + 1}, the trained timesteps")
        if even_in == "time":
            index = np.linspace(last, 0, steps).round().astype(int).tolist()
        else:
            index = self._even_in_log_snr(last, steps)
        return [table[i] for i in index]

    def _even_in_log_snr(self, last: int, steps: int) -> list[int]:
        """Return table positions nearest to an even grid of log-SNR; no two are the same."""
        known = self.log_snr[self.timesteps[: last + 1]]
        index: list[int] = []
        for left, wanted in zip(
            range(steps - 1, -1, -1), np.linspace(known[last], known[0], steps), strict=True
        ):
            highest = index[-1] - 1 if index else last
            index.append(min(max(int(np.abs(known - wanted).argmin()), left), highest))
        return index
