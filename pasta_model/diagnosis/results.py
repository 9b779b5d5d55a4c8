# SPDX-License-Identifier: Apache-2.0
"""What a diagnosis run says: a prediction a session, and a row of scores a reader and input."""

from dataclasses import dataclass

from pasta_model.evaluation.estimates import Estimate


@dataclass(frozen=True)
class DiagnosisRow:
    """How well a reader tells the diagnoses of a task apart.

    Attributes
    ----------
    task
        "CN / Dementia" or "CN / MCI / Dementia".
    reader
        "network" (3D classifier) or "regions" (logistic regression on regional means).
    trained_on, applied_to
        Inputs; they differ where a reader of real PETs is shown synthetic ones.
    subjects
        Persons with a scan of one of the diagnoses.
    balanced_accuracy, f1, auc
        In [0, 1]; F1 and AUC (one against the rest) are means over the classes; intervals over persons.
    """

    task: str
    reader: str
    trained_on: str
    applied_to: str
    subjects: int
    balanced_accuracy: Estimate
    f1: Estimate
    auc: Estimate


@dataclass(frozen=True)
class AucDifference:
    """AUC of a reader on one input minus that of the same reader on a reference, on the same persons.

    Attributes
    ----------
    against
        The reference, which its reader was trained on and applied to: "real PET", "MRI".
    """

    task: str
    reader: str
    trained_on: str
    applied_to: str
    against: str
    difference: Estimate

    @property
    def kind(self) -> tuple[str, str, str, str]:
        """Task, reader, trained on, applied to."""
        return self.task, self.reader, self.trained_on, self.applied_to


@dataclass(frozen=True)
class Prediction:
    """What a reader says of one session, by the fold that was trained without this person.

    Attributes
    ----------
    probabilities
        Of the task's classes, in their order; they sum to 1.
    """

    task: str
    reader: str
    trained_on: str
    applied_to: str
    fold: int
    person: str
    session: str
    site: str
    diagnosis: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class DiagnosisResult:
    """All rows of scores, and the predictions that they come from."""

    rows: tuple[DiagnosisRow, ...]
    predictions: tuple[Prediction, ...]
