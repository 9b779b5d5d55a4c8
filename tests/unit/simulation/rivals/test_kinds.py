# SPDX-License-Identifier: Apache-2.0
"""What each rival learns from: losses by hand, and whose weights a turn moves."""

import pytest
import torch
from skimage.metrics import structural_similarity
from torch.nn import functional as F

from pasta_model.data.slabs import Batch
from pasta_model.errors import ConfigError
from pasta_model.seeding import torch_generator
from simulation.rivals.kinds import L1_WEIGHT, RIVALS, likeness_loss, new_translator, rival_of, seeded

SLAB = (2, 5, 48, 56)


def batch_of(settings) -> Batch:
    draw = torch.Generator().manual_seed(5)
    mri, pet = (torch.rand(SLAB, generator=draw) * 2 - 1 for _ in range(2))
    return Batch(mri, pet, torch.zeros(SLAB), torch.randn(2, 9, generator=draw))


def turns_of(name, settings):
    rival = RIVALS[name]
    translator = new_translator(rival, settings)
    return translator, {turn.name: turn for turn in rival.turns(translator, settings)}


def pet_made(translator, batch, *, stream=1):
    """What the network makes of a batch, computed apart from the losses."""
    draw = torch_generator(stream)
    times = translator.schedule.sample_timesteps(len(batch.pet), generator=draw)
    noise = torch.randn(batch.pet.shape, generator=draw)
    unet = translator.network.unet
    maps = batch.clinical[:, :, None, None].expand(-1, -1, *SLAB[2:])
    if translator.network.__class__.__name__ == "OnePass":
        return unet(torch.cat([batch.mri, maps], dim=1))
    a = torch.from_numpy(translator.schedule.alphas_cumprod)[times].float()[:, None, None, None]
    noised = a.sqrt() * batch.pet + (1 - a).sqrt() * noise
    tokens = torch.cat([torch.eye(9).expand(2, 9, 9), batch.clinical[:, :, None]], dim=2)
    folded = F.pixel_unshuffle(torch.cat([noised, batch.mri], dim=1), 4)
    return F.pixel_shuffle(unet(folded, times, tokens), 4)


def shaken(network):
    """Weights that are nowhere zero, as after some training."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=draw))


def test_likeness_is_l1_and_structure_without_weights() -> None:
    draw = torch.Generator().manual_seed(1)
    real, made = (torch.rand(1, 1, 24, 28, generator=draw) * 2 - 1 for _ in range(2))
    similarity = structural_similarity(
        real[0, 0].numpy(), made[0, 0].numpy(), data_range=2.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, win_size=11,
    )  # fmt: skip
    wanted = (real - made).abs().mean().item() + 1 - similarity
    assert likeness_loss(real, made).item() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("name", ["U-Net", "concatenation"])
def test_loss_is_that_of_the_network_on_the_slabs(name, quick) -> None:
    settings = quick()
    translator, turns = turns_of(name, settings)
    shaken(translator.network)
    batch = batch_of(settings)
    with torch.no_grad():
        found = turns["network"].loss(batch, torch_generator(1))
        wanted = likeness_loss(batch.pet, pet_made(translator, batch))
    assert list(turns) == ["network"]
    torch.testing.assert_close(found, wanted)


def test_adversarial_losses_are_those_of_the_paper(quick) -> None:
    settings = quick()
    translator, turns = turns_of("pix2pix", settings)
    assert list(turns) == ["critic", "network"], "the critic's turn comes first"
    batch, judge = batch_of(settings), turns["critic"].network
    with torch.no_grad():
        made = pet_made(translator, batch)
        yes, no = (judge(torch.cat([batch.mri, pet], dim=1))[-1] for pet in (batch.pet, made))
        entropy = F.binary_cross_entropy_with_logits
        critical = turns["critic"].loss(batch, torch_generator(1))
        generative = turns["network"].loss(batch, torch_generator(1))
    wanted = (entropy(yes, torch.ones_like(yes)) + entropy(no, torch.zeros_like(no))) / 2
    torch.testing.assert_close(critical, wanted)
    distance = (batch.pet - made).abs().mean()
    torch.testing.assert_close(L1_WEIGHT * generative, entropy(no, torch.ones_like(no)) + 100 * distance)


def test_each_turn_moves_its_own_network_only(quick) -> None:
    settings = quick()
    _, turns = turns_of("pix2pix", settings)
    for name, other in (("critic", "network"), ("network", "critic")):
        for turn in turns.values():
            turn.network.zero_grad(set_to_none=True)
        turns[name].loss(batch_of(settings), torch_generator(1)).backward()
        assert all(p.grad is not None for p in turns[name].network.parameters())
        assert all(p.grad is None for p in turns[other].network.parameters())
        assert all(p.requires_grad for p in turns[other].network.parameters())


def test_initial_weights_follow_the_seed_and_leave_the_global_stream_alone(quick) -> None:
    before = torch.get_rng_state()
    one, same = (new_translator(RIVALS["U-Net"], quick()).network for _ in range(2))
    other = new_translator(RIVALS["U-Net"], quick(run__seed=5)).network
    assert torch.equal(before, torch.get_rng_state())
    name = "unet.final_conv.weight"
    weights = [network.state_dict()[name] for network in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    twins = [seeded(quick(), stream, lambda: torch.nn.Linear(3, 3)).weight for stream in ("a", "b")]
    assert not torch.equal(*twins), "streams of other names are independent"


def test_unknown_rival_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"'CycleGAN'; wanted one of U-Net, concatenation, pix2pix"):
        rival_of("CycleGAN")
    assert all(rival_of(name).name == name for name in RIVALS)


def test_absent_device_is_refused(quick, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' is not on this machine"):
        new_translator(RIVALS["U-Net"], quick(training__device="cuda"))
