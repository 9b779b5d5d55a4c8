# SPDX-License-Identifier: Apache-2.0
"""What consortium.toml says: who takes part, and under which names the sites reach the server."""

import difflib
import ipaddress
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from pasta_model.config import read_toml
from pasta_model.data.manifest import NAME
from pasta_model.errors import ConfigError, Problems
from pasta_model.sections import Positive, Section
from server.provision.rendering import render

Entry = TypeVar("Entry")
LONGEST_NAME = 64  # octets of a common name in a certificate
_LABEL = r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_ONE_MORE = '\n[[sites]]\nname = "one-more"\n'


def usable_name(name: str) -> str:
    """Let a name pass that can be a folder and a certificate's; raise ValueError at another."""
    if not NAME.fullmatch(name):
        raise ValueError("a letter or digit, then letters, digits, '_', '.' or '-': it becomes a folder")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"at most {LONGEST_NAME} bytes: it becomes a certificate's name")
    return name


def usable_host(host: str) -> str:
    """Let a DNS name or an IP address pass; raise ValueError at anything else, such as one with a port."""
    if is_address(host) or (len(host) <= 253 and _HOST.fullmatch(host) and not _looks_like_ipv4(host)):
        return host
    raise ValueError("a DNS name or an IP address, without port, as 'pasta.example.org'")


def one_line(text: str) -> str:
    """Let a line of text pass; raise ValueError at control characters and at nothing."""
    if not text.strip() or any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise ValueError("one line of text")
    return text


def not_empty(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Let a list pass that holds something; raise ValueError at an empty one."""
    if not entries:
        raise ValueError("at least one")
    return entries


def is_address(host: str) -> bool:
    """Tell an IP address from a DNS name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _looks_like_ipv4(host: str) -> bool:
    return host.rpartition(".")[2].isdecimal()


Name = Annotated[str, AfterValidator(usable_name)]
Host = Annotated[str, AfterValidator(usable_host)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Plan(Section):
    """The table [consortium]: the coordinator's server, and how long certificates last."""

    name: Name
    names: Annotated[tuple[Host, ...], AfterValidator(not_empty), Field(strict=False)]
    port: Port = 9443
    superlink_port: Port = 8443
    valid_days: Annotated[int, Field(ge=1, le=3650)] = 365

    @property
    def address(self) -> str:
        """Where a site reaches the server: its first name, and the port of the proxy."""
        host = self.names[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class SiteEntry(Section):
    """One of the tables [[sites]]: a hospital, how much it may weigh, whom to ask there."""

    name: Name
    max_subjects: Positive | None = None
    contact: Annotated[str, AfterValidator(one_line)] | None = None


class Consortium(Section):
    """The whole of consortium.toml."""

    consortium: Plan
    sites: Annotated[tuple[SiteEntry, ...], AfterValidator(not_empty), Field(strict=False)]

    def site(self, name: str) -> SiteEntry | None:
        """Return the site of this name, or nothing."""
        return next((site for site in self.sites if site.name == name), None)


def read_consortium(path: Path) -> Consortium:
    """Read and check a consortium.toml.

    Raises
    ------
    ConfigError
        When the file cannot be read, or with one line for everything in it that cannot be used.
    """
    return _checked(read_toml(path), path, _text(path))


def with_site(path: Path, entry: SiteEntry) -> str:
    """Return the text of the consortium.toml at `path` with one more site, checked.

    Raises
    ------
    ConfigError
        When the site cannot be added, for example because another has its name.
    """
    text = f"{_text(path).rstrip()}\n\n{render('sites.toml.j2', site=entry)}"
    _checked(tomllib.loads(text), path, text)
    return text


def site_entry(name: str, *, max_subjects: int | None = None, contact: str | None = None) -> SiteEntry:
    """Return a site that a command line names.

    Raises
    ------
    ConfigError
        When its name cannot be used.
    """
    try:
        return SiteEntry(name=name, max_subjects=max_subjects, contact=contact)
    except ValidationError as error:
        problems = Problems("the site cannot be added")
        for detail in error.errors():
            problems.add(_line(detail))
        problems.raise_if_any(ConfigError)
        raise


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _checked(raw: Mapping[str, Any], path: Path, text: str) -> Consortium:
    problems = Problems(f"{path}: the consortium cannot be made")
    found: Consortium | None = None
    try:
        found = Consortium.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors():
            problems.add(_line(detail))
    for line in _clashes(raw):
        problems.add(line)
    if found and not _can_grow(text):
        problems.add("sites: found a list in brackets, wanted a table [[sites]] each; add-site adds one")
    problems.raise_if_any(ConfigError)
    assert found is not None, "a failed validation has at least one problem"
    return found


def _clashes(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong between entries, also where one of them is wrong by itself."""
    sites, plan = raw.get("sites"), raw.get("consortium")
    tables = [site for site in sites if isinstance(site, dict)] if isinstance(sites, list) else []
    names = [site["name"] for site in tables if isinstance(site.get("name"), str)]
    for folded, count in Counter(name.casefold() for name in names).items():
        if count > 1:
            alike = ", ".join(repr(name) for name in names if name.casefold() == folded)
            yield f"sites: found {alike}, wanted each name once (large and small letters count as the same)"
    if isinstance(plan, dict):
        defaults = {name: Plan.model_fields[name].default for name in ("port", "superlink_port")}
        port = plan.get("port", defaults["port"])
        if port == plan.get("superlink-port", defaults["superlink_port"]):
            yield f"consortium.superlink-port: found {port}, the same as port; wanted another"


def _can_grow(text: str) -> bool:
    try:
        tomllib.loads(text + _ONE_MORE)
    except tomllib.TOMLDecodeError:
        return False
    return True


_KNOWN: Mapping[str, type[Section]] = {"": Consortium, "consortium": Plan, "sites": SiteEntry}


def _line(detail: Mapping[str, Any]) -> str:
    place = ".".join(str(part + 1) if isinstance(part, int) else part for part in detail["loc"])
    if detail["type"] == "missing":
        return f"{place}: missing"
    if detail["type"] == "extra_forbidden":
        table = detail["loc"][0] if len(detail["loc"]) > 1 else ""
        known = [field.alias or name for name, field in _KNOWN[table].model_fields.items()]
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.5)
        return f"{place}: no such key" + (f"; did you mean {close[0]!r}?" if close else "")
    wanted = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{place}: found {detail['input']!r}, wanted {wanted}"
