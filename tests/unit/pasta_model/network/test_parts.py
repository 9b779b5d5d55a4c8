# SPDX-License-Identifier: Apache-2.0
"""Parts of the network: every parameter is in those parts, and only in those, that one expects."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pasta_model.checkpoint import exchanged_layout, kept_layout, network_layout, new_network, new_translator
from pasta_model.config import Settings
from pasta_model.errors import ConfigError
from pasta_model.network.dual_arm import Direction
from pasta_model.network.parts import PARTS, members, part_names
from pasta_model.training import make_optimizer

SHAPE = "slices 5, width 8, multipliers 1-2, blocks 1, attention 2, heads 2, groups 4, patch 1"
ATTENTIVE = {"network__shape": SHAPE, "sampling__hop": 4, "network__adapter_rank": 2}


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings(**ATTENTIVE)


def of_modules(settings: Settings) -> dict[str, set[str]]:
    """The parts as the modules say it, not their names."""
    network = new_network(settings)
    found: dict[str, set[str]] = {part: set() for part in PARTS}
    for path, module in network.named_modules():
        own = {f"{path}.{name}" for name, _ in module.named_parameters(recurse=False)}
        if isinstance(module, nn.GroupNorm):
            found["norms"] |= own
        words = path.split(".")
        place = words[1] if len(words) > 1 else ""
        found["clinical"] |= own if "clinical" in words else set()
        found["time"] |= own if "time" in words else set()
        found["attention"] |= own if re.search("attention", path) else set()
        found["adapters"] |= own if "adapter" in words else set()
        found["stems"] |= own if place == "stem" else set()
        found["heads"] |= own if place in ("head", "head_norm") else set()
        found["encoders"] |= own if place in ("stem", "down") else set()
        found["decoders"] |= own if place in ("up", "head", "head_norm") else set()
        found["pet-arm"] |= own if words[0] == "pet_arm" else set()
        found["mri-arm"] |= own if words[0] == "mri_arm" else set()
    return found


@pytest.mark.parametrize("part", PARTS)
def test_part_is_what_the_modules_say(settings: Settings, part: str) -> None:
    names = [slot.name for slot in network_layout(settings).slots]
    found = members(names, [part])
    assert found == of_modules(settings)[part]
    assert 0 < len(found) < len(names)


def test_arms_are_all_and_nothing_is_in_both(settings: Settings) -> None:
    names = {slot.name for slot in network_layout(settings).slots}
    pet, mri = members(names, ["pet-arm"]), members(names, ["mri-arm"])
    assert pet | mri == names
    assert not pet & mri


def test_clinical_networks_are_in_the_arm_that_is_told(settings: Settings) -> None:
    names = [slot.name for slot in network_layout(settings).slots]
    assert {name.split(".")[0] for name in members(names, ["clinical"])} == {"pet_arm"}


@pytest.mark.parametrize(
    ("text", "wanted"), [("", ()), (" norms ", ("norms",)), ("heads,norms", ("heads", "norms"))]
)
def test_list_of_parts(text: str, wanted: tuple[str, ...]) -> None:
    assert part_names(text) == wanted


@pytest.mark.parametrize("setting", ["exchange.personal", "exchange.frozen"])
@pytest.mark.parametrize("text", ["norm", "norms, hats", "pet_arm"])
def test_unknown_part_is_one_clear_message(make_settings, setting: str, text: str) -> None:
    with pytest.raises(ConfigError) as error:
        make_settings(**{setting: text})
    said = str(error.value)
    assert said.count("\n") <= 1
    assert "parts of the network: norms, clinical" in said
    assert f"(not {text.rsplit(', ', maxsplit=1)[-1]})" in said


def test_part_twice_or_both_personal_and_frozen(make_settings) -> None:
    with pytest.raises(ConfigError, match="each part once"):
        make_settings(exchange__personal="norms, norms")
    with pytest.raises(ConfigError, match="personal or frozen, not both: norms"):
        make_settings(exchange__personal="norms, heads", exchange__frozen="norms")


def test_trained_parts_leave_all_others_frozen(make_settings) -> None:
    own = make_settings(**ATTENTIVE, exchange__trained="norms, adapters", exchange__personal="norms")
    network = new_translator(own).network
    names = dict(network.named_parameters())
    assert {n for n, p in names.items() if p.requires_grad} == members(names, ["norms", "adapters"])
    assert {s.name for s in exchanged_layout(own).slots} == members(names, ["adapters"])
    assert {s.name for s in kept_layout(own).slots} == names.keys() - members(names, ["adapters"])


def test_where_all_is_exchanged_nothing_is_kept(settings: Settings) -> None:
    assert kept_layout(settings).slots == ()
    assert exchanged_layout(settings) == network_layout(settings)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trained": "norms", "frozen": "heads"}, "trained or those that are frozen, not both"),
        ({"trained": "norms, heads", "personal": "heads, time, stems"}, "not trained: stems, time"),
        ({"trained": "norms", "personal": "norms"}, "nothing is left to exchange"),
        ({"trained": "norms, hats"}, r"\(not hats\)"),
        ({"trained": "adapters"}, "network.adapter-rank is 0: there are none"),
        ({"personal": "adapters"}, "network.adapter-rank is 0: there are none"),
    ],
)
def test_impossible_choices_of_trained_parts(make_settings, changes: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_settings(**{f"exchange__{name}": value for name, value in changes.items()})


@pytest.mark.parametrize("trained", [*(p for p in PARTS if p != "pet-arm"), "norms, adapters"])
def test_each_part_can_be_trained_alone(make_settings, trained: str) -> None:
    """The fused optimizer and channels-last kernels take whatever is left without a gradient."""
    own = make_settings(**ATTENTIVE, exchange__trained=trained, training__channels_last=True)
    translator = new_translator(own)
    network = translator.network
    optimizer = make_optimizer(network, own.training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = torch.randn(2, 5, 8, 12).to(memory_format=torch.channels_last)
    for _ in range(2):  # zeros at the start let no gradient through
        optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros(())
        for direction in Direction:
            told = torch.randn(2, 9) if direction is Direction.MRI_TO_PET else None
            read = network.condition(x, direction=direction)
            x0 = network.denoise(x, torch.tensor([3, 500]), read, told, direction=direction)
            loss = loss + (x0 - 1).square().mean()
        if not loss.requires_grad:
            pytest.fail("nothing is trained")
        loss.backward()
        optimizer.step()
    moved = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert moved <= members(before, part_names(trained))


def test_what_is_exchanged_is_the_rest(make_settings, settings: Settings) -> None:
    own = make_settings(**ATTENTIVE, exchange__personal="norms", exchange__frozen="mri-arm")
    names = {slot.name for slot in network_layout(settings).slots}
    kept = members(names, ["norms", "mri-arm"])
    assert {slot.name for slot in exchanged_layout(own).slots} == names - kept


def test_frozen_parts_take_no_gradient_and_all_others_do(make_settings) -> None:
    own = make_settings(**ATTENTIVE, exchange__personal="norms", exchange__frozen="mri-arm")
    network = new_translator(own).network
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert frozen == members(dict(network.named_parameters()), ["mri-arm"])
