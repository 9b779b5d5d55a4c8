# SPDX-License-Identifier: Apache-2.0
"""Which bundles a site has approved (`approved.toml`), and those that wait for it (`quarantine/`)."""

import getpass
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from client.bundles import MAX_BYTES, Bundle, digest_of, visible
from client.tables import checked
from pasta_model.config import read_toml
from pasta_model.errors import BundleError
from pasta_model.files import write_text
from pasta_model.sections import Section

KEPT_BUNDLES = 8  # so that nobody fills a site's disk by sending code
SHORTEST_HASH = 8

_HEADING = "# Code that may run at this site; written by 'pasta-client approve'.\n"


class Approval(Section):
    """A bundle that a person let in."""

    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    name: str
    approved: str
    by: str


class Approvals(Section):
    """All of them."""

    bundles: list[Approval] = Field(default_factory=list)


def read_approved(path: Path) -> dict[str, Approval]:
    """Return the approved bundles by hash; a site without the file has approved none.

    Raises
    ------
    ConfigError
        When the file is there and cannot be used.
    """
    if not path.exists():
        return {}
    return {a.hash: a for a in checked(Approvals, read_toml(path), path=path).bundles}


def approve(path: Path, bundle: Bundle) -> Approval:
    """Let a bundle run from its next message on."""
    approval = Approval(
        hash=bundle.hash,
        name=bundle.title,
        approved=datetime.now(UTC).isoformat(timespec="seconds"),
        by=visible(getpass.getuser()),
    )
    _write(path, read_approved(path) | {bundle.hash: approval})
    return approval


def withdraw(path: Path, word: str) -> Approval:
    """Let a bundle run no more: its next message is refused.

    Raises
    ------
    BundleError
        When no approved bundle has a hash that begins so, or several have.
    """
    approved = read_approved(path)
    found = _one(word, [*approved], place=str(path))
    gone = approved.pop(found)
    _write(path, approved)
    return gone


def bundle_of(word: str, quarantine: Path) -> bytes:
    """Find a bundle by its file, or by the first letters of its hash among those that wait.

    Raises
    ------
    BundleError
        When there is none, or its content is not what its name says.
    """
    file = Path(word)
    if not file.is_file():
        waiting = {path.stem: path for path in quarantine.glob("*.fab")}
        file = waiting[_one(word, [*waiting], place=f"{quarantine} (or a file of that name)")]
    with file.open("rb") as opened:
        content = opened.read(MAX_BYTES + 1)
    if file.parent.resolve() == quarantine.resolve() and digest_of(content) != file.stem:
        raise BundleError(f"{file}: its content is not what its name says; delete it")
    return content


def keep_waiting(quarantine: Path, content: bytes) -> bool:
    """Keep a bundle that nobody has approved, so that a person can look at it; the oldest give way.

    Returns
    -------
    bool
        Whether it is kept: one that is larger than any bundle of Flower's is not.
    """
    if len(content) > MAX_BYTES:
        return False
    quarantine.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = quarantine / f"{digest_of(content)}.fab"
    if not target.exists():
        partial = target.with_suffix(".partial")
        partial.write_bytes(content)
        partial.replace(target)
    target.touch()
    kept = sorted(quarantine.glob("*.fab"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEPT_BUNDLES]:
        old.unlink()
    return True


def waiting_bundle(quarantine: Path, digest: str) -> bytes | None:
    """Return a bundle that waits, so that it need not be fetched again; None when it does not."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):  # a server may call its bundle ../../anything
        return None
    file = quarantine / f"{digest}.fab"
    content = file.read_bytes() if file.is_file() and file.stat().st_size <= MAX_BYTES else b""
    return content if digest_of(content) == digest else None


def _one(word: str, hashes: list[str], *, place: str) -> str:
    found = [known for known in hashes if known.startswith(word.lower())]
    if len(word) < SHORTEST_HASH or not found:
        known = ", ".join(sorted(h[:12] for h in hashes)) or "none"
        raise BundleError(
            f"{word}: no bundle in {place} has a hash that begins so; wanted at least {SHORTEST_HASH} letters"
            f" of one of: {known}"
        )
    if len(found) > 1:
        raise BundleError(f"{word}: {len(found)} bundles in {place} begin so; give more letters")
    return found[0]


def _write(path: Path, approved: Mapping[str, Approval]) -> None:
    blocks = [
        "[[bundles]]\n"
        + "".join(f"{k} = {json.dumps(v, ensure_ascii=False)}\n" for k, v in approval.model_dump().items())
        for approval in approved.values()
    ]
    write_text(path, "\n".join([_HEADING, *blocks]))
