# SPDX-License-Identifier: Apache-2.0
"""The files that a hospital gets: settings, policy, scripts, words."""

import os
import re
import ssl
import subprocess
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from client.kit import read_kit, tls_context
from client.policy import read_policy
from server.provision.consortium import site_entry
from server.provision.steps import add_site, provision


def kit(consortium: Path, name: str) -> str:
    return (consortium / "kits" / "alder" / name).read_text(encoding="utf-8")


def test_site_toml_is_what_the_client_reads(consortium: Path) -> None:
    found = tomllib.loads(kit(consortium, "site.toml"))
    assert found == {
        "site": {"name": "alder", "consortium": "north-sea", "store": "/path/of/the/prepared/store"},
        "server": {"address": "pasta.example.org:9443"},
        "keys": {
            "authority": "keys/ca.crt",
            "certificate": "keys/client.crt",
            "certificate-key": "keys/client.key",
            "node": "keys/node.key",
        },
        "guard": {
            "policy": "policy.toml",
            "approved": "approved.toml",
            "audit": "audit.jsonl",
            "ledger": "privacy/ledger.jsonl",
            "quarantine": "quarantine",
            "port": 9094,
        },
        "run": {"size": "base", "device": "cpu"},
        "versions": {name: version(name).split("+")[0] for name in ("pasta-federated", "flwr", "torch")},
    }
    for name in found["keys"].values():
        assert (consortium / "kits" / "alder" / name).is_file()


def test_policy_toml_is_what_was_agreed_and_every_line_is_explained(consortium: Path) -> None:
    text = kit(consortium, "policy.toml")
    assert tomllib.loads(text)["policy"] == {
        "aggregations": ["fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "median", "trimmed-mean"],
        "min-subjects": 10,
        "max-rounds": 500,
        "privacy-required": False,
        "max-epsilon": 8.0,
        "max-delta": 0.0001,
        "metrics": ["train-loss", "valid-mae", "seconds"],
        "metrics-min-subjects": 5,
        "cross-evaluation": False,
        "reference": False,
    }
    assert all("# " in line for line in text.splitlines() if "=" in line)


def test_the_client_reads_both(consortium: Path) -> None:
    """policy.toml names every setting that the client knows: none is left to a default unseen."""
    found = read_kit(consortium / "kits" / "alder", files=False)
    assert (found.site.name, found.server.address) == ("alder", "pasta.example.org:9443")
    assert tls_context(found).verify_mode == ssl.CERT_REQUIRED
    policy = read_policy(found.guard.policy)
    written = tomllib.loads(kit(consortium, "policy.toml"))["policy"]
    assert policy.model_dump(by_alias=True) == written


@pytest.mark.parametrize("name", ["check", "start"])
def test_scripts_find_their_own_folder(consortium: Path, tmp_path: Path, name: str) -> None:
    stand_in = tmp_path / "bin" / "pasta-client"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\necho "$PWD" "$@"\nexit 7\n', encoding="utf-8")
    stand_in.chmod(0o755)
    script = consortium / "kits" / "alder" / f"{name}.sh"
    environment = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        [script, "--more", "a b"], cwd="/", env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 7
    assert ran.stdout == f"{script.parent} {name} site.toml --more a b\n"


def test_a_script_says_when_the_software_is_not_there(consortium: Path) -> None:
    script = consortium / "kits" / "alder" / "start.sh"
    ran = subprocess.run([script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "pasta-client is not found" in ran.stderr


def test_the_readme_names_every_file_of_the_kit(consortium: Path) -> None:
    readme, folder = kit(consortium, "README.md"), consortium / "kits" / "alder"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"README.md"}
    assert {name for name in names if f"`{name}`" not in readme} == set()
    for word in (
        "alder",
        "north-sea",
        "pasta.example.org:9443",
        "Ann, ann@alder.example",
        "./check.sh",
        "./start.sh",
    ):
        assert word in readme
    assert "renewed" not in readme


def test_names_that_toml_must_quote_come_back(tmp_path: Path, write_plan: Callable[..., Path]) -> None:
    text = (
        '[consortium]\nname = "n"\nnames = ["fd00::7"]\n[[sites]]\nname = "St.Ömer"\ncontact = \'"x" \\ y\'\n'
    )
    provision(write_plan(text), tmp_path / "dir")
    site = tomllib.loads((tmp_path / "dir" / "kits" / "St.Ömer" / "site.toml").read_text(encoding="utf-8"))
    assert site["site"]["name"] == "St.Ömer"
    assert site["server"]["address"] == "[fd00::7]:9443"
    add_site(tmp_path / "dir", site_entry("a.b", contact='\\" é'))
    invited = tomllib.loads((tmp_path / "dir" / "server" / "invited.toml").read_text(encoding="utf-8"))
    assert set(invited["sites"]) == {"St.Ömer", "a.b"}


def test_nginx_listens_and_calls_where_the_plan_says(consortium: Path) -> None:
    text = (consortium / "server" / "nginx.conf").read_text(encoding="utf-8")
    settings = {line.partition("#")[0].strip() for line in text.splitlines()}
    assert "listen 9443 ssl;" in settings
    assert "server_name pasta.example.org 10.0.0.7;" in settings
    assert set(re.findall(r"proxy_pass (\S+);", text)) == {"https://127.0.0.1:8443"}
    assert "listen [::]:9443 ssl;" not in settings
