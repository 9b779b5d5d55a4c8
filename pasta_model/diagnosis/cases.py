# SPDX-License-Identifier: Apache-2.0
"""The sessions that are diagnosed, and the refusal of those that cannot be, or must not be."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pasta_model.data.manifest import DIAGNOSES, Session
from pasta_model.data.splits import people
from pasta_model.derivatives import synthetic_path
from pasta_model.diagnosis.inputs import MRI, REAL_PET, Input
from pasta_model.diagnosis.tasks import TASKS, Task
from pasta_model.errors import ManifestError, Problems, SplitError


@dataclass(frozen=True)
class Case:
    """One session of one person.

    Attributes
    ----------
    person
        Who it is, alike in all sessions.
    diagnosis
        "CN", "MCI" or "Dementia", at this session.
    mri
        Skull-stripped, on a grid of `data.grid`.
    pets
        By name: "real PET", and one of each method; SUVR, on the same grid.
    clinical
        Values by manifest column; None where missing.
    """

    person: str
    session: str
    site: str
    diagnosis: str
    mri: Path
    pets: Mapping[str, Path]
    clinical: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Person and session, for messages."""
        return f"{self.person} {self.session}".rstrip()

    def scan(self, key: str) -> Path | None:
        """Return the file of "MRI" or of a PET, None where there is none."""
        return self.mri if key == MRI else self.pets.get(key)


def cases_of(sessions: Sequence[Session], folders: Mapping[str, Path]) -> tuple[Case, ...]:
    """Return the cases of a manifest's sessions, with the synthetic PETs of each method's folder.

    Sessions of one person under several names are that person's, each named after its subject.
    """
    persons = people(sessions)
    names = {
        person: {s.subject for s in sessions if persons[s.subject] == person} for person in persons.values()
    }
    return tuple(
        Case(
            person=persons[s.subject],
            session=s.session if len(names[persons[s.subject]]) == 1 else s.name,
            site=s.site,
            diagnosis=s.diagnosis,
            mri=s.mri,
            pets={REAL_PET: s.pet, **{method: synthetic_path(path, s) for method, path in folders.items()}},
            clinical=s.clinical,
        )
        for s in sessions
    )


def refuse_unusable(
    cases: Sequence[Case], inputs: Sequence[Input], *, seen: Collection[str], tasks: Sequence[str], folds: int
) -> None:
    """Refuse what would give no answer, or a wrong one, with every problem at once.

    Raises
    ------
    SplitError
        When persons are among the cases whom a generator was trained on.
    ManifestError
        When there is no case or input, a session is there twice, a scan of an input is missing, or a task's
        diagnoses have too few persons.
    """
    problems = Problems("these sessions cannot be diagnosed")
    known = sorted({case.person for case in cases} & set(seen))
    if known:
        problems.add(
            f"a generator was trained on {', '.join(known)}: its PETs of them tell more than those of new"
            " people; leave them out"
        )
    if not cases:
        problems.add("found no session; wanted some of each diagnosis")
    _note_inputs(inputs, problems)
    _note_sessions(cases, inputs, problems)
    for task in tasks if cases else ():
        _note_task(cases, TASKS[task], folds, problems)
    problems.raise_if_any(SplitError if known else ManifestError)


def absent(cases: Sequence[Case], task: Task) -> str:
    """Return why a task of three diagnoses cannot be set, as only two of them are there; "" if it can."""
    found = [name for name in task.classes if any(case.diagnosis == name for case in cases)]
    if len(task.classes) == 3 and len(found) == 2:
        return f"only {' and '.join(found)} are there"
    return ""


def _note_inputs(inputs: Sequence[Input], problems: Problems) -> None:
    if not inputs:
        problems.add("found no input; wanted 'MRI', 'real PET' or a method's name")
    for name, count in Counter(each.name for each in inputs).items():
        if count > 1:
            problems.add(f"input {name!r}: found {count} times, wanted once")


def _note_sessions(cases: Sequence[Case], inputs: Sequence[Input], problems: Problems) -> None:
    for (person, session), count in Counter((case.person, case.session) for case in cases).items():
        if count > 1:
            problems.add(f"{person} {session}: found {count} times, wanted once")
    scans = list(dict.fromkeys(each.scan for each in inputs))
    for case in cases:
        if case.diagnosis not in DIAGNOSES:
            problems.add(f"{case.name}: diagnosis {case.diagnosis!r}, wanted one of {', '.join(DIAGNOSES)}")
        for scan in scans:
            path = case.scan(scan)
            if path is None or not path.is_file():
                problems.add(
                    f"{case.name}: no {scan}{f' at {path}' if path else ''}; make it, or leave it out"
                )


def _note_task(cases: Sequence[Case], task: Task, folds: int, problems: Problems) -> None:
    if absent(cases, task):
        return
    persons = {name: {case.person for case in cases if case.diagnosis == name} for name in task.classes}
    found = [name for name in task.classes if persons[name]]
    if len(found) < 2:
        problems.add(f"{task.name}: found {' and '.join(found) or 'none of them'} only; wanted two diagnoses")
        return
    for name in found:
        if len(persons[name]) < folds:
            problems.add(
                f"{task.name}: {len(persons[name])} persons with {name} for {folds} folds; wanted one a fold"
                " or more: ask for fewer folds, or leave the task out"
            )
