# SPDX-License-Identifier: Apache-2.0
"""The list of invited sites: by the keys of a file, or in a simulation by the stores on this machine."""

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pasta_model.errors import ConfigError, FederationError
from server.invitations import invitations, key_fingerprint
from tests.support.sites import make_settings, prepared

KEY, OTHER = "a" * 64, "b" * 64


def read(tmp_path: Path, text: str, **changes):
    path = tmp_path / "invited.toml"
    path.write_text(text)
    settings = make_settings(tmp_path, tmp_path / "run", federation__invited=str(path), **changes)
    return invitations(settings)


def test_sites_are_known_by_their_keys(tmp_path: Path) -> None:
    alder = f'[sites.alder]\nkey = "{KEY}"\nmax-subjects = 40\npublic-key = "ecdsa-sha2"\n'
    text = f'{alder}[sites.birch]\nkey = "{OTHER}"'
    found = read(tmp_path, text, federation__max_subjects=900)
    assert found.by_key
    assert found.sites == {"alder", "birch"}
    assert (found.site_of(KEY), found.site_of(OTHER), found.site_of("c" * 64)) == ("alder", "birch", None)
    assert found.limits == {"alder": 40, "birch": 900}
    assert found.site_of("") is None, "a node without a key is a stranger"


def test_all_that_is_wrong_with_the_list_is_said_at_once(tmp_path: Path) -> None:
    text = f"""
    [sites]
    sixth = "not a table"
    [sites.first]
    key = "{KEY}"
    [sites.second]
    key = "{KEY}"
    [sites.third]
    key = "short"
    [sites.fourth]
    [sites.fifth]
    key = "{OTHER}"
    max-subjects = 0
    [sites.seventh]
    key = "{"C" * 64}"
    [sites.eighth]
    key = "{"d" * 64}"
    max-subjects = true
    """
    with pytest.raises(FederationError) as error:
        read(tmp_path, text)
    said = str(error.value)
    assert "invited.toml: the list of invited sites cannot be used" in said
    assert "sites 'first' and 'second' have the same key" in said
    for name in ("third", "fourth", "fifth", "sixth", "seventh", "eighth"):
        assert f"site {name!r}: " in said


@pytest.mark.parametrize("text", ["", "[sites]", "sites = 3", '[[sites]]\nname = "alder"', "[other]\na = 1"])
def test_nobody_invited_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(FederationError, match="nobody is invited; add a site with 'pasta-server add-site'"):
        read(tmp_path, text)


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".", "a b"])
def test_name_that_is_no_name_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FederationError, match=r"wanted a name of letters, digits and _ \. -"):
        read(tmp_path, f'[sites."{name}"]\nkey = "{"0" * 64}"\n')


@pytest.mark.parametrize("text", ["[sites.a", "sites = {a = "])
def test_list_that_is_no_toml(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"invited\.toml"):
        read(tmp_path, text)


def test_list_that_is_not_there(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, tmp_path / "run", federation__invited=str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        invitations(settings)


def test_in_a_simulation_the_sites_are_those_on_this_machine(tmp_path: Path) -> None:
    prepared(tmp_path, ["A", "B", ".hidden"])
    (tmp_path / "sites" / "broken").mkdir()
    (tmp_path / "sites" / "broken" / "index.json").write_text("{")
    found = invitations(make_settings(tmp_path, tmp_path / "run", federation__max_subjects=7))
    assert not found.by_key
    assert found.limits == {"A": 7, "B": 7}


def test_neither_a_list_nor_a_store(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"(?s)nobody is invited: set federation\.invited.*'make demo'"):
        invitations(make_settings(tmp_path, tmp_path / "run"))


def test_held_out_site_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    """A misspelt name would let the site train that was to be held out."""
    prepared(tmp_path, "AB")
    with pytest.raises(FederationError, match=r"federation\.held-out names b; invited are A, B"):
        invitations(make_settings(tmp_path, tmp_path / "run", federation__held_out="A, b"))
    invitations(make_settings(tmp_path, tmp_path / "run", federation__held_out="A"))


def test_fingerprint_is_of_the_key_not_of_its_text() -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert key_fingerprint(pem) == key_fingerprint(b"\n" + pem + b"\n") == hashlib.sha256(der).hexdigest()
    assert key_fingerprint(b"") == key_fingerprint(b"no key") == ""
