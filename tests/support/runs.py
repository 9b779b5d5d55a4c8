# SPDX-License-Identifier: Apache-2.0
"""Three prepared sites of twins, and what two runs must have in common to be the same run."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from client.audit import AuditLog
from client.kit import read_kit
from pasta_model.checkpoint import load_checkpoint
from pasta_model.data.manifest import read_manifest
from pasta_model.data.splits import apply_splits, assign_splits
from pasta_model.data.store import prepare_store
from server.deployment.flower import script
from simulation.twins.cohort import CohortSettings, SiteSettings, build_cohort

ROOT = Path(__file__).parents[2]
TWINS = {"min-subjects": "1", "metrics-min-subjects": "1"}  # policies: twins are few
SITES = ("alder", "birch", "cedar")
MODELS = ("model", "last", "average")
THIRDS = (0.34, 0.33, 0.33)
COHORT = CohortSettings(
    seed=5, sites=tuple(SiteSettings(name=name, subjects=6, mix=THIRDS) for name in SITES)
)


def prepare_sites(root: Path) -> dict[str, Path]:
    """Prepare the three sites, of six digital twins each."""
    tables = build_cohort(COHORT, root / "cohort", workers=1)
    sessions = [session for table in tables for session in read_manifest(table)]
    split = apply_splits(sessions, assign_splits(sessions, seed=COHORT.seed))
    for site in SITES:
        prepare_store(root / "sites" / site, [s for s in split if s.site == site], spacing=3.0)
    return {site: root / "sites" / site for site in SITES}


def build_bundle(folder: Path) -> Path:
    """Build this repository's bundle, as a coordinator would."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [script("flwr"), "build", "--app", str(ROOT)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (found,) = folder.glob("*.fab")
    return found


def audit(kit: Path) -> list[dict[str, Any]]:
    """The lines of a site's log, whose chain holds."""
    site = read_kit(kit)
    log = AuditLog(site.guard.audit, site=site.site.name, consortium=site.site.consortium)
    chain = log.verify()
    assert chain.holds, chain
    return list(log.entries())


def events(output: Path, kind: str) -> list[dict[str, Any]]:
    """What a run has told of a kind."""
    log = output / "events.jsonl"
    lines = log.read_text().splitlines() if log.is_file() else []
    return [event for line in lines if (event := json.loads(line))["event"] == kind]


def history(output: Path) -> list[dict[str, Any]]:
    """The rounds of a run, as they are told."""
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def assert_same_run(found: Path, wanted: Path) -> None:
    """Two runs went through the same numbers and ended with the same weights, bit for bit."""
    told = [
        [(r["round"], r["loss"], r["valid_mae"], r["shares"]) for r in history(p)] for p in (found, wanted)
    ]
    assert told[0] == told[1]
    for name in MODELS:
        a, b = (load_checkpoint(path / f"{name}.safetensors") for path in (found, wanted))
        assert (a.round, a.standardisation) == (b.round, b.standardisation), name
        assert a.state.keys() == b.state.keys()
        assert all(torch.equal(a.state[key], b.state[key]) for key in b.state), name


def _figures(output: Path) -> list[tuple[Any, ...]]:
    """What of the history does not depend on the clock or the network."""
    return [(r["round"], r["loss"], r["valid_mae"], r["shares"], r["norms"]) for r in history(output)]
