# SPDX-License-Identifier: Apache-2.0
"""Volumes as one sample: noise, planes, fusion at every step or at the end, and shortened chains."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pasta_model.data.planes import SLICE_AXIS
from pasta_model.diffusion.samplers import SOLVERS
from pasta_model.diffusion.schedule import Schedule
from pasta_model.sections import DiffusionSettings
from tests.support.standins import SLICES, StandIn, answer, answer_by_place, draws, volumes

SCHEDULE = Schedule(DiffusionSettings())
SOURCE = torch.rand(8, 6, 10, generator=draws(7)) * 2 - 1  # (z, x, y), all sides different
NOISE = torch.randn(SOURCE.shape, generator=draws())
EVEN_IN = {"ddim": "time", "dpm++2m": "log-snr"}
PLANES = ["axial", "coronal", "sagittal", "all"]


def naive_fusion(slabs: Sequence[Tensor], starts: Sequence[int]) -> Tensor:
    """Weighted mean slice by slice; the triangle over 3 slices is 1/2, 1, 1/2 (its feet lie outside)."""
    slices: list[Tensor] = []
    for z in range(starts[-1] + SLICES):
        over = [
            (0.5 if abs(z - s - 1) else 1.0, slab[z - s])
            for s, slab in zip(starts, slabs, strict=True)
            if 0 <= z - s < SLICES
        ]
        slices.append(sum(w * value for w, value in over) / sum(w for w, _ in over))
    return torch.stack(slices)


def cut(volume: Tensor, starts: Sequence[int]) -> Tensor:
    return torch.stack([volume[s : s + SLICES] for s in starts])


def chain(solver: str, steps: int, start: int = 0) -> list[int]:
    return SCHEDULE.sampling_timesteps(steps, even_in=EVEN_IN[solver], start=start)


@given(
    solver=st.sampled_from(list(SOLVERS)),
    steps=st.integers(1, 4),
    hop=st.integers(1, SLICES),
    batch_slabs=st.integers(1, 9),
    fusion=st.sampled_from(["every-step", "end"]),
    planes=st.sampled_from(PLANES),
    memory=st.sampled_from([0.0, 1.0]),
    start=st.sampled_from([0, 400]),
)
def test_network_without_seams_gives_the_solution_of_the_whole_volume(
    solver: str, steps: int, start: int, **settings
) -> None:
    """Whatever the slabs, planes, batches and memory: the solver on the volume, with its one noise."""
    timesteps = chain(solver, steps, start)
    begin = NOISE
    if start:  # from the preview (half of the source), noised
        a = SCHEDULE.alphas_cumprod[start]
        begin = (a**0.5 * SOURCE / 2 + (1 - a) ** 0.5 * NOISE).float()
    wanted = SOLVERS[solver](lambda x, t: answer(x, SOURCE, t), begin, timesteps, schedule=SCHEDULE)
    network = StandIn()
    translator = volumes(network, solver=solver, steps=steps, start=start, **settings)
    found = translator.sample(SOURCE, None, generator=draws())
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert set(network.shown) == set(timesteps)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("hop", [1, 2])
def test_fused_at_every_step_the_volume_has_one_trajectory(solver: str, hop: int) -> None:
    starts = {1: [0, 1, 2, 3, 4, 5], 2: [0, 2, 4, 5]}[hop]

    def predict(x: Tensor, timestep: int) -> Tensor:
        return naive_fusion(answer_by_place(cut(x, starts), cut(SOURCE, starts), timestep), starts)

    wanted = SOLVERS[solver](predict, NOISE, chain(solver, 4), schedule=SCHEDULE)
    translator = volumes(StandIn(answer_by_place), solver=solver, steps=4, hop=hop)
    torch.testing.assert_close(
        translator.sample(SOURCE, None, generator=draws()), wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("noise", ["volume", "slab"])
def test_fused_at_the_end_each_slab_has_its_own(noise: str) -> None:
    starts, network = [0, 2, 4, 5], StandIn(answer_by_place)
    found = volumes(network, steps=4, hop=2, fusion="end", noise=noise, batch_slabs=2).sample(
        SOURCE, None, generator=draws()
    )
    first = torch.cat(network.noised[:2])  # what the four slabs began with
    slabs = [
        SOLVERS["ddim"](
            lambda x, t, s=s: answer_by_place(x, cut(SOURCE, [s]), t),
            own[None],
            chain("ddim", 4),
            schedule=SCHEDULE,
        )[0]
        for s, own in zip(starts, first, strict=True)
    ]
    torch.testing.assert_close(found, naive_fusion(slabs, starts), rtol=1e-4, atol=1e-5)
    every_step = volumes(StandIn(answer_by_place), steps=4, hop=2).sample(SOURCE, None, generator=draws())
    assert (found - every_step).abs().max() > 0.01


class TestNoise:
    def begun(self, noise: str, planes: str = "axial") -> Tensor:
        """What the denoiser is given first: the slabs 0, 1, 2, ..."""
        network = StandIn()
        volumes(network, steps=1, hop=1, fusion="end", noise=noise, planes=planes).sample(
            SOURCE, None, generator=draws()
        )
        return network.noised[0]

    @pytest.mark.parametrize("plane", SLICE_AXIS)
    def test_volume_shares_one(self, plane: str) -> None:
        slabs = self.begun("volume", plane)
        assert torch.equal(slabs, cut(NOISE.movedim(SLICE_AXIS[plane], 0), range(len(slabs))))
        assert torch.equal(slabs[0, 1:], slabs[1, :-1])

    def test_slab_has_its_own(self) -> None:
        slabs = self.begun("slab")
        assert slabs.std().item() == pytest.approx(1, abs=0.1)
        together = torch.corrcoef(torch.stack([slabs[:-1, 1:].flatten(), slabs[1:, :-1].flatten()]))
        assert together[0, 1].abs() < 0.15  # 600 pairs: 3.7 standard errors

    def test_samples_differ_and_the_first_is_the_single_one(self) -> None:
        translator = volumes(StandIn(), steps=2, hop=2)
        several = list(translator.samples(SOURCE, None, generators=[draws(i) for i in range(3)]))
        assert torch.equal(several[0], translator.sample(SOURCE, None, generator=draws()))
        for i in range(3):
            assert torch.equal(several[i], translator.sample(SOURCE, None, generator=draws(i)))
            assert (several[i] - several[i - 1]).abs().max() > 0.01


class TestAntitheticPair:
    def test_is_the_mean_of_a_noise_and_its_negative(self) -> None:
        network = StandIn()
        volumes(network, steps=1, hop=2, antithetic=True).sample(SOURCE, None, generator=draws())
        first, second = network.noised
        assert torch.equal(first, -second)
        assert len(network.read) == 1, "the conditioner reads once for both"

    @pytest.mark.parametrize("fusion", ["every-step", "end"])
    def test_what_is_linear_in_the_noise_cancels_out(self, fusion: str) -> None:
        def linear(x: Tensor, source: Tensor, shown: int) -> Tensor:
            return source + 0.3 * x

        pair = volumes(StandIn(linear), steps=3, hop=2, fusion=fusion, antithetic=True)
        one, other = (pair.sample(SOURCE, None, generator=draws(i)) for i in range(2))
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        alone = volumes(StandIn(linear), steps=3, hop=2, fusion=fusion)
        assert (alone.sample(SOURCE, None, generator=draws()) - one).abs().max() > 0.01

    def test_several_samples_stay_independent(self) -> None:
        pair, alone = (volumes(StandIn(), steps=2, hop=2, samples=2, antithetic=a) for a in (True, False))
        drawn = [[*v.samples(SOURCE, None, generators=[draws(i) for i in range(2)])] for v in (pair, alone)]
        assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))

    @pytest.mark.parametrize(("own", "steps"), [({"antithetic": True}, 6), ({"samples": 4}, 12), ({}, 3)])
    def test_progress_counts_each_chain(self, own: dict, steps: int) -> None:
        translator, seen = volumes(StandIn(), steps=3, hop=2, **own), []
        generators = [draws(i) for i in range(own.get("samples", 1))]
        list(translator.samples(SOURCE, None, generators=generators, on_step=lambda: seen.append(1)))
        assert len(seen) == translator.network_steps == steps


class TestPlanes:
    @staticmethod
    def telling(x: Tensor, source: Tensor, shown: int) -> Tensor:
        """Tell planes apart by the slices' pixels: axial 1, sagittal 2, coronal 6."""
        return torch.full_like(x, {(6, 10): 1.0, (8, 10): 2.0, (8, 6): 6.0}[tuple(x.shape[-2:])])

    @pytest.mark.parametrize("fusion", ["every-step", "end"])
    @pytest.mark.parametrize(("planes", "value"), [("axial", 1), ("sagittal", 2), ("coronal", 6), ("all", 3)])
    def test_all_is_the_mean_of_the_three(self, fusion: str, planes: str, value: float) -> None:
        translator = volumes(StandIn(self.telling), steps=2, hop=2, planes=planes, fusion=fusion)
        found = translator.sample(SOURCE, None, generator=draws())
        torch.testing.assert_close(found, torch.full_like(SOURCE, value), rtol=1e-5, atol=1e-5)

    def test_at_every_step_the_mean_goes_on(self) -> None:
        network = StandIn(self.telling)
        volumes(network, steps=2, hop=3, planes="all", batch_slabs=16).sample(SOURCE, None, generator=draws())
        a, b = SCHEDULE.alphas_cumprod[[990, 0]]
        second = (
            b**0.5 * 3 + (1 - b) ** 0.5 * (NOISE - a**0.5 * 3) / (1 - a) ** 0.5
        ).float()  # DDIM with x_0 = 3
        torch.testing.assert_close(network.noised[3][0], second[:SLICES], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("planes", PLANES)
    def test_preview_in_every_plane(self, planes: str) -> None:
        network = StandIn()
        found = volumes(network, hop=2, planes=planes, start=500).preview(SOURCE)
        torch.testing.assert_close(found, SOURCE / 2, rtol=1e-5, atol=1e-6)
        assert network.noised == []


@pytest.mark.parametrize("fusion", ["every-step", "end"])
def test_shortened_chain_begins_with_the_noised_preview(fusion: str) -> None:
    network = StandIn()
    volumes(network, steps=3, start=300, hop=SLICES, fusion=fusion, batch_slabs=9).sample(
        SOURCE, None, generator=draws()
    )
    a = SCHEDULE.alphas_cumprod[300]
    wanted = (a**0.5 * SOURCE / 2 + (1 - a) ** 0.5 * NOISE).float()
    torch.testing.assert_close(network.noised[0], cut(wanted, [0, 3, 5]), rtol=1e-5, atol=1e-6)
    assert network.shown == [300, 150, 0]


@pytest.mark.parametrize(("published", "wanted"), [(True, range(99, -1, -1)), (False, range(990, -1, -10))])
def test_published_timesteps_are_the_numbers_of_the_steps(published: bool, wanted: range) -> None:
    network = StandIn()
    volumes(network, steps=100, hop=SLICES, published_timesteps=published).sample(
        SOURCE, None, generator=draws()
    )
    assert network.shown == list(wanted)


@pytest.mark.parametrize("fusion", ["every-step", "end"])
@pytest.mark.parametrize(("quantile", "wanted"), [(0.0, [-4.0, 0.5, 9.0]), (0.99, [-4.0, 0.5, 4.0])])
def test_x0_is_clipped_dynamically(fusion: str, quantile: float, wanted: list[float]) -> None:
    def loud(x: Tensor, source: Tensor, shown: int) -> Tensor:
        return source

    source = torch.full((6, 10, 10), 0.5)
    source[:, 0] = -4.0  # 60 of 600 voxels; one voxel is louder
    source[5, 9, 9] = 9.0
    translator = volumes(StandIn(loud), steps=2, hop=SLICES, fusion=fusion, clip_quantile=quantile)
    found = translator.sample(source, None, generator=draws())
    torch.testing.assert_close(
        torch.stack([found[0, 0, 0], found[0, 5, 5], found[5, 9, 9]]), torch.tensor(wanted)
    )


@pytest.mark.parametrize("planes", ["axial", "all"])
@pytest.mark.parametrize("fusion", ["every-step", "end"])
def test_progress_counts_the_steps_that_were_announced(fusion: str, planes: str) -> None:
    counted: list[int] = []
    translator = volumes(StandIn(), steps=3, hop=2, batch_slabs=2, fusion=fusion, planes=planes)
    list(translator.samples(SOURCE, None, generators=[draws()], on_step=lambda: counted.append(1)))
    assert len(counted) == translator.network_steps


def test_every_slab_is_told_the_clinical_vector() -> None:
    network, clinical = StandIn(), torch.tensor([0.5, -1.0])
    volumes(network, steps=1, hop=1, batch_slabs=4).sample(SOURCE, clinical, generator=draws())
    assert [given.tolist() for given in network.clinical] == [[[0.5, -1.0]] * 4, [[0.5, -1.0]] * 2]
