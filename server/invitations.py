# SPDX-License-Identifier: Apache-2.0
"""Who is invited: sites by the public key of their node. 'Whoever is connected' never takes part.

In a deployment the coordinator's `invited.toml` names every site's key. In a simulation no node has one;
there the sites are those whose stores lie on this very machine.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from pasta_model.config import Settings, read_toml
from pasta_model.errors import FederationError, Problems
from pasta_model.federated_sections import FederationSettings


@dataclass(frozen=True)
class Invitations:
    """The list.

    Attributes
    ----------
    keys
        Site by SHA-256 of its node's public key; empty in a simulation.
    limits
        The most training subjects that a site may claim.
    """

    keys: Mapping[str, str]
    limits: Mapping[str, int]

    @property
    def sites(self) -> frozenset[str]:
        """All invited sites."""
        return frozenset(self.limits)

    @property
    def by_key(self) -> bool:
        """Whether nodes are known by their keys: not in a simulation."""
        return bool(self.keys)

    def site_of(self, key: str) -> str | None:
        """Return whose key it is; None for a stranger's."""
        return self.keys.get(key)


def invitations(settings: Settings) -> Invitations:
    """Read who is invited to a run.

    Raises
    ------
    FederationError
        When the list cannot be used, or there is nobody on it.
    """
    f = settings.federation
    invited = _by_key(f) if f.invited else _prepared_here(settings)
    unknown = sorted(f.held_out_sites - invited.sites)
    if unknown:  # misspelt, a held-out site would train
        raise FederationError(
            f"federation.held-out names {', '.join(unknown)}; invited are {', '.join(sorted(invited.sites))}"
        )
    return invited


def _by_key(f: FederationSettings) -> Invitations:
    table = read_toml(Path(f.invited)).get("sites", {})
    problems = Problems(f"{f.invited}: the list of invited sites cannot be used")
    keys: dict[str, str] = {}
    limits: dict[str, int] = {}
    for name, entry in table.items() if isinstance(table, dict) else ():
        if not isinstance(entry, dict):
            problems.add(f"site {name!r}: found {entry!r}, wanted a table with its key")
            continue
        if not re.fullmatch(r"\w[\w.-]*", name):
            problems.add(f"site {name!r}: wanted a name of letters, digits and _ . -")
            continue
        key, limit = entry.get("key"), entry.get("max-subjects", f.max_subjects)
        if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{64}", key):
            problems.add(f"site {name!r}: key is {key!r}, wanted the SHA-256 of a public key")
        elif key in keys:
            problems.add(f"sites {keys[key]!r} and {name!r} have the same key")
        elif isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            problems.add(f"site {name!r}: max-subjects is {limit!r}, wanted a positive number")
        else:
            keys[key], limits[name] = name, limit
    problems.raise_if_any(FederationError)
    if not keys:
        raise FederationError(f"{f.invited}: nobody is invited; add a site with 'pasta-server add-site'")
    return Invitations(keys, limits)


def key_fingerprint(pem: bytes) -> str:
    """SHA-256 of a public key (DER, SubjectPublicKeyInfo), given as PEM; empty when there is none."""
    if not pem:
        return ""
    try:
        key = load_pem_public_key(pem)
    except ValueError:
        return ""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _with_held_out(invited: Invitations, settings: Settings) -> Invitations:
    """Refuse a held-out site that nobody knows: misspelt, it would train."""
    unknown = sorted(settings.federation.held_out_sites - invited.sites)
    if unknown:
        raise FederationError(
            f"federation.held-out names {', '.join(unknown)}; invited are {', '.join(sorted(invited.sites))}"
        )
    return invited


def _prepared_here(settings: Settings) -> Invitations:
    """In a simulation: the sites whose stores are on this machine."""
    root, names = Path(settings.data.sites), []
    for index in sorted(root.glob("[!.]*/index.json")):
        try:
            names.append(str(json.loads(index.read_text(encoding="utf-8"))["site"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the site itself says what is wrong with it
    if not names:
        raise FederationError(
            "nobody is invited: set federation.invited to the list of the sites' keys that 'pasta-server"
            " provision' wrote. In a simulation, data.sites must hold prepared sites ('make demo' makes"
            f" them); found none in {root.resolve()}"
        )
    return Invitations({}, dict.fromkeys(names, settings.federation.max_subjects))
