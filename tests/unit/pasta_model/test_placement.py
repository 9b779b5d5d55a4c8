# SPDX-License-Identifier: Apache-2.0
"""Where and how a network computes: bfloat16 only where it is fast, layouts and casts as asked."""

import pytest
import torch
from torch import nn

from pasta_model.errors import ConfigError
from pasta_model.placement import cast_convolutions, check_device, compute_dtype, has_bfloat16, place
from pasta_model.sections import TrainingSettings
from tests.support.standins import SLICES, random_network

FULL = {
    "avx2": True,
    "avx512_f": True,
    "amx_int8": True,
    "avx512_bf16": False,
    "amx_bf16": False,
    "arm_bf16": False,
}


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch):
    """Pretend to be a processor that has these units besides the usual ones."""
    return lambda **units: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: FULL | units)


class TestAuto:
    @pytest.mark.parametrize("unit", ["amx_bf16", "avx512_bf16"])
    def test_is_bfloat16_on_a_processor_with_units_for_it(self, cpu, unit: str) -> None:
        cpu(**{unit: True})
        assert has_bfloat16("cpu")
        assert compute_dtype("auto", "cpu") == torch.bfloat16

    def test_is_float32_on_any_other(self, cpu, monkeypatch: pytest.MonkeyPatch) -> None:
        cpu()
        assert compute_dtype("auto", "cpu") == torch.float32
        monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
        assert compute_dtype("auto", "cpu") == torch.float32

    @pytest.mark.parametrize(("able", "wanted"), [(True, torch.bfloat16), (False, torch.float32)])
    def test_on_a_gpu_emulation_does_not_count(
        self, monkeypatch, cpu, able: bool, wanted: torch.dtype
    ) -> None:
        cpu(amx_bf16=not able)  # the processor beside it has no say
        asked: list[bool] = []

        def supported(including_emulation: bool = True) -> bool:
            asked.append(including_emulation)
            return able

        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        assert compute_dtype("auto", "cuda:0") == wanted
        assert asked == [False]

    def test_on_apples_gpu_is_float32(self, cpu) -> None:
        cpu(arm_bf16=True)
        assert compute_dtype("auto", "mps") == torch.float32


@pytest.mark.parametrize("units", [{}, {"amx_bf16": True}])
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_what_is_asked_for_by_name_is_given(cpu, units: dict[str, bool], device: str) -> None:
    cpu(**units)
    assert compute_dtype("bfloat16", device) == torch.bfloat16
    assert compute_dtype("float32", device) == torch.float32


def test_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"training\.device 'cuda:1' is not on this machine"):
        check_device("cuda:1")
    check_device("cpu")


@pytest.mark.parametrize("channels_last", [True, False])
def test_weights_lie_as_configured(channels_last: bool) -> None:
    network = place(random_network(), TrainingSettings(channels_last=channels_last))
    weight = network.pet_arm.down[0].blocks[0].block.in_conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert weight.is_contiguous() is not channels_last


@pytest.mark.parametrize("checkpointing", [True, False])
def test_both_arms_are_prepared(checkpointing: bool) -> None:
    network = place(random_network(), TrainingSettings(checkpointing=checkpointing))
    assert network.pet_arm.checkpointing is network.mri_arm.checkpointing is checkpointing


def test_compilation_is_an_option_that_keeps_the_names_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def note(self: nn.Module) -> None:
        compiled.append(self)

    monkeypatch.setattr(nn.Module, "compile", note)
    network = random_network()
    names = list(network.state_dict())
    assert list(place(network, TrainingSettings(compile=True)).state_dict()) == names
    assert compiled == [network.pet_arm, network.mri_arm]
    place(network, TrainingSettings())
    assert len(compiled) == 2


def test_convolutions_are_cast_and_nothing_else() -> None:
    network = random_network()
    cast_convolutions(network, torch.bfloat16)
    for module in network.modules():
        wanted = torch.bfloat16 if isinstance(module, nn.Conv1d | nn.Conv2d) else torch.float32
        assert {p.dtype for p in module.parameters(recurse=False)} <= {wanted}


def test_cast_weights_hardly_change_the_prediction() -> None:
    source = torch.randn(1, SLICES, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact, _ = random_network().pet_arm(source)
        network = random_network()
        cast_convolutions(network, torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough, _ = network.pet_arm(source)
    error = ((rough.float() - exact).norm() / exact.norm()).item()
    assert 0 < error < 0.05
