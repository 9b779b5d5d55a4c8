# SPDX-License-Identifier: Apache-2.0
"""What a bundle of code (.fab) contains, for a person who decides whether it may run here.

A bundle is a zip with a manifest of its files. It comes from the other side, so nothing of it is believed
before it is checked, and nothing of it is unpacked.
"""

import difflib
import hashlib
import importlib.util
import io
import stat
import tomllib
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from pasta_model.config import Scalar
from pasta_model.errors import BundleError, Problems

MAX_BYTES = 10 * 2**20  # Flower makes none larger
MAX_UNPACKED = 64 * 2**20
MAX_FILES = 2000
MANIFEST, PROJECT = ".info/CONTENT", "pyproject.toml"
PACKAGES = ("client", "pasta_model", "server", "simulation")
AT_THE_SITE = ("client", "pasta_model")
OWN_APP = "client.client_app:app"
SUFFIXES = {".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl"}


class Standing(StrEnum):
    """How a file of a bundle compares with the package that is installed here."""

    SAME = "same"
    CHANGED = "changed"
    NEW = "new"


@dataclass(frozen=True)
class BundleFile:
    """A file of a bundle; `installed` is what lies in its place here."""

    path: str
    content: bytes
    installed: bytes | None

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def standing(self) -> Standing:
        """Compare with what is installed."""
        if self.installed is None:
            return Standing.NEW
        return Standing.SAME if self.content == self.installed else Standing.CHANGED

    @property
    def runs_here(self) -> bool:
        """Whether the site's process imports it: all code but the server's and the simulation's."""
        top = PurePosixPath(self.path).parts[0]
        return self.path.endswith(".py") and (top in AT_THE_SITE or top not in PACKAGES)

    def diff(self) -> list[str]:
        """Lines of a unified diff from what is installed; what a terminal would obey is spelt out."""
        old = visible((self.installed or b"").decode(errors="replace")).splitlines()
        new = visible(self.content.decode(errors="replace")).splitlines()
        return list(
            difflib.unified_diff(old, new, f"installed/{self.path}", f"bundle/{self.path}", lineterm="")
        )


@dataclass(frozen=True)
class Bundle:
    """A bundle that is whole: its manifest fits its files."""

    hash: str
    publisher: str
    name: str
    version: str
    client_app: str
    config: dict[str, Scalar]
    files: tuple[BundleFile, ...]

    @property
    def title(self) -> str:
        """Return publisher, name and version."""
        return f"{self.publisher}/{self.name} {self.version}"

    def of(self, standing: Standing) -> list[BundleFile]:
        """Files that compare so with what is installed."""
        return [file for file in self.files if file.standing is standing]


def digest_of(content: bytes) -> str:
    """Return the hash by which a bundle is approved: of all its bytes, as they came."""
    return hashlib.sha256(content).hexdigest()


def read_bundle(content: bytes) -> Bundle:
    """Look into a bundle, unpacking nothing.

    Raises
    ------
    BundleError
        When it is no zip, holds what could leave its folder or fill the disk, or does not fit its manifest.
    """
    if len(content) > MAX_BYTES:
        raise BundleError(f"the bundle has {len(content):,} bytes, wanted at most {MAX_BYTES:,}")
    files = _unzipped(content)
    _check_manifest(files.pop(MANIFEST, None), files)
    project = _project(files)
    flower = project["tool"]["flwr"]["app"]
    return Bundle(
        hash=digest_of(content),
        publisher=visible(str(flower["publisher"])),
        name=visible(str(project["project"]["name"])),
        version=visible(str(project["project"]["version"])),
        client_app=visible(str(flower["components"].get("clientapp", "none"))),
        config=_flat(flower.get("config", {})),
        files=tuple(BundleFile(name, files[name], _installed(name, files[name])) for name in sorted(files)),
    )


