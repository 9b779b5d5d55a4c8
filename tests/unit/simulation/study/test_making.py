# SPDX-License-Identifier: Apache-2.0
"""What is said of a model is so, whatever the method: what it is, how it was trained, where it starts."""

from collections.abc import Callable
from pathlib import Path

import pytest

from simulation.study.making import making_of, not_compared, started_elsewhere, summary_of
from simulation.study.methods import METHODS
from simulation.study.run import Study

Make = Callable[..., Study]


def making(study: Study, name: str) -> dict[str, str]:
    method = METHODS[name]
    maker = METHODS[method.after or name]
    return making_of(method, study.settings.settings_of(maker), sites=3)


@pytest.mark.parametrize("name", ["mean PET", "U-Net", "concatenation", "pix2pix"])
def test_other_networks_are_no_pair_of_diffusion_models(name: str) -> None:
    said = summary_of(METHODS[name])
    assert "pair of diffusion models" not in said
    assert name in said or name == "mean PET"


def test_a_mean_has_no_network_no_rounds_and_no_clinical_values(study_of: Make) -> None:
    assert making(study_of("mean PET"), "mean PET") == {"network": "none", "clinical values": "none"}


def test_training_is_told_as_it_was(study_of: Make) -> None:
    training = {"local-steps": 10, "batch-size": 4}
    study = study_of("fedavg", settings={"training": training, "federation": {"rounds": 8}})
    told = {
        name: making(study, name) for name in ("fedavg", "pooled", "alone", "U-Net", "preview", "private")
    }
    assert told["fedavg"]["rounds"] == "8 of 10 local steps"
    assert told["pooled"]["rounds"] == "8 of 30 steps in one place"
    assert told["alone"]["rounds"] == "8 of 10 steps, each site by itself"
    assert told["U-Net"]["steps"].startswith("240, ")
    assert "rounds" not in told["U-Net"]
    assert told["fedavg"]["slabs a site"].startswith("320 of")
    assert told["pooled"]["slabs"].startswith("960 of")
    assert told["private"]["slabs a site"].startswith("512 of"), "8 x 4 steps of 16 persons, a slab each"
    assert told["fedavg"]["network"] == "tiny"
    assert "U-Net" in told["U-Net"]["network"]
    assert (told["fedavg"]["clinical values"], told["preview"]["clinical values"]) == ("adni", "none")


def test_methods_that_start_elsewhere_are_named(study_of: Make, tmp_path: Path) -> None:
    own = {"other": {"like": "alone", "settings": {"run.initial": "elsewhere/model.safetensors"}}}
    study = study_of("fedavg", "other", "mean PET", method=own)
    assert started_elsewhere(study) == ["other"]
    assert "'other': from a model that was made elsewhere" in not_compared(study)
    assert not_compared(study_of("fedavg", "mean PET")) == ""


def test_a_preview_starts_where_its_federation_does_and_a_rival_nowhere(study_of: Make) -> None:
    names = ("fedavg", "preview", "U-Net", "mean PET")
    study = study_of(*names, settings={"run": {"initial": "elsewhere/model.safetensors"}})
    assert started_elsewhere(study) == ["fedavg", "preview"]
    fedavg = making_of(METHODS["fedavg"], study.settings.settings_of(METHODS["fedavg"]), sites=2)
    assert fedavg["starts from"] == "model.safetensors"


def test_a_model_of_this_very_study_has_seen_nobody_who_is_measured(study_of: Make, tmp_path: Path) -> None:
    model = tmp_path / "study" / "runs" / "fedavg-2026" / "run" / "model.safetensors"
    own = {"further": {"like": "fedavg", "settings": {"run.initial": str(model)}}}
    assert started_elsewhere(study_of("fedavg", "further", method=own)) == []
    own["other"] = {"like": "alone", "settings": {"run.initial": "elsewhere/model.safetensors"}}
    both = study_of("fedavg", "further", "other", method=own)
    assert started_elsewhere(both) == ["further", "other"], "the one may go on from the other"
