# SPDX-License-Identifier: Apache-2.0
"""A study's stages: whose model makes whose PET, what a failure costs, and which folder it may go on in."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from rich.console import Console

from pasta_model.data.manifest import Session, write_manifest
from pasta_model.errors import BusyError, ConfigError, ManifestError, TrainingError
from pasta_model.locks import only_one
from simulation.study import run as running
from simulation.study.cohort import POOL, People
from simulation.study.command import run_study
from simulation.study.methods import METHODS
from simulation.study.run import Study
from simulation.study.settings import StudySettings
from simulation.study.synthesis import PetJob, pet_jobs
from simulation.study.training import TrainJob

Make = Callable[..., Study]


class InThisProcess:
    """A pool without processes."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def submit(self, work: Callable[[Any], None], job: Any) -> Any:
        from concurrent.futures import Future

        future: Future[None] = Future()
        try:
            future.set_result(work(job))
        except Exception as error:  # noqa: BLE001
            future.set_exception(error)
        return future


@pytest.fixture
def make_study(tmp_path: Path, make_session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a study of sites A and B that train and C that does not; nothing is really trained."""
    sessions = [
        make_session(f"sub-{site}{n}", site=site, split=split)
        for site in "ABC"
        for n, split in enumerate(("train", "train", "valid", "test", "test"))
    ]
    write_manifest(tmp_path / "people.tsv", sessions)
    monkeypatch.setattr(Study, "pool", lambda self: InThisProcess())
    monkeypatch.setattr(running, "train", lambda job: None)
    monkeypatch.setattr(running, "synthesise", lambda job: None)

    def make(*methods: str, **parts: Any) -> Study:
        settings = StudySettings.model_validate(
            {
                "cohort": {"manifests": [tmp_path / "people.tsv"]},
                "partition": {"held-out": ["C"]},
                "methods": methods,
                "seeds": [1],
                "measure": {"main": methods[0], "samples": 1},
                **parts,
            }
        )
        return Study(settings, tmp_path / "study", Console(quiet=True), workers=1)

    return make


def jobs_of(study: Study, found: People, method: str) -> list[PetJob]:
    training = study.training_jobs(found)
    trained: dict[str, TrainJob] = {j.only: j for j in training if j.method.name == method}
    stores = {site: study.folder / "sites" / site for site in found.training}
    place: dict[str, Any] = {"root": study.folder, "seed": 1, "device": "cpu", "stores": stores}
    return list(pet_jobs(found, METHODS[method], trained, **place))


def models(jobs: list[PetJob], subject: str) -> set[str]:
    return {str(j.model) for j in jobs if any(s.subject.startswith(subject) for s in j.sessions)}


@pytest.mark.parametrize("method", ["alone", "personalised"])
def test_a_held_out_site_is_shared_out_among_the_others_models(make_study: Make, method: str) -> None:
    study = make_study(method)
    found = study.run()
    if method == "personalised":
        for site in "AB":
            own = study.folder / "runs" / "personalised-1" / "models" / f"{site}.safetensors"
            own.parent.mkdir(parents=True, exist_ok=True)
            own.touch()
    jobs = jobs_of(study, found, method)
    a, b, c = (models(jobs, f"sub-{site}") for site in "ABC")
    assert len(a) == len(b) == 1
    assert a != b
    assert c == a | b
    everybody = Counter(s.subject for job in jobs for s in job.sessions)
    assert everybody == dict.fromkeys([s.subject for s in found.measured], 1)
    assert len([s for job in jobs for s in job.sessions if s.site == "C"]) == 5


def test_all_sites_of_a_shared_model_use_it(make_study: Make) -> None:
    study = make_study("fedavg")
    jobs = jobs_of(study, study.run(), "fedavg")
    assert {str(j.model) for j in jobs} == {
        str(study.folder / "runs" / "fedavg-1" / "run" / "model.safetensors")
    }


def test_a_method_that_fails_is_left_out_and_so_is_what_uses_its_model(
    make_study: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(job: TrainJob) -> None:
        if job.method.name == "fedavg":
            raise TrainingError("loss is nan at site A, round 3, step 7")

    monkeypatch.setattr(running, "train", train)
    study = make_study("pooled", "fedavg", "preview", "alone")
    study.run()
    assert list(study.methods()) == ["pooled", "alone"]
    assert study.failed == {"fedavg": "loss is nan at site A, round 3, step 7"}


def test_a_main_method_that_fails_ends_the_study(make_study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(job: TrainJob) -> None:
        raise TrainingError("loss is nan")

    monkeypatch.setattr(running, "train", train)
    with pytest.raises(TrainingError, match="loss is nan"):
        make_study("pooled").run()


def test_a_changed_table_of_people_is_another_study(make_study: Make, tmp_path: Path) -> None:
    make_study("pooled").run()
    make_study("pooled", "fedavg", seeds=[1, 2]).run()  # more of the same
    table = tmp_path / "people.tsv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ConfigError, match="a study of other people, seeds or settings"):
        make_study("pooled").run()


def test_a_file_that_was_wrong_can_be_mended_and_run_again(make_study: Make, tmp_path: Path) -> None:
    table, aside = tmp_path / "people.tsv", tmp_path / "aside.tsv"
    wrong = make_study("pooled", partition={"held-out": ["D"]})
    with pytest.raises(ConfigError, match="names 'D'"):
        wrong.run()
    study = make_study("pooled")
    table.rename(aside)
    with pytest.raises(ManifestError, match="cannot be read"):
        study.run()
    aside.rename(table)
    assert make_study("pooled").run().held_out == ("C",)
    with pytest.raises(ConfigError, match="a study of other people"):
        make_study("pooled", partition={"held-out": ["B"]}).run()


def test_runs_have_the_spacing_of_the_scans_unless_the_file_names_one(make_study: Make) -> None:
    study = make_study("pooled")
    study.run()
    assert "data.spacing" not in study.settings.common, "a study goes on with the file that it began with"
    assert study.training_jobs(study.run())[0].settings.data.spacing == 3.0
    named = make_study("pooled", settings={"data": {"spacing": 1.5}})
    assert named.settings.at_spacing(study.run().sessions[0]).common["data.spacing"] == 1.5


def test_the_pool_has_every_training_person_and_nobody_else(make_study: Make) -> None:
    study = make_study("pooled")
    found = study.run()
    assert (study.folder / "pool" / POOL / "index.json").is_file()
    assert found.seen == {f"sub-{site}{n}" for site in "AB" for n in range(3)}


def test_two_runs_of_one_study_at_once_are_refused(make_study: Make, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        'methods = ["pooled"]\n[measure]\nmain = "pooled"\n[cohort]\nmanifests = ["people.tsv"]\n'
    )
    make_study("pooled")
    with only_one(tmp_path / "study"), pytest.raises(BusyError, match="another process is at work"):
        run_study(file, tmp_path / "study", workers=1, device="cpu", console=Console(quiet=True))
