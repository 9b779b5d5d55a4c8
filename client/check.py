# SPDX-License-Identifier: Apache-2.0
"""Whether a site is ready to join: every check in one go, a tick or a cross each."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from client.audit import AuditLog
from client.checks.finding import Finding, look, tick
from client.checks.house import (
    AUDIT,
    LEDGER,
    POLICY,
    VERSIONS,
    check_audit,
    check_ledger,
    check_policy,
    check_versions,
)
from client.checks.machine import (
    DEVICE,
    DISK,
    MEMORY,
    STORE,
    check_device,
    check_disk,
    check_memory,
    check_store,
)
from client.checks.secrets import CERTIFICATE, NODE_KEY, check_certificate, check_node_key
from client.checks.server import SERVER, Door, check_server
from client.kit import Kit, read_kit
from client.policy import read_policy
from pasta_model.errors import PastaError

KIT = "site.toml"
FINEST_MM = 1.5


def check_site(path: Path) -> Iterator[Finding]:
    """Yield what every check finds, as it is found; nothing is changed.

    Parameters
    ----------
    path
        The kit's `site.toml`, or its folder.
    """
    kits: list[Kit] = []

    def kit() -> Iterator[Finding]:
        kits.append(read_kit(path, files=False))  # its files have checks of their own
        yield tick(KIT, f"site {kits[0].site.name} of the consortium {kits[0].site.consortium}")

    yield from look(KIT, kit)
    for found in kits:
        for name, check in _checks(found):
            yield from look(name, check)


def _checks(kit: Kit) -> Iterator[tuple[str, Callable[[], Iterator[Finding]]]]:
    keys, site, expected = kit.keys, kit.site, kit.run
    yield POLICY, partial(check_policy, kit.guard.policy)
    yield STORE, partial(check_store, site.store, site=site.name, min_subjects=_min_subjects(kit))
    yield DISK, partial(check_disk, site.store, size=expected.size)
    yield DEVICE, partial(check_device, expected.device)
    yield MEMORY, partial(check_memory, expected.device, size=expected.size, spacing=_spacing(kit))
    own = partial(check_certificate, keys.certificate, key=keys.certificate_key)
    yield CERTIFICATE, partial(own, authority=keys.authority, site=site.name)
    yield NODE_KEY, partial(check_node_key, keys.node)
    yield SERVER, partial(check_server, _door(kit))
    yield VERSIONS, partial(check_versions, kit.versions)
    log = AuditLog(kit.guard.audit, site=site.name, consortium=site.consortium)
    yield LEDGER, partial(check_ledger, kit.guard.ledger, site.store, policy=kit.guard.policy, log=log)
    yield AUDIT, partial(check_audit, kit.guard.audit, site=site.name, consortium=site.consortium)


def _door(kit: Kit) -> Door:
    keys = kit.keys
    return Door(
        address=kit.server.address,
        authority=keys.authority,
        certificate=keys.certificate,
        key=keys.certificate_key,
    )


def _min_subjects(kit: Kit) -> int | None:
    """Return what the policy wants; a policy that cannot be read has a cross of its own."""
    try:
        return read_policy(kit.guard.policy).min_subjects
    except PastaError:
        return None


def _spacing(kit: Kit) -> float:
    """Return the voxel size of the prepared scans; the finest where they cannot be read."""
    from pasta_model.data.store import SiteStore

    try:
        return SiteStore(kit.site.store).template.head.spacing
    except PastaError:
        return FINEST_MM
