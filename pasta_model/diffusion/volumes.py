# SPDX-License-Identifier: Apache-2.0
"""Whole volumes from a network that sees slabs.

One noise *volume* is shared by all slabs, and their x_0 predictions are fused into one volume at every
step, so a volume is one sample without seams. The published way (each slab its own noise and
trajectory, fused at the end) is a setting.
Shapes: a volume (D, H, W), axial slices first; N slabs of S slices, (N, S, H', W') in their plane.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pasta_model.data.planes import each_plane
from pasta_model.diffusion.cycle import Translator
from pasta_model.diffusion.samplers import SOLVERS, Predict, clip_dynamically
from pasta_model.diffusion.source import SourceSlabs
from pasta_model.network.dual_arm import Direction
from pasta_model.sections import SamplingSettings

OnStep = Callable[[], None]


@dataclass(frozen=True)
class Task:
    """One subject's work: what was read, the chain to walk, and whom to tell of each step."""

    planes: Sequence[SourceSlabs]
    timesteps: Sequence[int]
    shown: Mapping[int, int]
    clinical: Tensor | None
    on_step: OnStep

    def noise(self, shape: torch.Size, generator: torch.Generator, sign: int) -> Tensor:
        """Draw on the generator's device, so that a seed gives the same noise on any."""
        drawn = torch.randn(shape, generator=generator, device=generator.device)
        return (sign * drawn).to(self.planes[0].previews.device)


class VolumeTranslator:
    """Translates whole volumes with a trained network.

    Parameters
    ----------
    translator
        Network and schedule.
    settings
        Solver, steps, hop, fusion, planes and the rest (see `SamplingSettings`).
    """

    def __init__(self, translator: Translator, settings: SamplingSettings) -> None:
        self.translator = translator
        self.settings = settings

    @property
    def network_steps(self) -> int:
        """How often `on_step` is called for all samples of a volume."""
        settings = self.settings
        planes = len(each_plane(settings.planes)) if settings.fusion == "end" else 1
        chains = 2 if settings.antithetic and settings.samples == 1 else settings.samples
        return settings.steps * planes * chains

    def sample(
        self,
        source: Tensor,
        clinical: Tensor | None,
        *,
        direction: Direction = Direction.MRI_TO_PET,
        generator: torch.Generator,
    ) -> Tensor:
        """Sample the other modality of a volume.

        Parameters
        ----------
        source
            (D, H, W) in [-1, 1].
        clinical
            (K,) standardised clinical vector, or None.
        generator
            For the noise, on any device.

        Returns
        -------
        Tensor
            (D, H, W) float32 in network units.

        Raises
        ------
        VolumeError
            When the volume is thinner than a slab, or its slices do not fit the network.
        """
        return next(self.samples(source, clinical, direction=direction, generators=[generator]))

    @torch.inference_mode()
    def samples(
        self,
        source: Tensor,
        clinical: Tensor | None,
        *,
        direction: Direction = Direction.MRI_TO_PET,
        generators: Sequence[torch.Generator],
        on_step: OnStep = lambda: None,
    ) -> Iterator[Tensor]:
        """Yield one sample for each generator; the source's features are computed once for all.

        A lone sample is the mean of an antithetic pair where that is configured.
        """
        task = self._task(self._read(source, direction), clinical, on_step)
        one = self._one_trajectory if self.settings.fusion == "every-step" else self._many_trajectories
        pair = self.settings.antithetic and len(generators) == 1
        for generator in generators:
            state = generator.get_state()
            drawn = one(task, generator, 1)
            if pair:
                generator.set_state(state)
                drawn = (drawn + one(task, generator, -1)) / 2
            yield drawn

    @torch.inference_mode()
    def preview(self, source: Tensor, *, direction: Direction = Direction.MRI_TO_PET) -> Tensor:
        """Return the conditioner's own prediction, one pass: (D, H, W) to (D, H, W)."""
        planes = self._read(source, direction)
        return _mean([slabs.fused(slabs.previews) for slabs in planes])

    def _read(self, source: Tensor, direction: Direction) -> list[SourceSlabs]:
        planes: list[SourceSlabs] = []
        for plane in each_plane(self.settings.planes):
            left = self.settings.memory * 1e9 - sum(slabs.kept_bytes for slabs in planes)
            planes.append(
                SourceSlabs(
                    self.translator,
                    source,
                    plane=plane,
                    direction=direction,
                    settings=self.settings,
                    budget=left,
                )
            )
        return planes

    def _task(self, planes: Sequence[SourceSlabs], clinical: Tensor | None, on_step: OnStep) -> Task:
        schedule, settings = self.translator.schedule, self.settings
        timesteps = schedule.sampling_timesteps(
            settings.steps,
            even_in="time" if settings.solver == "ddim" else "log-snr",
            start=settings.start,
        )
        # The published code trained on 0, 10, ..., 990 and told the network 0, 1, ..., 99 (a fault).
        stride = schedule.settings.timestep_stride if settings.published_timesteps else 1
        return Task(planes, timesteps, {t: t // stride for t in timesteps}, clinical, on_step)

    def _walk(self, predict: Predict, start: Tensor, task: Task) -> Tensor:
        solver = SOLVERS[self.settings.solver]
        volume: Tensor = solver(predict, start, task.timesteps, schedule=self.translator.schedule)
        return volume

    def _begin(self, noise: Tensor, preview: Tensor) -> Tensor:
        """Pure noise, or the preview noised to where a shortened chain starts."""
        if not self.settings.start:
            return noise
        a = float(self.translator.schedule.alphas_cumprod[self.settings.start])
        signal, sigma = math.sqrt(a), math.sqrt(1 - a)
        return signal * preview + sigma * noise

    def _one_trajectory(self, task: Task, generator: torch.Generator, sign: int) -> Tensor:
        """Fuse the slabs of all planes into one volume at every step."""
        noise = task.noise(task.planes[0].volume_shape, generator, sign)
        preview = _mean([slabs.fused(slabs.previews) for slabs in task.planes])

        def predict(x: Tensor, timestep: int) -> Tensor:
            x0 = [
                slabs.fused(slabs.denoise(slabs.of(x), task.shown[timestep], task.clinical))
                for slabs in task.planes
            ]
            task.on_step()
            return clip_dynamically(_mean(x0), self.settings.clip_quantile)

        return self._walk(predict, self._begin(noise, preview), task)

    def _many_trajectories(self, task: Task, generator: torch.Generator, sign: int) -> Tensor:
        """Walk each slab's own chain to its end, then fuse, as published."""
        shared = task.noise(task.planes[0].volume_shape, generator, sign)
        volumes = []
        for slabs in task.planes:
            noise = slabs.of(shared)
            if self.settings.noise == "slab":
                noise = task.noise(noise.shape, generator, sign)

            def predict(x: Tensor, timestep: int, slabs: SourceSlabs = slabs) -> Tensor:
                x0 = slabs.denoise(x, task.shown[timestep], task.clinical)
                task.on_step()
                return clip_dynamically(x0, self.settings.clip_quantile)

            volumes.append(slabs.fused(self._walk(predict, self._begin(noise, slabs.previews), task)))
        return _mean(volumes)


def _mean(volumes: Sequence[Tensor]) -> Tensor:
    return volumes[0] if len(volumes) == 1 else torch.stack(list(volumes)).mean(dim=0)
