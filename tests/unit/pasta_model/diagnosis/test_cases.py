# SPDX-License-Identifier: Apache-2.0
"""Who can be diagnosed: every reason against it, at once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pasta_model.data.manifest import Session
from pasta_model.derivatives import synthetic_path
from pasta_model.diagnosis.cases import Case, cases_of, refuse_unusable
from pasta_model.diagnosis.inputs import input_of
from pasta_model.diagnosis.tasks import TASKS
from pasta_model.errors import ManifestError, SplitError

TWO, THREE = TASKS


@pytest.fixture
def people(tmp_path: Path) -> Callable[..., list[Case]]:
    """Cases whose files are there, though nobody reads them."""
    file = tmp_path / "scan.nii"
    file.touch()

    def make(**counts: int) -> list[Case]:
        return [
            Case(f"{name}{n}", "bl", "A", name, file, {"real PET": file, "unet": file})
            for name, count in counts.items()
            for n in range(count)
        ]

    return make


def refuse(
    cases: list[Case], *names: str, seen: tuple[str, ...] = (), tasks: tuple[str, ...] = (TWO,)
) -> None:
    inputs = [input_of(name) for name in names or ("MRI", "real PET")]
    refuse_unusable(cases, inputs, seen=seen, tasks=tasks, folds=3)


def test_nothing_to_refuse(people: Callable[..., list[Case]]) -> None:
    refuse(people(CN=3, MCI=3, Dementia=3), "MRI", "unet + clinical", seen=("x",), tasks=(TWO, THREE))


def test_persons_whom_a_generator_has_seen_are_all_named(people: Callable[..., list[Case]]) -> None:
    with pytest.raises(SplitError, match="trained on CN0, Dementia2:"):
        refuse(people(CN=3, Dementia=3), seen=("Dementia2", "CN0", "other"))


def test_everything_at_once(people: Callable[..., list[Case]], tmp_path: Path) -> None:
    first, *others = people(CN=2, Dementia=4)
    lost = replace(others[0], pets={"real PET": tmp_path / "lost.nii"}, diagnosis="AD")
    with pytest.raises(SplitError) as caught:
        refuse([first, first, lost, *others], "MRI", "MRI", "real PET", "unet", seen=("CN0",))
    message = str(caught.value)
    for words in (
        "trained on CN0",
        "input 'MRI': found 2 times",
        "CN0 bl: found 2 times",
        "CN1 bl: found 2 times",
        "CN1 bl: diagnosis 'AD', wanted one of CN, MCI, Dementia",
        f"CN1 bl: no real PET at {tmp_path / 'lost.nii'}",
        "CN1 bl: no unet;",
        "CN / Dementia: 2 persons with CN for 3 folds",
    ):
        assert words in message
    assert "8 problem(s)" in message


@pytest.mark.parametrize(
    ("counts", "task", "why"),
    [
        ({"CN": 5}, TWO, "CN / Dementia: found CN only; wanted two diagnoses"),
        ({"MCI": 5}, TWO, "CN / Dementia: found none of them only"),
        ({"MCI": 5}, THREE, "CN / MCI / Dementia: found MCI only"),
        ({"CN": 3, "Dementia": 1}, TWO, "1 persons with Dementia for 3 folds"),
        ({}, TWO, "found no session"),
    ],
)
def test_too_few(people: Callable[..., list[Case]], counts: dict[str, int], task: str, why: str) -> None:
    with pytest.raises(ManifestError, match=why):
        refuse(people(**counts), tasks=(task,))


def test_two_of_three_diagnoses_are_no_mistake(people: Callable[..., list[Case]]) -> None:
    refuse(people(CN=3, Dementia=3), tasks=(TWO, THREE))


def test_no_input(people: Callable[..., list[Case]]) -> None:
    with pytest.raises(ManifestError, match="found no input"):
        refuse_unusable(people(CN=3, Dementia=3), [], seen=(), tasks=(TWO,), folds=3)


def test_cases_of_a_manifest(tmp_path: Path) -> None:
    def session(subject: str, visit: str, rid: str = "") -> Session:
        return Session(
            subject, visit, "A", "CN", tmp_path / "m.nii", tmp_path / "p.nii", {"age": 70.0}, rid=rid
        )

    sessions = [session("s1", "bl", "7"), session("s2", "bl", "07"), session("s3", "bl")]
    one, other, alone = cases_of(sessions, {"unet": tmp_path / "unet"})
    assert one.person == other.person == "rid:7"
    assert (one.session, other.session, alone.session) == ("s1_bl", "s2_bl", "bl")
    assert alone.person == "s3"
    assert alone.pets == {
        "real PET": tmp_path / "p.nii",
        "unet": synthetic_path(tmp_path / "unet", sessions[2]),
    }
    assert (alone.scan("MRI"), alone.scan("gan")) == (tmp_path / "m.nii", None)
