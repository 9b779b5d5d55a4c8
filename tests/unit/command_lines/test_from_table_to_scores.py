# SPDX-License-Identifier: Apache-2.0
"""The command lines, as they are typed: what works."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from pasta_model.checkpoint import new_network
from pasta_model.config import Settings
from pasta_model.evaluation.tables import read_scores
from simulation.baselines import train_alone
from tests.support.commands import MAINS, Outcome
from tests.support.hospital import Hospital


def test_a_site_from_its_table_to_its_scores(
    hospital: Hospital, tmp_path: Path, call: Callable[..., Outcome], make_settings: Callable[..., Settings]
) -> None:
    for number in (3, 4, 5):
        hospital.admit(f"sub-0{number}")
    manifest, splits, store = hospital.manifest, tmp_path / "splits.tsv", tmp_path / "sites" / "alder"

    said = call("pasta", "validate", manifest)
    assert said == Outcome(0, f"{manifest}: 5 sessions of 5 subjects (4 CN, 1 Dementia), no problem\n", "")

    said = call("pasta", "split", manifest, "--output", splits, "--valid", 0.2, "--test", 0.2)
    assert said == Outcome(0, f"{splits}: 3 train, 1 valid, 1 test\n", "")

    said = call("pasta", "store", manifest, store, "--splits", splits, "--spacing", 3)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-1] == f"{store}: site alder, 5 sessions"

    said = call("pasta-client", "show", store, "--clinical", "demographics")
    assert (said.status, said.err) == (0, "")
    assert "site alder: 3 subjects train, 1 validate" in said.out
    assert re.search(r"age\W+3\.0\W+211\.5\W+14,910\.8\b", said.out)  # three people of 70.5 years

    settings = make_settings(sampling__steps=1, sampling__hop=15, training__local_steps=1)
    run = tmp_path / "run"
    train_alone(store, settings, run)
    said = call("pasta-server", "rounds", run)
    assert (said.status, said.err) == (0, "")
    first, second, last = (json.loads(line) for line in (run / "history.jsonl").read_text().splitlines())
    assert re.search(rf"0\W+1\W+{first['loss']['alder']:.4f}\W+{first['valid_mae']['alder']:.4f}", said.out)
    assert re.search(rf"2\W+1\W+-\W+{last['valid_mae']['alder']:.4f}", said.out)
    assert second["round"] == 1

    said = call("pasta", "info", "--model", run / "last.safetensors")
    assert (said.status, said.err) == (0, "")
    arm = sum(p.numel() for p in new_network(settings).pet_arm.parameters())
    assert re.search(rf"PET arm\W+{arm / 1e6:.3f} M", said.out)
    assert re.search(r"rounds trained\W+2\b", said.out)
    assert re.search(r"training\.learning-rate\W+0\.001\b", said.out)

    synthetic, evaluation = tmp_path / "synthetic", tmp_path / "evaluation"
    words = ("pasta", "synthesize", "--model", run / "last.safetensors", manifest, synthetic)
    said = call(*words)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[-1] == f"{synthetic}: 5 synthetic PETs"
    made = sorted(synthetic.rglob("*.nii.gz"))
    times = [path.stat().st_mtime_ns for path in made]
    assert call(*words).status == 0
    assert [path.stat().st_mtime_ns for path in made] == times, "what is done is not done again"

    said = call("pasta", "evaluate", manifest, synthetic, "--output", evaluation, "--workers", 1)
    assert (said.status, said.err) == (0, "")
    rows = read_scores(evaluation / "scores.tsv")
    assert [row.subject for row in rows] == [f"sub-0{number}" for number in (1, 2, 3, 4, 5)]
    mean = sum(row.values["mae"] for row in rows) / 5
    assert re.search(rf"alder\s+5\s+synthetic\s+{mean:.4f}", said.out)


def test_synthetic_pets_lie_where_the_mri_lies_and_say_what_they_are(
    hospital: Hospital, tmp_path: Path, model: Path, call: Callable[..., Outcome]
) -> None:
    for row in hospital.rows:  # a session to synthesise may come without a PET
        row["pet"] = "n/a"
    assert call("pasta", "synthesize", "--model", model, hospital.manifest, tmp_path / "out").status == 0
    assert len(list((tmp_path / "out").rglob("*.nii.gz"))) == 2
    for number, row in enumerate(hospital.rows):
        folder = tmp_path / "out" / row["participant_id"] / "ses-1" / "pet"
        (path,) = folder.glob("*desc-synthetic_pet.nii.gz")
        pet, mri = nib.load(path), nib.load(hospital.scan(number, "mri"))
        np.testing.assert_array_equal(pet.affine, mri.affine)
        assert pet.shape == mri.shape
        suvr = np.asarray(pet.dataobj)
        assert np.isfinite(suvr).all()
        assert 0 == suvr.min() < suvr.max() < 20
        sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
        assert sidecar["Synthetic"] is True
        assert sidecar["Units"] == "SUVR"
        assert sidecar["Sampling"]["steps"] == 1


@pytest.mark.parametrize("name", sorted(MAINS))
def test_without_words_a_command_line_shows_what_there_is(name: str, call: Callable[..., Outcome]) -> None:
    said = call(name)
    assert said.status in (0, 2)
    assert "Usage" in said.out + said.err
    assert "Commands" in said.out + said.err
