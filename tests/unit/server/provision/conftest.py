# SPDX-License-Identifier: Apache-2.0
"""Shared scenery: a consortium.toml, and a consortium made of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from server.provision.steps import provision

PLAN = """# the northern hospitals
[consortium]
name = "north-sea"
names = ["pasta.example.org", "10.0.0.7"]
port = 9443
superlink-port = 8443
valid-days = 90

[[sites]]
name = "alder"
max-subjects = 2000
contact = "Ann, ann@alder.example"

[[sites]]
name = "birch"
"""


@pytest.fixture
def write_plan(tmp_path: Path) -> Callable[..., Path]:
    """Write a consortium.toml."""

    def write(text: str = PLAN) -> Path:
        path = tmp_path / "consortium.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def consortium(tmp_path: Path, write_plan: Callable[..., Path]) -> Path:
    """A consortium of two sites."""
    provision(write_plan(), tmp_path / "north-sea")
    return tmp_path / "north-sea"
