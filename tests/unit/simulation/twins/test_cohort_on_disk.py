# SPDX-License-Identifier: Apache-2.0
"""What build_cohort writes, and that the same settings give the same bytes."""

import csv
import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydantic import ValidationError

from pasta_model.data.grid import template
from pasta_model.data.metaroi import reference_mask, region_masks
from pasta_model.errors import ConfigError, PastaError
from simulation.twins import anatomy
from simulation.twins.cohort import CohortSettings, SiteSettings, build_cohort, site_scanner

COLUMNS = ["participant_id", "session_id", "site", "diagnosis", "age", "sex", "education"]
COLUMNS += ["mmse", "adas13", "apoe4", "mri", "pet"]
SITES = (
    SiteSettings(name="north", subjects=5, mix=(0.6, 0.2, 0.2), vendor="Siemens", field="3 T"),
    SiteSettings(name="south", subjects=3, mix=(0.0, 0.0, 1.0), vendor="GE", missing_adas13=1.0),
)
SETTINGS = CohortSettings(seed=3, sites=SITES)
HEAD = template(3.0).head


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("twins") / "cohort"
    seen: list[tuple[int, int]] = []
    tables = build_cohort(SETTINGS, out, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 8) for done in range(1, 9)]
    assert tables == (out / "north" / "participants.tsv", out / "south" / "participants.tsv")
    return out


def test_the_same_settings_give_the_same_bytes_with_another_number_of_processes(
    cohort: Path, tmp_path: Path
) -> None:
    build_cohort(SETTINGS, tmp_path / "again", workers=1)
    first = digests(cohort)
    assert len(first) == 2 + 2 * 2 + 8 * 3  # description, README; tables; scans and sidecars
    assert digests(tmp_path / "again") == first


def test_another_seed_gives_other_scans(cohort: Path, tmp_path: Path) -> None:
    build_cohort(SETTINGS.model_copy(update={"seed": 4, "sites": SITES[1:]}), tmp_path / "other", workers=1)
    mine = digests(cohort / "south")
    other = digests(tmp_path / "other" / "south")
    scans = {mine[name] for name in mine if name.endswith(".nii.gz")}
    assert scans.isdisjoint(other.values())


def test_the_participants_table_has_the_agreed_columns_and_values(cohort: Path) -> None:
    rows = [row for name in ("north", "south") for row in table(cohort / name / "participants.tsv")]
    assert list(rows[0]) == COLUMNS
    assert [row["participant_id"] for row in rows] == [f"sub-A{n:04d}" for n in range(1, 6)] + [
        f"sub-B{n:04d}" for n in range(1, 4)
    ]
    for row in rows:
        assert row["diagnosis"] in {"CN", "MCI", "Dementia"}
        assert row["sex"] in {"F", "M"}
        assert 55 <= float(row["age"]) <= 92
        for kind in ("mri", "pet"):
            assert (cohort / row["site"] / row[kind]).is_file()
    south = [row for row in rows if row["site"] == "south"]
    assert {row["diagnosis"] for row in south} == {"Dementia"}
    assert {row["adas13"] for row in south} == {"n/a"}


def test_scans_lie_on_the_head_grid_and_the_reference_of_a_pet_is_one(cohort: Path) -> None:
    reference = reference_mask(HEAD)
    truth = {row["participant_id"]: row for row in table(cohort / "north" / "truth.tsv")}
    for row in table(cohort / "north" / "participants.tsv"):
        mri, pet = (nib.load(cohort / "north" / row[kind]) for kind in ("mri", "pet"))
        for image in (mri, pet):
            assert image.shape == HEAD.shape
            np.testing.assert_allclose(image.affine, HEAD.affine)
        uptake = pet.get_fdata()
        assert uptake[reference].mean() == pytest.approx(1.0, abs=1e-5)
        index = np.mean([uptake[mask].mean() for mask in region_masks(HEAD).values()])
        mine = truth[row["participant_id"]]
        assert index == pytest.approx(float(mine["measured_suvr"]), abs=1e-4)
        # Site resolution and noise move the index a little away from the target at 6.5 mm.
        assert index == pytest.approx(float(mine["target_suvr"]), abs=0.12)
        assert float(mine["jac_min"]) > 0


def test_the_mri_is_stripped_of_the_skull_and_brighter_in_white_matter(cohort: Path) -> None:
    row = table(cohort / "north" / "participants.tsv")[0]
    mri = nib.load(cohort / "north" / row["mri"]).get_fdata()
    maps = anatomy.load_anatomy("icbm152", spacing=3.0).maps
    white = maps[..., anatomy.CHANNELS.index("white")] > 0.9
    grey = maps[..., anatomy.CHANNELS.index("grey")] > 0.9
    fluid = maps[..., anatomy.CHANNELS.index("ventricles")] > 0.9
    assert mri[white].mean() > 1.1 * mri[grey].mean() > 1.2 * mri[fluid].mean()
    assert (mri[0] == 0).all()
    assert 0.15 < (mri > 0).mean() < 0.45


def test_it_says_that_these_are_not_patients(cohort: Path) -> None:
    description = json.loads((cohort / "dataset_description.json").read_text(encoding="utf-8"))
    assert "not patients" in description["Statement"]
    assert CohortSettings.model_validate(description["GeneratedBy"][0]["Settings"]) == SETTINGS
    assert "not patients" in (cohort / "README").read_text(encoding="utf-8")
    sidecars = list(cohort.rglob("*_pet.json"))
    assert len(sidecars) == 8
    for path in sidecars:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
        assert sidecar["Synthetic"] is True
        assert sidecar["Units"] == "SUVR"
        assert "not patients" in sidecar["Description"]


def test_sites_have_different_scanners() -> None:
    north, south = (site_scanner(site, seed=3) for site in SITES)
    assert (north.vendor, north.field, south.vendor) == ("Siemens", "3 T", "GE")
    assert north.resolution != south.resolution
    assert site_scanner(SITES[0], seed=3) == north
    assert site_scanner(SITES[0], seed=4) != north


def test_another_directory_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not a cohort"):
        build_cohort(SETTINGS, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cohort(SETTINGS, tmp_path / "cohort", workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(anatomy.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PastaError, match="pip install --no-deps deepmriprep"):
        build_cohort(SETTINGS.model_copy(update={"anatomies": ("ixi",)}), tmp_path / "cohort")
    assert not (tmp_path / "cohort").exists()


def test_an_unknown_anatomy_is_refused() -> None:
    with pytest.raises(ConfigError, match="icbm152"):
        anatomy.check_anatomies(("atlantis",))


@pytest.mark.parametrize(
    ("field", "value"),
    [("mix", (0.5, 0.5, 0.5)), ("name", "../elsewhere"), ("subjects", 0), ("colour", "red")],
)
def test_impossible_sites_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        SiteSettings.model_validate({"name": "north", "subjects": 3, field: value})


def test_two_sites_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="name of its own"):
        CohortSettings(seed=1, sites=(SITES[0], SITES[0]))
