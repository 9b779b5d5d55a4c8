# SPDX-License-Identifier: Apache-2.0
"""Making a consortium and changing it: what lies where, who may read it, what a stop leaves."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.verification import PolicyBuilder, Store

from pasta_model.errors import ConfigError
from server.provision import registry, steps
from server.provision.consortium import read_consortium, site_entry
from server.provision.keys import fingerprint
from server.provision.registry import read_invited, read_issued, read_revoked
from server.provision.steps import add_site, provision, renew_server, renew_site, revoke_site

SITE_FILES = {
    *("README.md", "site.toml", "policy.toml", "check.sh", "start.sh"),
    *("keys/ca.crt", "keys/client.crt", "keys/client.key", "keys/node.key", "keys/node.pub"),
}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def client(consortium: Path, site: str) -> x509.Certificate:
    return certificate(consortium / "kits" / site / "keys" / "client.crt")


def revoked(consortium: Path) -> set[int]:
    """Serial numbers on the list; the server's copy is the authority's."""
    content = (consortium / "authority" / "crl.pem").read_bytes()
    assert (consortium / "server" / "crl.pem").read_bytes() == content
    found = x509.load_pem_x509_crl(content)
    key = certificate(consortium / "authority" / "ca.crt").public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert found.is_signature_valid(key)
    return {entry.serial_number for entry in found}


def check_kit(consortium: Path, site: str) -> None:
    """Keys belong together, to this site, and to this authority; and the server invites them."""
    keys = consortium / "kits" / site / "keys"
    found = client(consortium, site)
    private = load_pem_private_key((keys / "client.key").read_bytes(), None)
    assert private.public_key() == found.public_key()
    authority = certificate(keys / "ca.crt")
    assert authority == certificate(consortium / "authority" / "ca.crt")
    verifier = PolicyBuilder().store(Store([authority])).build_client_verifier()
    assert verifier.verify(found, []).chain[0] == found
    node = load_ssh_private_key((keys / "node.key").read_bytes(), None)
    public = (keys / "node.pub").read_text(encoding="utf-8").strip()
    assert node.public_key() == load_ssh_public_key(public.encode())
    invited = read_invited(consortium / "server")[site]
    assert (invited.key, invited.public_key) == (fingerprint(public), public)
    assert found.serial_number not in revoked(consortium)


def test_one_command_makes_all_of_it(consortium: Path, tmp_path: Path) -> None:
    assert files(consortium) == {
        "consortium.toml",
        *(f"authority/{name}" for name in ("ca.crt", "ca.key", "crl.pem", "issued.toml")),
        *(f"server/{name}" for name in ("ca.crt", "crl.pem", "invited.toml", "nginx.conf", "README.md")),
        *(f"server/{name}" for name in ("server.crt", "server.key")),
        *(f"kits/{site}/{name}" for site in ("alder", "birch") for name in SITE_FILES),
    }
    assert (consortium / "consortium.toml").read_bytes() == (tmp_path / "consortium.toml").read_bytes()
    for site in ("alder", "birch"):
        check_kit(consortium, site)
    invited = read_invited(consortium / "server")
    assert {name: entry.max_subjects for name, entry in invited.items()} == {"alder": 2000, "birch": None}
    assert revoked(consortium) == set()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_is_secret_is_its_owners_alone(consortium: Path) -> None:
    secret = set(consortium.rglob("*.key"))
    assert len(secret) == 2 + 2 * 2
    assert {mode(path) for path in secret} == {0o600}
    folders = {consortium, *(path for path in consortium.rglob("*") if path.is_dir())}
    assert {mode(folder) for folder in folders} == {0o700}
    for path in consortium.rglob("*"):
        assert path in secret or path.is_dir() or b"PRIVATE KEY" not in path.read_bytes()


def test_a_private_key_is_never_open_not_even_for_a_moment(
    tmp_path: Path, write_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is put into place by a rename, and may be read by its owner alone before it is there."""
    placed: list[tuple[str, int]] = []
    really = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if b"PRIVATE KEY" in self.read_bytes():
            placed.append((target.name, mode(self)))
        return really(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    umask = os.umask(0)
    try:
        provision(write_plan(), tmp_path / "dir")
        renew_site(tmp_path / "dir", "alder", node_key=True)
    finally:
        os.umask(umask)
    sites = ["client.key", "node.key"] * 3  # of two sites, and of one again
    assert sorted(placed) == [(name, 0o600) for name in sorted(["ca.key", "server.key", *sites])]
    assert {mode(path) for path in (tmp_path / "dir").rglob("*.key")} == {0o600}
    assert {mode(path) for path in (tmp_path / "dir").rglob("*") if path.is_dir()} == {0o700}


def test_what_is_there_is_never_overwritten(consortium: Path, tmp_path: Path) -> None:
    before = {name: (consortium / name).read_bytes() for name in files(consortium)}
    for there in (consortium, tmp_path / "consortium.toml"):
        with pytest.raises(ConfigError, match=r"nothing is overwritten; .* renew-site"):
            provision(tmp_path / "consortium.toml", there)
    assert {name: (consortium / name).read_bytes() for name in files(consortium)} == before


def test_a_failure_in_between_leaves_nothing(
    tmp_path: Path, write_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: object, **named: object) -> None:
        raise ConfigError("no space")

    monkeypatch.setattr(registry, "write_invited", fail)  # the last file
    with pytest.raises(ConfigError, match="no space"):
        provision(write_plan(), tmp_path / "dir")
    assert {path.name for path in tmp_path.iterdir()} == {"consortium.toml"}


def test_expiry_is_told_and_is_the_certificates(tmp_path: Path, write_plan: Callable[..., Path]) -> None:
    told = {expiry.what: expiry.until for expiry in provision(write_plan(), tmp_path / "dir")}
    assert list(told) == ["authority", "server", "site alder", "site birch"]
    assert told["site alder"] == client(tmp_path / "dir", "alder").not_valid_after_utc
    assert told["server"] == certificate(tmp_path / "dir" / "server" / "server.crt").not_valid_after_utc
    assert (told["server"] - told["authority"]).days < -3000
    readme = (tmp_path / "dir" / "kits" / "alder" / "README.md").read_text(encoding="utf-8")
    for what in ("site alder", "authority"):
        assert f"{told[what]:%Y-%m-%d}" in readme


def test_a_site_can_be_added(consortium: Path) -> None:
    before = (consortium / "consortium.toml").read_text(encoding="utf-8")
    add_site(consortium, site_entry("cedar", max_subjects=30, contact='the "boss"'))
    check_kit(consortium, "cedar")
    assert files(consortium / "kits" / "cedar") == SITE_FILES
    text = (consortium / "consortium.toml").read_text(encoding="utf-8")
    assert text.startswith(before)
    cedar = read_consortium(consortium / "consortium.toml").sites[-1]
    assert (cedar.name, cedar.max_subjects, cedar.contact) == ("cedar", 30, 'the "boss"')
    assert read_invited(consortium / "server")["cedar"].max_subjects == 30
    for site in ("alder", "birch"):
        check_kit(consortium, site)


@pytest.mark.parametrize(
    ("name", "message"), [("alder", "takes part already; .* renew-site"), ("Alder", "wanted each name once")]
)
def test_a_site_that_is_there_cannot_be_added(consortium: Path, name: str, message: str) -> None:
    before = {path: (consortium / path).read_bytes() for path in files(consortium)}
    with pytest.raises(ConfigError, match=message):
        add_site(consortium, site_entry(name))
    assert {path: (consortium / path).read_bytes() for path in files(consortium)} == before


def test_renewing_keeps_what_the_site_decided(consortium: Path) -> None:
    kit = consortium / "kits" / "alder"
    own = {"policy.toml": "# stricter\n", "site.toml": "# filled in\n"}
    for name, text in own.items():
        (kit / name).write_text(text, encoding="utf-8")
    before, node = client(consortium, "alder"), (kit / "keys" / "node.key").read_bytes()
    renew_site(consortium, "alder", node_key=False)
    assert {name: (kit / name).read_text(encoding="utf-8") for name in own} == own
    assert (kit / "keys" / "node.key").read_bytes() == node
    assert revoked(consortium) == {before.serial_number}
    assert read_revoked(consortium / "server") == ()
    assert "Your keys were renewed" in (kit / "README.md").read_text(encoding="utf-8")
    check_kit(consortium, "alder")
    assert client(consortium, "alder").public_key() != before.public_key()


def test_a_new_node_key_replaces_the_invitation(consortium: Path) -> None:
    before = read_invited(consortium / "server")
    renew_site(consortium, "alder", node_key=True)
    check_kit(consortium, "alder")
    now = read_invited(consortium / "server")
    assert now["alder"].key != before["alder"].key
    assert now["alder"].max_subjects == 2000
    assert now["birch"] == before["birch"]
    (gone,) = read_revoked(consortium / "server")
    assert (gone.site, gone.key, gone.public_key) == (
        "alder",
        before["alder"].key,
        before["alder"].public_key,
    )


def test_a_kit_that_was_handed_over_and_deleted_can_be_renewed(consortium: Path) -> None:
    before = client(consortium, "alder")
    steps.remove_private_folder(consortium / "kits" / "alder")
    renew_site(consortium, "alder", node_key=False)
    kit = consortium / "kits" / "alder"
    assert files(kit) == {"README.md", "keys/ca.crt", "keys/client.crt", "keys/client.key"}
    assert "your `keys/node.key` stays as it is" in (kit / "README.md").read_text(encoding="utf-8")
    assert revoked(consortium) == {before.serial_number}
    assert {mode(kit), mode(kit / "keys")} == {0o700}


def test_a_revoked_site_is_out_and_can_come_back_with_other_keys(consortium: Path) -> None:
    before, invited = client(consortium, "alder"), read_invited(consortium / "server")["alder"]
    revoke_site(consortium, "alder")
    assert set(read_invited(consortium / "server")) == {"birch"}
    assert revoked(consortium) == {before.serial_number}
    assert [gone.key for gone in read_revoked(consortium / "server")] == [invited.key]
    assert not (consortium / "kits" / "alder").exists()
    with pytest.raises(ConfigError, match="no such site; invited are birch"):
        revoke_site(consortium, "alder")
    with pytest.raises(ConfigError, match="no such site; invited are birch"):
        renew_site(consortium, "alder", node_key=False)

    with pytest.raises(ConfigError, match="says something else"):
        add_site(consortium, site_entry("alder", max_subjects=5))
    add_site(consortium, site_entry("alder"))
    check_kit(consortium, "alder")
    back = read_invited(consortium / "server")["alder"]
    assert back.max_subjects == 2000
    assert back.key != invited.key
    assert before.serial_number in revoked(consortium)


def test_all_certificates_of_a_site_are_revoked_with_it(consortium: Path) -> None:
    renew_site(consortium, "alder", node_key=False)
    renew_site(consortium, "alder", node_key=True)
    revoke_site(consortium, "alder")
    issued = [entry.number for entry in read_issued(consortium / "authority") if entry.site == "alder"]
    assert len(issued) == 3
    assert revoked(consortium) == set(issued)


def test_the_last_site_can_be_revoked(consortium: Path) -> None:
    for site in ("alder", "birch"):
        revoke_site(consortium, site)
    assert read_invited(consortium / "server") == {}


def test_the_server_can_be_renewed_under_other_names(consortium: Path) -> None:
    plan, server = consortium / "consortium.toml", consortium / "server"
    before = certificate(server / "server.crt")
    text = plan.read_text(encoding="utf-8").replace("pasta.example.org", "new.example.org")
    plan.write_text(text, encoding="utf-8")
    renew_server(consortium)
    now = certificate(server / "server.crt")
    key = load_pem_private_key((server / "server.key").read_bytes(), None)
    assert key.public_key() == now.public_key()
    names = now.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "new.example.org" in names.get_values_for_type(x509.DNSName)
    assert revoked(consortium) == {before.serial_number}
    assert mode(server / "server.key") == 0o600


STEPS: dict[str, Callable[[Path], object]] = {
    "add": lambda folder: add_site(folder, site_entry("cedar", max_subjects=30)),
    "renew": lambda folder: renew_site(folder, "alder", node_key=True),
    "revoke": lambda folder: revoke_site(folder, "alder"),
    "server": renew_server,
}


class Stopped(BaseException):
    """As kill -9, between two files."""


def stop_after(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a step when it has put so many files into place."""
    really, left = Path.replace, [None] * files

    def replace(self: Path, target: Path) -> Path:
        if not left:
            raise Stopped
        left.pop()
        return really(self, target)

    monkeypatch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_stopped_anywhere_is_completed_by_doing_it_again(
    tmp_path: Path, write_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for files in range(100):
        consortium = tmp_path / str(files)
        provision(write_plan(), consortium)
        with monkeypatch.context() as patch:
            stop_after(files, patch)
            try:
                STEPS[step](consortium)
            except Stopped:
                stopped = True
            else:
                stopped = False
        if not stopped:
            break
        STEPS[step](consortium)
        check_completed(consortium, step)
    assert 4 <= files < 100


def check_completed(consortium: Path, step: str) -> None:
    sites = {"alder", "birch", *(["cedar"] if step == "add" else [])} - (
        {"alder"} if step == "revoke" else set()
    )
    assert set(read_invited(consortium / "server")) == sites
    for site in sites:
        check_kit(consortium, site)
    valid = {entry.number for entry in read_issued(consortium / "authority") if entry.site == "alder"}
    valid -= revoked(consortium)
    assert valid == ({client(consortium, "alder").serial_number} if "alder" in sites else set())
    names = [site.name for site in read_consortium(consortium / "consortium.toml").sites]
    assert names == ["alder", "birch", *(["cedar"] if step == "add" else [])]


def test_what_is_no_consortium_cannot_be_changed(tmp_path: Path, consortium: Path) -> None:
    with pytest.raises(ConfigError, match="no consortium here; make one with 'pasta-server provision'"):
        revoke_site(tmp_path, "alder")
    (consortium / "authority" / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"ca\.key: cannot be read .* bring the authority's folder back"):
        revoke_site(consortium, "alder")


def test_a_damaged_list_is_refused_and_not_written_over(consortium: Path) -> None:
    path = consortium / "server" / "invited.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('key = "', 'key = "x', 1), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"invited\.toml: sites\.alder\.key"):
        renew_site(consortium, "birch", node_key=False)
    assert path.read_bytes() == before
