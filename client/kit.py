# SPDX-License-Identifier: Apache-2.0
"""A site's start-up kit: who it is, where the server is, its keys, and what guards it (`site.toml`)."""

import ssl
import stat
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from client.tables import checked
from pasta_model.config import read_toml
from pasta_model.errors import ConfigError
from pasta_model.sections import Section


def _resolved(value: object, info: ValidationInfo) -> object:
    """Make a path absolute; it is relative to the folder of site.toml."""
    if not isinstance(value, str) or not value:
        return value
    return Path(info.context["folder"], Path(value).expanduser()) if info.context else Path(value)


def _looks(info: ValidationInfo) -> bool:
    return bool(info.context and info.context["files"])


def _file(path: Path, info: ValidationInfo) -> Path:
    if _looks(info) and not path.is_file():
        raise ValueError("a file that is there")
    return path


def _private(path: Path, info: ValidationInfo) -> Path:
    _file(path, info)
    if _looks(info) and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(path.stat().st_mode)
        raise ValueError(f"a key that only you can read, its mode is {mode:o}: chmod 600 {path}")
    return path


def _store(path: Path, info: ValidationInfo) -> Path:
    if _looks(info) and not (path / "index.json").is_file():
        raise ValueError("a prepared store; make one with 'pasta prepare' or 'pasta store'")
    return path


Place = Annotated[Path, BeforeValidator(_resolved)]
File = Annotated[Place, AfterValidator(_file)]
PrivateFile = Annotated[Place, AfterValidator(_private)]
Store = Annotated[Place, AfterValidator(_store)]
Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$")]


class SiteSection(Section):
    """Who the site is, and where its prepared data lie."""

    name: Name
    consortium: Name
    store: Store


class ServerSection(Section):
    """Where the server is reached."""

    address: Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}$")]


class KeysSection(Section):
    """The consortium's authority, the site's certificate, and its two private keys."""

    authority: File
    certificate: File
    certificate_key: PrivateFile
    node: PrivateFile


class GuardSection(Section):
    """The site's own rules and records; only `policy` must be there at the start."""

    policy: File
    approved: Place
    audit: Place
    ledger: Place = Field(default=cast(Path, "privacy/ledger.jsonl"), validate_default=True)
    quarantine: Place
    port: Annotated[int, Field(ge=1, le=65535)] = 9094


class RunSection(Section):
    """What the site expects to train."""

    size: Literal["tiny", "small", "base"] = "base"
    device: Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")] = "cpu"


class Kit(Section):
    """A start-up kit; every path is absolute.

    Attributes
    ----------
    versions
        Packages and their versions at the coordinator, where the kit tells them.
    """

    path: Path
    site: SiteSection
    server: ServerSection
    keys: KeysSection
    guard: GuardSection
    run: RunSection = RunSection()
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def flower(self) -> Path:
        """A folder of the guard's for what Flower writes: unpacked bundles, nothing of the site's."""
        return self.path.parent / "flower"

    @property
    def node_config(self) -> dict[str, bool | int | float | str]:
        """What the site's code is told by the site itself."""
        told = {"site-store": self.site.store, "policy": self.guard.policy, "ledger": self.guard.ledger}
        return {**{name: str(path) for name, path in told.items()}, "device": self.run.device}


def read_kit(path: Path, *, files: bool = True) -> Kit:
    """Read a kit.

    Parameters
    ----------
    path
        Its `site.toml`, or the folder that holds it.
    files
        Look at the files that it names, too: are they there, can others read a private key?

    Raises
    ------
    ConfigError
        With a line for every problem.
    """
    path = (path / "site.toml" if path.is_dir() else path).absolute()
    content: dict[str, Any] = read_toml(path)
    if "path" in content:
        raise ConfigError(f"{path}: cannot be used: path: no such section")
    context = {"folder": path.parent, "files": files}
    return checked(Kit, {**content, "path": path}, path=path, context=context)


def tls_context(kit: Kit) -> ssl.SSLContext:
    """Return how the site speaks to the server: it trusts its consortium only, and shows its certificate.

    Raises
    ------
    ConfigError
        When the certificate, the key or the authority cannot be used.
    """
    keys = kit.keys
    try:
        context = ssl.create_default_context(cafile=str(keys.authority))
        context.load_cert_chain(str(keys.certificate), str(keys.certificate_key), password=_no_password)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            f"{keys.certificate}: the site's certificate cannot be used with its key and authority ({error});"
            " ask the coordinator for a new kit"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _no_password() -> str:
    """Answer for a key that asks for a password, which would otherwise wait at a terminal."""
    return ""
