# SPDX-License-Identifier: Apache-2.0
"""What each way of federating buys, on twins of hospitals that differ strongly: mean and worst site.

python -m benchmarks.federation outputs/federation            # all methods; goes on where it was stopped
python -m benchmarks.federation outputs/federation --table    # what there is so far

Every method trains the same small network for as many steps on the same twins, with the same seed. The
number is the SUVR error of one-step synthesis on each site's validation subjects (64 fixed slabs a site), of
the last model, with the site's own personal parts. `alone` is what a hospital has without a federation.
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.hardware import describe
from pasta_model.config import Scalar, Settings, settings_from_flat
from pasta_model.data.manifest import read_manifest
from pasta_model.data.splits import apply_splits
from pasta_model.data.store import prepare_store
from pasta_model.workers import process_pool
from server.rounds import Federation
from simulation.baselines import train_alone
from simulation.direct import DirectPost
from simulation.twins.cohort import CohortSettings, SiteSettings, build_cohort

# Contrast and resolution from one end of what scanners do to the other.
SITES = (
    SiteSettings(name="alder", subjects=24, vendor="Siemens", field="3 T", contrast=0.7, pet_resolution=4.0),
    SiteSettings(name="birch", subjects=24, vendor="GE", field="1.5 T", contrast=1.0, pet_resolution=6.5),
    SiteSettings(name="cedar", subjects=12, vendor="Philips", field="1.5 T", contrast=1.6, pet_resolution=10),
)
COMMON: dict[str, Scalar] = {
    "network.shape": "width 32, groups 8, patch 4",
    "training.local-steps": 10,
    "training.batch-size": 4,
    "training.dtype": "float32",
    "training.threads": 1,
    "federation.rounds": 14,
    "federation.validation-slabs": 64,
    "federation.min-sites": 3,
}
PERSONAL, UP, DOWN = "exchange.personal", "exchange.uplink", "exchange.downlink"
METHODS: dict[str, dict[str, Scalar]] = {
    "alone": {},
    "fedavg": {},
    "personal norms": {PERSONAL: "norms"},
    "int4 both ways": {UP: "int4", DOWN: "int4"},
    "personal clinical": {PERSONAL: "clinical"},
    "personal stems": {PERSONAL: "stems"},
    "personal heads": {PERSONAL: "heads"},
    "personal norms, stems, heads": {PERSONAL: "norms, stems, heads"},
    "personal decoders": {PERSONAL: "decoders"},
    "personal MRI arm": {PERSONAL: "mri-arm"},
    "fedprox 0.01": {"aggregation.proximal-mu": 0.01},
    "fedavgm 0.5": {"aggregation.rule": "fedavgm", "aggregation.momentum": 0.5},
    "fedadam 0.003": {"aggregation.rule": "fedadam", "aggregation.learning-rate": 0.003},
    "median": {"aggregation.rule": "median"},
    "trimmed mean 0.34": {"aggregation.rule": "trimmed-mean", "aggregation.trim": 0.34},
    "bfloat16 both ways": {UP: "bfloat16", DOWN: "bfloat16"},
    "int8 both ways": {UP: "int8", DOWN: "int8"},
}


def prepare(folder: Path) -> Path:
    """Grow the twins once; every third subject validates."""
    sites = folder / "sites"
    if not (sites / "cedar" / "index.json").is_file():
        tables = build_cohort(CohortSettings(seed=11, sites=SITES), folder / "cohort", workers=1)
        for table in tables:
            sessions = read_manifest(table)
            split = {s.subject: "valid" if n % 3 == 0 else "train" for n, s in enumerate(sessions)}
            prepare_store(sites / sessions[0].site, list(apply_splits(sessions, split)), spacing=3.0)
    return sites


def run(folder: Path, method: str, seed: int) -> None:
    """Train one method; its result is kept when it is complete."""
    result = folder / "results" / f"{method}-{seed}.json"
    if result.is_file():
        return
    output, sites = folder / "runs" / f"{method}-{seed}".replace(" ", "-").replace(",", ""), folder / "sites"
    places: dict[str, Scalar] = {"run.name": output.name, "run.seed": seed, "run.resume": True}
    places |= {"run.output": str(output), "data.sites": str(sites)}
    settings = settings_from_flat(COMMON | METHODS[method] | places)
    errors = _alone(settings, output) if method == "alone" else _together(settings)
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(errors))
    shutil.rmtree(output)


def _together(settings: Settings) -> Mapping[str, float]:
    post = DirectPost(settings, {"partition-id": 0, "num-partitions": 1})
    return Federation(post, settings).run().history[-1].valid_mae


def _alone(settings: Settings, output: Path) -> Mapping[str, float]:
    errors = {}
    for site in SITES:
        train_alone(Path(settings.data.sites) / site.name, settings, output / site.name)
        lines = (output / site.name / "history.jsonl").read_text().splitlines()
        errors |= json.loads(lines[-1])["valid_mae"]
    return errors


def table(folder: Path) -> str:
    """Return what there is, as Markdown."""
    names = [site.name for site in SITES]
    lines = [f"| method | {' | '.join(names)} | mean | worst |", "|---|" + "---|" * (len(names) + 2)]
    for method in METHODS:
        found = [json.loads(p.read_text()) for p in sorted((folder / "results").glob(f"{method}-*.json"))]
        if found:
            means = [sum(f[name] for f in found) / len(found) for name in names]
            cells = [f"{value:.4f}" for value in (*means, sum(means) / len(means), max(means))]
            lines.append(f"| {method} ({len(found)} seeds) | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    words = parser.parse_args()
    if not words.table:
        prepare(words.folder)
        with process_pool(words.workers) as pool:
            jobs = [(m, seed) for seed in range(words.seeds) for m in METHODS]
            for job in [pool.submit(run, words.folder.resolve(), m, seed) for m, seed in jobs]:
                job.result()
    print(describe("cpu"))
    print(table(words.folder))


if __name__ == "__main__":
    main()
