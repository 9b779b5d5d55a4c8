# SPDX-License-Identifier: Apache-2.0
"""The two arms: their shapes, their exchange, and that every weight learns."""

import pytest
import torch

from pasta_model.network.dual_arm import Direction, DualArm
from pasta_model.network.unet import Arm
from pasta_model.sections import NetworkSettings

BOTH = list(Direction)


def make(size: str = "tiny", *, random: bool = True, **more) -> DualArm:
    """A network, by default with every weight different from zero."""
    network = DualArm(NetworkSettings(size=size, **more), clinical_values=9)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if random or parameter.any():
                spread = 0.5 * max(1, parameter[0].numel()) ** -0.5 if parameter.ndim > 1 else 0.1
                parameter.copy_(
                    spread * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1)
                )
    return network


def inputs(batch: int = 2, size: int = 16) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    source, noised = (torch.randn(batch, 15, size, size, generator=generator) for _ in range(2))
    return {
        "source": source,
        "noised": noised,
        "t": torch.tensor([10, 990] * batch)[:batch],
        "clinical": torch.randn(batch, 9, generator=generator),
    }


def translate(network: DualArm, direction: Direction, **v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    conditioning = network.condition(v["source"], direction=direction)
    x0 = network.denoise(v["noised"], v["t"], conditioning, v["clinical"], direction=direction)
    return x0, conditioning.preview


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("direction", BOTH)
def test_shapes(size: str, direction: Direction) -> None:
    x0, preview = translate(make(size), direction, **inputs(1))
    assert x0.shape == preview.shape == (1, 15, 16, 16)


@pytest.mark.parametrize("direction", BOTH)
def test_fresh_network_says_nothing(direction: Direction) -> None:
    for found in translate(DualArm(NetworkSettings(), clinical_values=9), direction, **inputs()):
        assert not found.any()


def test_places_are_exchanged_and_no_weight_is_added() -> None:
    network = make()
    there, back = BOTH
    assert network.denoiser(there) is network.conditioner(back)
    assert network.conditioner(there) is network.denoiser(back)
    assert network.denoiser(there) is not network.conditioner(there)
    of_arms = {id(p) for arm in (network.pet_arm, network.mri_arm) for p in arm.parameters()}
    assert {id(p) for p in network.parameters()} == of_arms


def gradients(network: DualArm, *directions: Direction) -> set[str]:
    for direction in directions:
        x0, preview = translate(network, direction, **inputs())
        (x0.square().mean() + preview.square().mean()).backward()
    return {n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("size", ["tiny", "small"])
@pytest.mark.parametrize("both", [True, False])
def test_gradients_reach_every_weight(size: str, both: bool) -> None:
    network = make(size, clinical_both_directions=both)
    assert gradients(network, *BOTH) == {name for name, _ in network.named_parameters()}


def test_one_direction_does_not_reach_what_only_the_other_uses() -> None:
    network = make()
    silent = {n for n, _ in network.named_parameters()} - gradients(network, Direction.MRI_TO_PET)
    # The conditioner sees neither time nor clinical data.
    assert silent == {
        n for n, _ in network.named_parameters() if n.startswith("mri_arm") and ".time." in f".{n}"
    }


def test_clinical_networks_are_in_both_arms_only_when_asked() -> None:
    def having(network: DualArm) -> set[str]:
        return {n.split(".")[0] for n, _ in network.named_parameters() if ".clinical." in n}

    assert having(make()) == {"pet_arm"}
    assert having(make(clinical_both_directions=True)) == {"pet_arm", "mri_arm"}


@pytest.mark.parametrize("name", ["source", "noised", "t", "clinical"])
def test_every_input_matters(name: str) -> None:
    network, values = make(), inputs()
    before, _ = translate(network, Direction.MRI_TO_PET, **values)
    after, _ = translate(network, Direction.MRI_TO_PET, **values | {name: values[name].flip(0)})
    assert not torch.allclose(before, after, atol=1e-3)


def test_slabs_of_a_batch_do_not_see_each_other() -> None:
    network, values = make(), inputs()
    together, _ = translate(network, Direction.MRI_TO_PET, **values)
    alone, _ = translate(network, Direction.MRI_TO_PET, **{k: v[1:] for k, v in values.items()})
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-4)


class TestFeatures:
    def test_published_network_has_37_maps(self) -> None:
        with torch.device("meta"):
            arm = Arm(NetworkSettings(size="base"), clinical_values=0)
            preview, features = arm(torch.empty(1, 15, 96, 112))
        assert preview.shape == (1, 15, 96, 112)
        assert len(features) == 16 + 1 + 20
        shapes = [tuple(f.shape[1:]) for f in features]
        # Down: 4 blocks a level, widths 64 to 256; up: 5 a level, the other way round.
        down = [(64 * m, 96 // s, 112 // s) for m, s in zip((1, 2, 3, 4), (1, 2, 4, 8), strict=True)]
        assert shapes[:16] == [shape for shape in down for _ in range(4)]
        assert shapes[16] == down[-1]
        assert shapes[17:] == [shape for shape in reversed(down) for _ in range(5)]

    @pytest.mark.parametrize("size", ["tiny", "small"])
    def test_each_map_gates_its_own_block(self, size: str) -> None:
        network = make(size)
        arm = network.pet_arm
        features = network.condition(inputs(1)["source"], direction=Direction.MRI_TO_PET).features
        blocks = [b.block for level in arm.down for b in level.blocks]
        blocks += [arm.middle_in, arm.middle_out]
        blocks += [b.block for level in arm.up for b in level.blocks]
        given: list[torch.Tensor] = []
        hooks = [b.register_forward_pre_hook(lambda _, args: given.append(args[2])) for b in blocks]
        arm(inputs(1)["noised"], features=features)
        for hook in hooks:
            hook.remove()
        middle = len(arm.down) * network.settings.resolved.blocks
        wanted = [*features[: middle + 1], *features[middle:]]  # the middle map serves both blocks
        assert [id(tensor) for tensor in given] == [id(tensor) for tensor in wanted]


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_memory_layout_does_not_change_the_result(size: str) -> None:
    network, values = make(size), inputs(1)
    plain, _ = translate(network, Direction.MRI_TO_PET, **values)
    network.to(memory_format=torch.channels_last)
    for name in ("source", "noised"):
        values[name] = values[name].contiguous(memory_format=torch.channels_last)
    last, _ = translate(network, Direction.MRI_TO_PET, **values)
    torch.testing.assert_close(plain, last, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_bfloat16_is_near_float32(size: str) -> None:
    network, values = make(size), inputs(1)
    exact, _ = translate(network, Direction.MRI_TO_PET, **values)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, _ = translate(network, Direction.MRI_TO_PET, **values)
    error = (rough.float() - exact).abs().mean() / exact.abs().mean()
    assert 0 < error < 0.05
