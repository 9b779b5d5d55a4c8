# SPDX-License-Identifier: Apache-2.0
"""How well raw scans are prepared: raw-looking twins against their truth, a real head against itself.

python -m benchmarks.prepare --subjects 6
python -m benchmarks.prepare --real ch2.nii.gz     # a real T1 (Colin27), in several poses
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.hardware import describe
from pasta_model.data.grid import template
from pasta_model.data.metaroi import METAROI_REGIONS
from pasta_model.data.volume import read_volume
from pasta_model.native import to_native
from pasta_model.prepare.folders import prepare_one, session_folder
from pasta_model.prepare.matching import match
from pasta_model.prepare.records import Pair
from pasta_model.prepare.scans import Scan
from pasta_model.prepare.session import prepare_scans
from pasta_model.prepare.settings import PrepareSettings
from pasta_model.prepare.sources import read_source
from pasta_model.prepare.transforms import (
    AFFINE,
    RIGID,
    WARP,
    Alignment,
    grid_volume,
    matrix_of,
    resample,
    write_both,
)
from pasta_model.workers import process_pool
from simulation.twins.cohort import SiteSettings
from simulation.twins.pose import apply, turned
from simulation.twins.raw import RawCohortSettings, RawTruth, read_truth, write_raw_dataset

CENTRES = np.array([region.centre for region in METAROI_REGIONS])


def through(folder: Path, points: np.ndarray) -> np.ndarray:
    """Follow points of the atlas to the raw MRI: the fitted warp, then the affine; mm."""
    moved = points.astype(np.float64)
    if (folder / WARP).is_file():
        import nibabel as nib

        image = nib.load(folder / WARP)
        field = np.asarray(image.dataobj, np.float64)[:, :, :, 0, :] * [-1, -1, 1]  # LPS
        index = apply(np.linalg.inv(image.affine), points).T
        moved = moved + np.stack(
            [ndimage.map_coordinates(field[..., k], index, order=1) for k in range(3)], axis=-1
        )
    return apply(matrix_of(folder / AFFINE), moved)


def measure(pair: Pair, output: Path, truth: RawTruth, twin: Path) -> dict[str, object]:
    """Compare a prepared raw twin with its truth."""
    folder = session_folder(output, pair)
    record = json.loads((folder / "prepare.json").read_text())
    there = apply(truth.head_to_mri, np.array(list(truth.landmarks.values())))  # where they really are
    affine = apply(matrix_of(folder / "xfm" / AFFINE), CENTRES)
    rigid = apply(matrix_of(folder / "xfm" / RIGID), there)
    pet_truth = apply(truth.head_to_pet, np.array(list(truth.landmarks.values())))
    errors = [100 * (record["regions"][n] / truth.regions[n] - 1) for n in truth.regions]
    mean = 100 * (np.mean(list(record["regions"].values())) / np.mean(list(truth.regions.values())) - 1)
    real, made = read_volume(twin), read_volume(next((folder / "pet").glob("*.nii.gz")))
    # the truth, brought where the registration put the brain: what differs is noise and interpolation
    raw = read_volume(pair.mri.path)
    pose = Alignment(Path(tempfile.mkdtemp()))
    write_both(pose.folder, np.asarray(truth.head_to_mri))
    native = resample(real, onto=raw, transforms=pose.from_mri)
    onto = resample(native, onto=grid_volume(template(1.5).head), transforms=[str(folder / "xfm" / AFFINE)])
    inside = made.data > 0
    alignment = Alignment(folder / "xfm")
    back = resample(made, onto=raw, transforms=alignment.from_mri)
    brain = (back.data > 0) & (native.data > 0)
    return {
        "subject": pair.name,
        "affine_mm": np.linalg.norm(affine - there, axis=1).round(2).tolist(),
        "atlas_mm": np.linalg.norm(through(folder / "xfm", CENTRES) - there, axis=1).round(2).tolist(),
        "pet_mm": np.linalg.norm(rigid - pet_truth, axis=1).round(2).tolist(),
        "suvr_percent": np.round(errors, 2).tolist(),
        "metaroi_percent": round(float(mean), 2),
        "pet_correlation": round(float(np.corrcoef(made.data[inside], onto.data[inside])[0, 1]), 4),
        "native_correlation": round(float(np.corrcoef(back.data[brain], native.data[brain])[0, 1]), 4),
        "figures": record["figures"],
        "seconds": round(sum(s.get("seconds", 0) for s in record["steps"]), 1),
        "steps": {s["step"]: s.get("seconds") for s in record["steps"]},
    }


def twins(subjects: int, workers: int, registration: str) -> None:
    """Prepare raw twins and print how far they are from the truth."""
    with tempfile.TemporaryDirectory() as name:
        sites = (SiteSettings(name="alder", subjects=subjects),)
        raw = write_raw_dataset(Path(name) / "raw", RawCohortSettings(seed=11, sites=sites))
        pairs, _ = match(read_source([raw]))
        output = Path(name) / "out"
        output.mkdir()
        start = time.monotonic()
        with process_pool(workers) as pool:
            settings = PrepareSettings(registration=registration)
            for record in [pool.submit(prepare_one, p, output, settings) for p in pairs]:
                if "error" in record.result():
                    print(record.result()["error"])
        minutes = (time.monotonic() - start) / 60 / len(pairs)
        rows = []
        for pair in pairs:
            stem = raw / "truth" / pair.name
            rows.append(
                measure(pair, output, read_truth(stem.with_suffix(".json")), Path(f"{stem}_pet.nii.gz"))
            )
            print(json.dumps(rows[-1]))
    for key in ("affine_mm", "atlas_mm", "pet_mm"):
        values = np.concatenate([row[key] for row in rows])
        print(f"{key}: median {np.median(values):.2f}, 90 % below {np.quantile(values, 0.9):.2f} mm")
    regions = np.abs(np.concatenate([row["suvr_percent"] for row in rows]))
    means = np.abs([row["metaroi_percent"] for row in rows])
    print(f"SUVR error, a region: median {np.median(regions):.2f} %, largest {regions.max():.2f} %")
    print(f"SUVR error, MetaROI: median {np.median(means):.2f} %, largest {means.max():.2f} %")
    print(f"{minutes:.2f} minutes a subject with {workers} processes; {describe('cpu')}")


def real(path: Path) -> None:
    """Turn a real head into several poses: the same brain must come out, whatever the pose."""
    head = read_volume(path)
    rng = np.random.default_rng(3)
    places = []
    for _ in range(3):
        pose = np.eye(4)
        pose[:3, :3] = np.asarray(turned(rng.uniform(-12, 12, 3)))[:3, :3]
        pose[:3, 3] = rng.uniform(-25, 25, 3)
        posed = replace(head, affine=pose @ head.affine)
        with tempfile.TemporaryDirectory() as name:
            start = time.monotonic()
            made = prepare_scans(Scan(posed), None, Path(name))
            seconds = time.monotonic() - start
            places.append(apply(np.linalg.inv(pose), apply(matrix_of(Path(name) / AFFINE), CENTRES)))
            back = to_native(made.mri, made)
            inside = back.data > 0
            same = np.corrcoef(back.data[inside], head.data[inside])[0, 1]
        print(json.dumps({"seconds": round(seconds, 1), "round_trip": round(float(same), 4), **made.figures}))
    apart = np.linalg.norm(np.array(places) - np.mean(places, axis=0), axis=-1)
    print(f"from pose to pose, MetaROI centres move by {apart.max():.3f} mm at most")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--registration", default="affine")
    parser.add_argument("--real", type=Path)
    options = parser.parse_args()
    real(options.real) if options.real else twins(options.subjects, options.workers, options.registration)
