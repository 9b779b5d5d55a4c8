# SPDX-License-Identifier: Apache-2.0
"""What Flower reads in pyproject.toml: the settings of a run, and where the two apps are."""

import importlib
import tomllib
from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.common.config import flatten_dict, fuse_dicts
from flwr.serverapp import ServerApp

from pasta_model.config import Settings, settings_from_flat
from pasta_model.errors import ConfigError

ROOT = Path(__file__).parents[2]
FLOWER = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
CONFIG = flatten_dict(FLOWER["config"])  # as Flower hands it to the apps


def typed(values: dict[str, bool | int | float | str]) -> dict[str, tuple[type, object]]:
    """With its type: 1, 1.0 and True are equal, and are not the same setting."""
    return {name: (type(value), value) for name, value in values.items()}


def test_the_table_is_the_settings_neither_more_nor_less_nor_other() -> None:
    assert typed(CONFIG) == typed(Settings().flat())


def test_what_flower_hands_over_can_be_read() -> None:
    assert settings_from_flat(CONFIG) == Settings()


def test_an_override_as_flower_makes_it_can_be_read() -> None:
    override = {"federation.rounds": 3, "run.output": "/elsewhere", "data.spacing": 1.5}
    settings = settings_from_flat(fuse_dicts(CONFIG, override))
    assert {name: settings.flat()[name] for name in override} == override


def test_flower_does_not_check_a_value_but_we_do() -> None:
    with pytest.raises(ConfigError, match=r"federation\.rounds: found 0, wanted greater than 0"):
        settings_from_flat(fuse_dicts(CONFIG, {"federation.rounds": 0}))


def test_flower_would_refuse_a_name_that_is_not_in_the_table() -> None:
    with pytest.raises(ValueError, match=r"federation\.round"):
        fuse_dicts(CONFIG, {"federation.round": 3}, check_keys=True)


@pytest.mark.parametrize(("component", "kind"), [("serverapp", ServerApp), ("clientapp", ClientApp)])
def test_components_are_where_flower_looks_for_them(component: str, kind: type) -> None:
    module, _, attribute = FLOWER["components"][component].partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), kind)
