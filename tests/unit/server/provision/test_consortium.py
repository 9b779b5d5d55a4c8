# SPDX-License-Identifier: Apache-2.0
"""consortium.toml: what is read, and everything that is refused, at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pasta_model.errors import ConfigError
from server.provision.consortium import read_consortium, site_entry

SMALLEST = '[consortium]\nname = "c"\nnames = ["localhost"]\n[[sites]]\nname = "alder"\n'


def test_what_is_written_is_read(write_plan: Callable[..., Path]) -> None:
    found = read_consortium(write_plan())
    plan = found.consortium
    assert (plan.name, plan.names) == ("north-sea", ("pasta.example.org", "10.0.0.7"))
    assert (plan.port, plan.superlink_port, plan.valid_days) == (9443, 8443, 90)
    assert [(site.name, site.max_subjects) for site in found.sites] == [("alder", 2000), ("birch", None)]
    assert found.sites[0].contact == "Ann, ann@alder.example"


def test_what_is_not_written_has_a_default(write_plan: Callable[..., Path]) -> None:
    plan = read_consortium(write_plan(SMALLEST)).consortium
    assert (plan.port, plan.superlink_port, plan.valid_days) == (9443, 8443, 365)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("pasta.example.org", "pasta.example.org:9443"),
        ("10.0.0.7", "10.0.0.7:9443"),
        ("fd00::7", "[fd00::7]:9443"),
    ],
)
def test_sites_call_the_first_name(write_plan: Callable[..., Path], name: str, address: str) -> None:
    plan = read_consortium(write_plan(SMALLEST.replace("localhost", name))).consortium
    assert plan.address == address


def test_all_that_is_wrong_is_told_at_once(write_plan: Callable[..., Path]) -> None:
    text = """
[consortium]
name = "north sea"
names = ["pasta.example.org:9443", "*.example.org", "10.0.0", ""]
port = 70000
superlink-port = "8443"
valid-day = 10
[[sites]]
name = "alder"
max-subject = 3
[[sites]]
name = "Alder"
max-subjects = 0
[[sites]]
name = "../birch"
contact = "two\\nlines"
[[sites]]
max-subjects = true
[guard]
port = 1
"""
    with pytest.raises(ConfigError) as raised:
        read_consortium(write_plan(text))
    lines = str(raised.value).splitlines()[1:]
    wanted = [
        "consortium.name: found 'north sea', wanted a letter or digit",
        "consortium.names.1: found 'pasta.example.org:9443', wanted a DNS name or an IP address, without",
        "consortium.names.2: found '*.example.org', wanted a DNS name",
        "consortium.names.3: found '10.0.0', wanted a DNS name",
        "consortium.names.4: found '', wanted a DNS name",
        "consortium.port: found 70000, wanted less than or equal to 65535",
        "consortium.superlink-port: found '8443', wanted a valid integer",
        "consortium.valid-day: no such key; did you mean 'valid-days'?",
        "sites.1.max-subject: no such key; did you mean 'max-subjects'?",
        "sites.2.max-subjects: found 0, wanted greater than 0",
        "sites.3.name: found '../birch', wanted a letter or digit",
        "sites.3.contact: found 'two\\nlines', wanted one line of text",
        "sites.4.name: missing",
        "sites.4.max-subjects: found True, wanted a valid integer",
        "guard: no such key",
        "sites: found 'alder', 'Alder', wanted each name once",
    ]
    assert [start for start in wanted if not any(line[4:].startswith(start) for line in lines)] == []
    assert len(lines) == len(wanted)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('names = ["localhost"]', "names = []", r"consortium\.names: found \[\], wanted at least one"),
        ('[[sites]]\nname = "alder"', "", "sites: missing"),
        ('[[sites]]\nname = "alder"', "[sites]\nx = 3", "sites: found {'x': 3}, wanted a valid tuple"),
        ('[[sites]]\nname = "alder"', '[[sites]]\nname = "' + "x" * 65 + '"', "at most 64 bytes"),
        (
            'names = ["localhost"]',
            'names = ["localhost"]\nport = 8443',
            "superlink-port: found 8443, the same as port",
        ),
        ('name = "c"\n', 'name = "c"\nsites = []\n', "consortium.sites: no such key"),
    ],
)
def test_each_impossible_file_is_refused(
    write_plan: Callable[..., Path], before: str, after: str, message: str
) -> None:
    assert before in SMALLEST
    with pytest.raises(ConfigError, match=message):
        read_consortium(write_plan(SMALLEST.replace(before, after)))


def test_a_list_of_sites_that_no_command_could_extend_is_refused(write_plan: Callable[..., Path]) -> None:
    text = 'sites = [{name = "alder"}]\n' + SMALLEST.partition("[[sites]]")[0]
    with pytest.raises(ConfigError, match=r"wanted a table \[\[sites\]\] each"):
        read_consortium(write_plan(text))


def test_a_file_that_is_not_there_or_not_toml_is_refused(
    tmp_path: Path, write_plan: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_consortium(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_consortium(write_plan("[consortium"))


def test_a_site_of_a_command_line_is_held_to_the_same(tmp_path: Path) -> None:
    assert site_entry("zürich.2", max_subjects=7).name == "zürich.2"
    with pytest.raises(ConfigError, match=r"2 problem\(s\)"):
        site_entry("-x", contact="")
