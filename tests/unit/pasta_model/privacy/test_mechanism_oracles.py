# SPDX-License-Identifier: Apache-2.0
"""Clipped sums of a network, against Opacus's own hooks."""

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor

from pasta_model.data.slabs import Batch
from pasta_model.diffusion.cycle import Translator, step_loss
from pasta_model.diffusion.schedule import Schedule
from pasta_model.network.dual_arm import DualArm
from pasta_model.sections import DiffusionSettings, LossSettings
from tests.support.mechanisms import dual_arm, mechanism

SUBJECTS = 5


class FixedNoise(Schedule):
    """A schedule with timesteps and noises of each subject, pass by pass, whoever else is in the batch."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(DiffusionSettings())
        drawn = torch.Generator().manual_seed(3)
        self.steps = torch.randint(0, 1000, (4, SUBJECTS), generator=drawn)[:, rows]
        self.noises = torch.randn((4, SUBJECTS, 3, 16, 16), generator=drawn)[:, rows]
        self.turn = 0

    def sample_timesteps(self, count: int, *, generator: torch.Generator) -> Tensor:
        return self.steps[self.turn]

    def add_noise(self, x0: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        self.turn += 1
        return super().add_noise(x0, self.noises[self.turn - 1], timesteps)


def loss_of(network: DualArm, rows: list[int]) -> Tensor:
    """Return the mean loss of these subjects, one slab each; four passes use each arm four times."""
    drawn = torch.Generator().manual_seed(2)
    mri, pet, roi = (torch.rand((SUBJECTS, 3, 16, 16), generator=drawn) for _ in range(3))
    clinical = torch.randn((SUBJECTS, 2), generator=drawn)
    # Subjects of different brightness have gradients of different length.
    bright = torch.arange(1, SUBJECTS + 1)[:, None, None, None] / SUBJECTS
    batch = Batch((2 * mri - 1)[rows], (pet * 2 * bright - 1)[rows], roi[rows], clinical[rows])
    translator = Translator(network, FixedNoise(rows))
    settings = LossSettings(metaroi_strength=2.0, cycle=True, detach_cycle=False)
    return step_loss(translator, batch, settings=settings, generator=torch.Generator())


class TestAgainstOpacusHooks:
    def by_hooks(self, clip: float) -> tuple[list[str], list[Tensor], Tensor]:
        network = dual_arm()
        hooked = GradSampleModule(network)
        hooked.train()
        optimizer = DPOptimizer(
            torch.optim.SGD(network.parameters(), lr=0.0),
            noise_multiplier=0.0,
            max_grad_norm=clip,
            expected_batch_size=SUBJECTS,
        )
        loss_of(network, list(range(SUBJECTS))).backward()
        samples = [p.grad_sample.flatten(1) for p in network.parameters()]
        norms = torch.cat(samples, dim=1).norm(dim=1)
        optimizer.pre_step()
        return [n for n, _ in network.named_parameters()], [p.grad for p in network.parameters()], norms

    def by_subject(self, clip: float) -> list[Tensor]:
        network, seen = dual_arm(), []
        found = mechanism(
            list(network.parameters()),
            max_grad_norm=clip,
            expected_subjects=SUBJECTS,
            on_release=lambda gradients: seen.extend(g.clone() for g in gradients),
        )
        for subject in range(SUBJECTS):
            loss_of(network, [subject]).backward()
            found.add()
        found.step()
        return seen

    @pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # the first layer's input is data
    def test_the_clipped_sums_are_the_same(self) -> None:
        norms = self.by_hooks(1.0)[2]
        middle = norms.median().item()
        assert norms.min() < 0.99 * middle < 1.01 * middle < norms.max(), "some are clipped, some are not"
        for clip in (middle, 1e6, 1e-3):
            names, wanted, _ = self.by_hooks(clip)
            found = self.by_subject(clip)
            assert len(found) == len(wanted) > 40
            scale = max(w.abs().max().item() for w in wanted)
            for name, mine, theirs in zip(names, found, wanted, strict=True):
                assert theirs.abs().max() > 0, name
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6 * scale, msg=name)