def visible(text: str) -> str:
    """Spell out what a terminal would obey or hide, so that code cannot be made to look like other code."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"<U+{ord(c):04X}>" for c in text)


def _unzipped(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_names(archive.infolist())
            return _contents(archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BundleError(f"the bundle is damaged: {visible(str(error))}") from error


def _check_names(members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_FILES:
        raise BundleError(f"the bundle holds {len(members)} files, wanted at most {MAX_FILES}")
    problems = Problems("the bundle is not one that Flower makes")
    seen: set[str] = set()
    for member in members:
        if wrong := _wrong_with(member):
            problems.add(f"{visible(member.orig_filename)}: {wrong}")
        if member.filename.casefold() in seen:
            problems.add(f"{visible(member.orig_filename)}: is there twice")
        seen.add(member.filename.casefold())
    problems.raise_if_any(BundleError)


def _wrong_with(member: zipfile.ZipInfo) -> str:
    """Say why a file of a bundle cannot be accepted, or nothing."""
    name, path = member.orig_filename, PurePosixPath(member.orig_filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in name or str(path) != name:
        return "is not a plain path inside the bundle"
    if not name.isprintable() or ":" in name:
        return "has characters that no file name needs"
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device, wanted a file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if name not in (MANIFEST, "LICENSE") and (path.suffix not in SUFFIXES or path.parts[0] == ".info"):
        return f"is not of a kind that bundles hold: {', '.join(sorted(SUFFIXES))}"
    return ""


def _contents(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """Read every file, but never more than its share of what is allowed: sizes in a zip are only claims."""
    files, left = {}, MAX_UNPACKED
    for member in archive.infolist():
        with archive.open(member) as file:
            data = file.read(left + 1)
        left -= len(data)
        if left < 0:
            raise BundleError(f"the bundle unpacks to more than {MAX_UNPACKED:,} bytes")
        files[member.filename] = data
    return files


def _check_manifest(manifest: bytes | None, files: dict[str, bytes]) -> None:
    if manifest is None:
        raise BundleError(f"the bundle has no manifest ({MANIFEST})")
    problems = Problems("the bundle does not fit its manifest")
    named: set[str] = set()
    for line in manifest.decode(errors="replace").splitlines():
        name, _, rest = line.partition(",") if line.count(",") == 2 else ("", "", "")
        if name in named or name not in files:
            problems.add(f"found {visible(line)!r}, wanted a file of the bundle, its SHA-256 and bits")
            continue
        named.add(name)
        if rest != f"{digest_of(files[name])},{8 * len(files[name])}":
            problems.add(f"{name}: is not what the manifest says")
    for name in sorted(files.keys() - named):
        problems.add(f"{name}: is not in the manifest")
    problems.raise_if_any(BundleError)


def _project(files: dict[str, bytes]) -> dict[str, Any]:
    try:
        project = tomllib.loads(files[PROJECT].decode())
        _ = project["project"]["name"], project["project"]["version"]
        _ = project["tool"]["flwr"]["app"]["publisher"], project["tool"]["flwr"]["app"]["components"].get
    except KeyError as error:
        raise BundleError(f"the bundle's {PROJECT} lacks {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"the bundle's {PROJECT} cannot be read: {visible(str(error))}") from error
    return project


def _flat(table: dict[str, Any], start: str = "") -> dict[str, Scalar]:
    flat: dict[str, Scalar] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{start}{name}.")
        else:
            flat[f"{start}{name}"] = value
    return flat


def _installed(name: str, content: bytes) -> bytes | None:
    """Return what lies here in the place of a bundle's file; None when nothing does."""
    root = _root_of(PurePosixPath(name).parts[0] if "/" in name else "client")
    if root is None or not (root / name).is_file():
        return None
    installed = (root / name).read_bytes()
    if name == PROJECT and _means_the_same(installed, content):
        return content  # Flower writes this one anew: the same content in another layout
    return installed


def _means_the_same(installed: bytes, content: bytes) -> bool:
    try:
        return tomllib.loads(installed.decode()) == tomllib.loads(content.decode())
    except ValueError:
        return False


def _root_of(package: str) -> Path | None:
    """Return the folder in which a package of ours is installed."""
    if package not in PACKAGES:
        return None
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parents[1] if spec and spec.origin else None
