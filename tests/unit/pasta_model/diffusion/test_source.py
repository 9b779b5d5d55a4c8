# SPDX-License-Identifier: Apache-2.0
"""A source volume in slabs: read once where memory allows, the same result where it does not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pasta_model.data.planes import SLICE_AXIS
from pasta_model.diffusion.fusion import (
    cut,
    from_plane,
    fuse,
    fusion_weights,
    slab_starts,
    to_plane,
)
from pasta_model.diffusion.source import bytes_of
from pasta_model.errors import VolumeError
from pasta_model.network.dual_arm import Direction
from tests.support.standins import SHAPE, SLICES, SMALL, StandIn, draws, random_network, volumes

SOURCE = torch.rand(8, 6, 10, generator=draws(7)) * 2 - 1  # (z, x, y), all sides different
FORTH = Direction.MRI_TO_PET
PLANES = st.sampled_from(["axial", "coronal", "sagittal", "all"])


@pytest.mark.parametrize(("plane", "size"), [("axial", 8), ("sagittal", 6), ("coronal", 10)])
def test_planes_cut_across_their_own_axis(plane: str, size: int) -> None:
    turned = to_plane(SOURCE, plane)
    assert len(turned) == size
    assert torch.equal(
        turned[2], {"axial": SOURCE[2], "sagittal": SOURCE[:, 2], "coronal": SOURCE[:, :, 2]}[plane]
    )
    assert torch.equal(from_plane(turned, plane), SOURCE)


@given(st.integers(1, 3), st.sampled_from(list(SLICE_AXIS)))
def test_slabs_of_a_volume_fuse_to_that_volume_in_every_plane(hop: int, plane: str) -> None:
    turned = to_plane(SOURCE, plane)
    starts = slab_starts(len(turned), SLICES, hop)
    weights = torch.from_numpy(fusion_weights(len(turned), SLICES, starts))
    back = from_plane(fuse(cut(turned, starts, SLICES), starts, weights), plane)
    torch.testing.assert_close(back, SOURCE, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("memory", "readings"), [(1.0, 1), (0.0, 1 + 4)])
def test_conditioner_reads_once_when_memory_allows(memory: float, readings: int) -> None:
    network = StandIn()
    volumes(network, steps=4, hop=2, batch_slabs=2, memory=memory).sample(SOURCE, None, generator=draws())
    assert slab_starts(8, SLICES, 2) == [0, 2, 4, 5]
    assert [len(read) for read in network.read] == [2, 2] * readings
    assert torch.equal(torch.cat(network.read[:2])[2], SOURCE[4:7])


def test_several_samples_share_one_reading() -> None:
    network = StandIn()
    list(volumes(network, steps=2, hop=3).samples(SOURCE, None, generators=[draws(i) for i in range(3)]))
    assert len(network.read) == 1
    assert len(network.noised) == 3 * 2


@pytest.mark.parametrize("memory", [0.0, 5e-5, 2.0])  # 50 kB hold some batches
@pytest.mark.parametrize("batch_slabs", [1, 3, 16])
def test_memory_and_batch_do_not_change_the_result(memory: float, batch_slabs: int) -> None:
    wanted, found = (
        volumes(random_network(), steps=3, hop=1, planes="all", **words).sample(
            SOURCE, torch.ones(4), generator=draws()
        )
        for words in ({"memory": 1.0}, {"memory": memory, "batch_slabs": batch_slabs})
    )
    assert wanted.std() > 0.05
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@given(st.integers(0, 40_000), st.integers(1, 3), st.integers(1, 9), PLANES)
def test_kept_features_never_exceed_the_memory(limit: int, hop: int, batch_slabs: int, planes: str) -> None:
    network = StandIn()
    translator = volumes(network, hop=hop, batch_slabs=batch_slabs, planes=planes, memory=limit / 1e9)
    read = translator._read(SOURCE, FORTH)
    held = [conditioning for slabs in read for conditioning in slabs._kept.values()]
    kept = sum(slabs.kept_bytes for slabs in read)
    assert kept == sum(bytes_of(conditioning) for conditioning in held) <= limit
    # Whatever was not kept would not have fitted any more.
    sizes = [2 * batch.nbytes for batch in network.read]  # a map and a preview, each as large as the slab
    assert len(held) == len(sizes) or kept + max(sizes) > limit


@pytest.mark.parametrize(("spare", "held"), [(0, 6), (-1, 5), (-1440, 5), (-1441, 4)])
def test_memory_is_used_to_the_last_byte(spare: int, held: int) -> None:
    # Six slabs of 3 x 6 x 10 float32, a map and a preview each: 1,440 bytes a slab.
    memory = (6 * 1440 + spare + 0.5) / 1e9
    (slabs,) = volumes(StandIn(), hop=1, batch_slabs=1, memory=memory)._read(SOURCE, FORTH)
    assert len(slabs._kept) == held
    assert slabs.kept_bytes == held * 1440


def test_bytes_are_those_of_all_maps() -> None:
    with torch.inference_mode():
        conditioning = random_network().condition(torch.zeros(2, SLICES, 6, 10), direction=FORTH)
    # Two levels, one block down and two up, one map for the middle; float32.
    full, half = 2 * 8 * 6 * 10, 2 * 16 * 3 * 5
    assert bytes_of(conditioning) == 4 * (3 * full + 4 * half + 2 * SLICES * 6 * 10)


@pytest.mark.parametrize(
    ("plane", "shape"),
    [("axial", (4, 6, 5)), ("sagittal", (5, 4, 6)), ("coronal", (6, 5, 4)), ("all", (4, 4, 5))],
)
def test_pixels_that_do_not_fit_the_network_are_refused(plane: str, shape: tuple[int, ...]) -> None:
    translator = volumes(random_network(), steps=1, hop=1, planes=plane)
    with pytest.raises(VolumeError, match="multiples of 2"):
        translator.sample(torch.zeros(shape), None, generator=draws())
    with pytest.raises(VolumeError, match="multiples of 2"):
        translator.preview(torch.zeros(shape))


@pytest.mark.parametrize(
    ("plane", "shape"), [("axial", (5, 6, 4)), ("sagittal", (4, 5, 6)), ("coronal", (6, 4, 5))]
)
def test_any_number_of_slices_fits_the_network(plane: str, shape: tuple[int, ...]) -> None:
    found = volumes(random_network(), steps=1, hop=2, planes=plane).sample(
        torch.zeros(shape), None, generator=draws()
    )
    assert found.shape == shape


@pytest.mark.parametrize("plane", ["axial", "sagittal", "coronal"])
def test_volume_thinner_than_a_slab_is_refused(plane: str) -> None:
    shape = [6, 6, 6]
    shape[SLICE_AXIS[plane]] = 2
    with pytest.raises(VolumeError, match="2 slices is thinner than a slab of 3"):
        volumes(StandIn(), planes=plane, hop=1).sample(torch.zeros(shape), None, generator=draws())


def test_source_slabs_are_those_of_the_plane() -> None:
    network = StandIn()
    volumes(network, hop=3, planes="coronal", batch_slabs=8).preview(SOURCE)
    (read,) = network.read
    wanted: list[Tensor] = [SOURCE[:, :, s : s + SLICES].permute(2, 0, 1) for s in (0, 3, 6, 7)]
    assert torch.equal(read, torch.stack(wanted))


def test_stand_ins_have_the_sizes_that_the_tests_assume() -> None:
    assert StandIn(shape=SHAPE).settings.resolved.pixel_multiple == 1
    assert StandIn(shape=SMALL).settings.resolved.pixel_multiple == 2
