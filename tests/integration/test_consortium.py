# SPDX-License-Identifier: Apache-2.0
"""A consortium as hospitals would have it, on loopback: provisioned, mutual TLS, guards, real SuperNodes."""

import json
import ssl
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from client.kit import read_kit
from pasta_model.checkpoint import load_checkpoint, new_network
from pasta_model.config import Settings
from server.deployment.control import Control
from server.deployment.flower import script
from server.provision.keys import new_node_key
from server.provision.steps import revoke_site
from server.rounds import Federation
from simulation.consortium import LocalConsortium, find_nginx
from simulation.direct import DirectPost
from tests.integration.conftest import MARK, still_running
from tests.support.runs import (
    SITES,
    TWINS,
    assert_same_run,
    audit,
    build_bundle,
    events,
    history,
    prepare_sites,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return prepare_sites(tmp_path_factory.mktemp("twins"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def consortium(
    stores: dict[str, Path], bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalConsortium]:
    """Three sites that take part; nothing of it may be left behind."""
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, mark)
        with LocalConsortium(tmp_path_factory.mktemp("loopback"), stores, policy=TWINS) as consortium:
            for site in SITES:
                consortium.approve(site, bundle)
                consortium.start_site(site)
            consortium.wait_online(SITES)
            yield consortium
        assert still_running(mark) == []


@pytest.fixture
def run_settings(
    stores: dict[str, Path], tmp_path: Path, make_settings: Callable[..., Settings]
) -> Callable[..., Settings]:
    def make(name: str, **changes: bool | float | str) -> Settings:
        own: dict[str, bool | float | str] = {
            "run__name": name,
            "run__output": str(tmp_path / name),
            "data__sites": str(stores["alder"].parent),
            "training__local_steps": 1,
            "training__threads": 1,
            "federation__min_sites": 3,
            "federation__join_deadline": 240.0,
        }
        return make_settings(**(own | changes))

    return make


def kinds(entries: list[dict[str, object]], event: str) -> list[str]:
    return [str(entry["kind"]) for entry in entries if entry["event"] == event]


def budget(consortium: LocalConsortium, site: str) -> dict[str, Any]:
    command = [script("pasta-client"), "budget", str(consortium.kit(site) / "site.toml"), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_every_site_is_ready(consortium: LocalConsortium) -> None:
    command = [script("pasta-client"), "check", str(consortium.kit("alder") / "site.toml"), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    said = json.loads(result.stdout)
    assert [f for f in said["findings"] if not f["good"]] == []
    assert (result.returncode, said["ready"]) == (0, True)


def test_two_rounds_give_the_weights_of_a_run_without_a_network(
    consortium: LocalConsortium, run_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    deployed, direct = run_settings("deployed"), run_settings("direct")
    consortium.run(deployed)
    Federation(DirectPost(direct, {"partition-id": 0, "num-partitions": 1}), direct).run()
    assert_same_run(tmp_path / "deployed", tmp_path / "direct")

    rounds = history(tmp_path / "deployed")
    assert [record["round"] for record in rounds] == [0, 1, 2]
    assert [sorted(record["loss"]) for record in rounds] == [list(SITES), list(SITES), []]
    assert all(record["failures"] == {} for record in rounds)
    last, initial = load_checkpoint(tmp_path / "deployed" / "last.safetensors").state, new_network(deployed)
    assert not all(torch.equal(last[key], value) for key, value in initial.state_dict().items())
    for site in SITES:
        assert kinds(audit(consortium.kit(site)), "sent") == ["query.join", "train", "train", "evaluate"]


def test_private_run_is_paid_for_and_a_second_one_that_is_too_much_is_not(
    consortium: LocalConsortium, run_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Epsilon 6 of the policies' 8: nobody joins for another 6, and nothing is spent for it."""
    private: dict[str, bool | float | str] = {
        "privacy__unit": "subject",
        "privacy__epsilon": 6.0,
        "privacy__subjects_per_step": 2,
        "privacy__slabs_per_subject": 1,
        "federation__rounds": 1,
    }
    consortium.run(run_settings("private", **private))
    (first, last) = history(tmp_path / "private")
    assert (first["failures"], last["failures"]) == ({}, {})
    assert (first["loss"], first["valid_mae"], first["site_seconds"]) == ({}, {}, {})
    assert (tmp_path / "private" / "model.safetensors").is_file()

    before = {site: budget(consortium, site) for site in SITES}
    for site, told in before.items():
        (row,) = told["rows"]
        assert (row["rounds"], row["steps"], row["mechanism"]) == (1, 1, "training")
        assert 5.9 < told["spent"]["those who train"][0] <= 6.0
        (sent,) = [e for e in audit(consortium.kit(site)) if e["event"] == "sent" and "ledger-hash" in e]
        assert (sent["kind"], sent["ledger-hash"]) == ("train", told["hash"])

    again = run_settings("again", **private, federation__join_deadline=1.0)
    assert consortium.start_run(again).wait() != 0
    assert "BudgetError" in consortium.log("run").read_text()
    assert {site: budget(consortium, site) for site in SITES} == before


@pytest.mark.skipif(not find_nginx(), reason="no nginx: `make nginx` and PASTA_NGINX=its path")
def test_only_the_sites_own_path_is_open(consortium: LocalConsortium) -> None:
    kit = read_kit(consortium.kit("alder"))
    trust = ssl.create_default_context(cafile=kit.keys.authority)
    with httpx.Client(verify=trust) as nobody:
        assert nobody.get(f"https://{kit.server.address}/health").status_code == httpx.codes.BAD_REQUEST
    trust.load_cert_chain(kit.keys.certificate, kit.keys.certificate_key)
    with httpx.Client(verify=trust) as site:
        assert site.get(f"https://{kit.server.address}/health").status_code == httpx.codes.OK
        answer = site.post(f"https://{kit.server.address}/v1/control/list-nodes")
        assert answer.status_code == httpx.codes.NOT_FOUND


def test_who_withdraws_is_left_in_peace_and_a_stranger_is_asked_nothing(
    consortium: LocalConsortium, run_settings: Callable[..., Settings], tmp_path: Path, bundle: Path
) -> None:
    """Cedar withdraws after a round. A stranger has cedar's certificate and data, and a key Flower knows."""
    key = new_node_key()
    consortium.copy_kit("cedar", "stranger", node_key=key.private)
    with Control(consortium.deployment.flower) as control:
        control.register("stranger", key.public)
    consortium.start_site("stranger")
    consortium.wait_online(["stranger"])

    run = consortium.start_run(run_settings("fewer", federation__min_sites=2))
    while not events(tmp_path / "fewer", "round done"):
        assert run.poll() is None, consortium.log("run").read_text()
        time.sleep(0.05)
    consortium.withdraw("cedar", bundle)
    assert run.wait() == 0, consortium.log("run").read_text()
    rounds = history(tmp_path / "fewer")
    assert [record["round"] for record in rounds] == [0, 1, 2]
    assert sorted(rounds[-1]["valid_mae"]) == ["alder", "birch"]
    assert sorted(rounds[-1]["failures"]) == ["cedar"]
    assert "BundleError" in rounds[-1]["failures"]["cedar"]

    cedar = audit(consortium.kit("cedar"))
    withdrawn = [entry["event"] for entry in cedar].index("withdrawn")
    assert "evaluate" in kinds(cedar[withdrawn:], "refused")
    assert "evaluate" not in kinds(cedar[withdrawn:], "received"), "its code saw no more"
    assert [event["event"] for event in audit(consortium.kit("stranger"))] == ["started"]
    assert events(tmp_path / "fewer", "stranger")
    consortium.stop("stranger")


def test_revoked_site_is_shut_out_while_the_server_runs(consortium: LocalConsortium) -> None:
    assert "cedar" in consortium.online()
    revoke_site(consortium.house, "cedar")
    with Control(consortium.deployment.flower) as control:
        end = time.monotonic() + 60
        while any(n.name == "cedar" and n.status != "unregistered" for n in control.nodes().values()):
            assert time.monotonic() < end, "still registered"
            time.sleep(0.2)
    assert consortium.online() == ["alder", "birch"]
