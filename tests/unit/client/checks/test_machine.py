# SPDX-License-Identifier: Apache-2.0
"""Checks of a site's machine and of what is installed: one is broken, and that one has a cross."""

import shutil
from pathlib import Path

import pytest
import torch

from client import check as check_module
from client.checks import house, machine
from client.checks.house import VERSIONS
from client.checks.machine import DEVICE, DISK, MEMORY
from client.kit import read_kit
from pasta_model.config import settings_from_flat
from pasta_model.costs import wire_bytes
from tests.support.checks import Scene, crosses, only


class TestMachine:
    def test_disk_that_is_full(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        needed = 18 * wire_bytes(settings_from_flat({"network.size": "tiny"}))
        usage = shutil.disk_usage(scene.kit)
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=needed))
        assert crosses(scene) == {}
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
        assert "free " in only(crosses(scene), DISK).advice

    def test_device_that_is_missing(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        scene.change(device='"cuda"')
        assert "'cuda' is not on this machine" in only(crosses(scene), DEVICE).found

    @pytest.mark.parametrize(
        ("available", "advice"),
        [(7e9, "training.checkpointing and batches of one (3.0 GB)"), (2e9, "a machine with more memory")],
    )
    def test_memory_that_is_short(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch, available: float, advice: str
    ) -> None:
        monkeypatch.setattr(machine, "memory_of", lambda _: available)
        found = only(crosses(scene), MEMORY)
        assert advice in found.advice
        assert "a training step of size tiny takes 8.0 GB" in found.found

    def test_memory_of_scans_that_cannot_be_read_is_that_of_the_finest(self, scene: Scene) -> None:
        scene.change(store='"nowhere"')
        assert check_module._spacing(read_kit(scene.kit, files=False)) == 1.5

    def test_memory_heeds_a_containers_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        limit = tmp_path / "memory.max"
        monkeypatch.setattr(machine, "_CGROUP_LIMITS", (str(limit),))
        limit.write_text("max\n")
        free = machine.memory_of("cpu")
        assert free > 1e8
        limit.write_text("12345\n")
        assert machine.memory_of("cpu") == 12345

    def test_other_versions(self, scene: Scene) -> None:
        text = (scene.kit / "site.toml").read_text()
        (scene.kit / "site.toml").write_text(f'{text.partition("[versions]")[0]}[versions]\ntorch = "0.1"\n')
        found = only(crosses(scene), VERSIONS)
        assert found.found == f"torch {torch.__version__.split('+')[0]}"
        assert found.advice.startswith("pip install torch==0.1;")

    def test_missing_package_and_a_kit_that_tells_no_versions(self) -> None:
        (found,) = house.check_versions({"no-such-package": "1"})
        assert (found.good, found.found) == (False, "no-such-package missing")
        (found,) = house.check_versions({})
        assert found.good
