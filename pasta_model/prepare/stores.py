# SPDX-License-Identifier: Apache-2.0
"""The stores of prepared sites, made again only when what they are made from has changed."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pasta_model.data.manifest import Session
from pasta_model.data.store import prepare_store
from pasta_model.files import write_json

RECORD = "stores.json"  # site -> digest of what its store was made from


def write_stores(
    output: Path,
    sessions: Sequence[Session],
    records: Mapping[str, Mapping[str, Any]],
    *,
    spacing: float,
    metaroi: Path | None,
) -> tuple[Path, ...]:
    """Write a store for each site, and remove those of sites that have no session any more.

    A store that would come out the same is left alone, with the state that a client keeps in it.
    """
    made = _read(output / RECORD)
    wanted: dict[str, str] = {}
    paths = []
    for site in sorted({s.site for s in sessions}):
        own = [s for s in sessions if s.site == site]
        wanted[site] = _digest(own, records, metaroi)
        path = output / "sites" / site
        if made.get(site) != wanted[site] or not (path / "index.json").is_file():
            prepare_store(path, own, spacing=spacing, metaroi=metaroi)
        paths.append(path)
    for gone in made.keys() - wanted.keys():
        shutil.rmtree(output / "sites" / gone, ignore_errors=True)
    write_json(output / RECORD, wanted)
    return tuple(paths)


def _digest(
    sessions: Sequence[Session], records: Mapping[str, Mapping[str, Any]], metaroi: Path | None
) -> str:
    about = [
        [
            s.name,
            s.split,
            s.diagnosis,
            dict(s.clinical),
            records[s.name]["inputs"],
            records[s.name]["settings"],
        ]
        for s in sorted(sessions, key=lambda s: s.name)
    ]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    digest.update(b"" if metaroi is None else metaroi.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
