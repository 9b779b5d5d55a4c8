# SPDX-License-Identifier: Apache-2.0
"""Parts of the network: every parameter is in those parts, and only in those, that one expects."""

import re
from collections.abc import Callable

import pytest
from torch import nn

from pasta_model.checkpoint import exchanged_layout, network_layout, new_network, new_translator
from pasta_model.config import Settings
from pasta_model.errors import ConfigError
from pasta_model.network.parts import PARTS, members, part_names

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
