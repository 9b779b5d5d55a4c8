# SPDX-License-Identifier: Apache-2.0
"""Slabs to volumes: nothing is lost, nothing is counted twice, nothing is left to chance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pasta_model.diffusion.cycle import Translator
from pasta_model.diffusion.fusion import fuse, fusion_weights, slab_starts
from pasta_model.diffusion.schedule import Schedule
from pasta_model.diffusion.volumes import VolumeTranslator
from pasta_model.errors import PastaError, VolumeError
from pasta_model.network.dual_arm import Conditioning, Direction, DualArm
from pasta_model.sections import DiffusionSettings, NetworkSettings, SamplingSettings

SIZES = st.integers(1, 16).flatmap(
    lambda slab: st.tuples(st.integers(slab, 60), st.just(slab), st.integers(1, slab))
)


@given(SIZES)
def test_partition_of_unity(sizes: tuple[int, int, int]) -> None:
    slices, slab, hop = sizes
    starts = slab_starts(slices, slab, hop)
    weights = fusion_weights(slices, slab, starts)
    assert weights.min() > 0  # every prediction counts
    total = np.zeros(slices)
    for start, weight in zip(starts, weights, strict=True):
        assert start + slab <= slices
        total[start : start + slab] += weight
    np.testing.assert_allclose(total, 1, atol=1e-5)


@given(SIZES)
def test_slabs_that_agree_fuse_to_what_they_say(sizes: tuple[int, int, int]) -> None:
    slices, slab, hop = sizes
    starts = slab_starts(slices, slab, hop)
    volume = torch.randn(slices, 2, 3, generator=torch.Generator().manual_seed(0))
    slabs = torch.stack([volume[s : s + slab] for s in starts])
    weights = torch.from_numpy(fusion_weights(slices, slab, starts))
    torch.testing.assert_close(fuse(slabs, starts, weights), volume, rtol=1e-4, atol=1e-5)
    constant = fuse(torch.full_like(slabs, 0.25), starts, weights)
    torch.testing.assert_close(constant, torch.full_like(volume, 0.25))


def test_starts_by_hand() -> None:
    assert slab_starts(48, 15, 7) == [0, 7, 14, 21, 28, 33]
    assert slab_starts(15, 15, 7) == [0]
    assert len(slab_starts(96, 15, 1)) == 82


def test_weights_by_hand() -> None:
    # Slabs of 3 at 0 and 2 of 5 slices: the triangle is (1/2, 1, 1/2); slice 2 is shared evenly.
    np.testing.assert_allclose(fusion_weights(5, 3, [0, 2]), [[1, 1, 0.5], [0.5, 1, 1]])


def test_middle_of_a_slab_counts_more_than_its_rim() -> None:
    first, *_ = fusion_weights(48, 15, slab_starts(48, 15, 2))[5:]
    assert first.argmax() == 7
    assert first[7] > 3 * first[0] > 0


def test_volume_thinner_than_a_slab() -> None:
    with pytest.raises(VolumeError, match="14 slices is thinner than a slab of 15"):
        slab_starts(14, 15, 1)


def test_hop_that_leaves_slices_out_is_refused() -> None:
    with pytest.raises(PastaError, match="hop"):
        slab_starts(48, 15, 16)


class Knowing(DualArm):
    """A network that knows the answer: each slab's first pixel says where it lies."""

    def __init__(self, known: torch.Tensor) -> None:
        super().__init__(NetworkSettings(), clinical_values=0)
        self.known = known
        self.batches: list[int] = []
        self.timesteps: list[int] = []

    def condition(self, source, *, direction):
        starts = source[:, 0, 0, 0].round().long().tolist()
        slabs = torch.stack([self.known[s : s + 15] for s in starts])
        return Conditioning([slabs], slabs + 1)

    def denoise(self, noised, timesteps, conditioning, clinical, *, direction):
        self.batches.append(len(noised))
        self.timesteps.append(int(timesteps[0]))
        assert len(set(timesteps.tolist())) == 1
        assert clinical is None or clinical.shape == (len(noised), 4)
        return conditioning.features[0]


class TestSample:
    known = torch.randn(30, 4, 4, generator=torch.Generator().manual_seed(2))
    source = torch.arange(30.0)[:, None, None].expand(30, 4, 4)

    def run(self, **settings: int) -> tuple[VolumeTranslator, Knowing]:
        network = Knowing(self.known)
        translator = Translator(network, Schedule(DiffusionSettings()))
        return VolumeTranslator(translator, SamplingSettings(**{"antithetic": False} | settings)), network

    @pytest.mark.parametrize(("steps", "hop", "batch"), [(1, 7, 16), (3, 4, 2), (5, 15, 1)])
    def test_network_that_knows_the_volume(self, steps: int, hop: int, batch: int) -> None:
        volumes, network = self.run(steps=steps, hop=hop, batch_slabs=batch)
        found = volumes.sample(self.source, torch.zeros(4), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(found, self.known, rtol=1e-4, atol=1e-5)
        assert found.dtype == torch.float32
        assert max(network.batches) <= batch
        assert sum(network.batches) == steps * len(slab_starts(30, 15, hop))
        trained = volumes.translator.schedule.timesteps.tolist()
        assert list(dict.fromkeys(network.timesteps)) == volumes.translator.schedule.sampling_timesteps(steps)
        assert set(network.timesteps) <= set(trained)

    def test_preview_is_the_conditioners_own(self) -> None:
        volumes, network = self.run(hop=4, batch_slabs=3)
        torch.testing.assert_close(volumes.preview(self.source), self.known + 1, rtol=1e-4, atol=1e-4)
        assert network.batches == []

    def test_overlapping_slabs_share_one_noise(self) -> None:
        volumes, network = self.run(steps=1, hop=3, batch_slabs=2)
        seen: list[torch.Tensor] = []
        network.denoise = lambda noised, *args, **kwargs: seen.append(noised) or noised
        found = volumes.sample(self.source, None, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(30, 4, 4, generator=torch.Generator().manual_seed(0))
        for start, slab in zip(slab_starts(30, 15, 3), torch.cat(seen), strict=True):
            assert torch.equal(slab, noise[start : start + 15])
        torch.testing.assert_close(found, noise, rtol=1e-4, atol=1e-4)


def test_sample_follows_the_generator_and_needs_no_gradient() -> None:
    network = DualArm(NetworkSettings(), clinical_values=9)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(0))
    volumes = VolumeTranslator(
        Translator(network, Schedule(DiffusionSettings())), SamplingSettings(steps=2, hop=8, batch_slabs=2)
    )
    source = torch.rand(20, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def sample(seed: int, direction: Direction = Direction.MRI_TO_PET) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return volumes.sample(source, torch.ones(9), direction=direction, generator=generator)

    assert sample(1).shape == (20, 16, 16)
    assert not sample(1).requires_grad
    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    assert not torch.equal(sample(1), sample(1, Direction.PET_TO_MRI))
