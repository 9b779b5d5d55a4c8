# SPDX-License-Identifier: Apache-2.0
"""What a report is made of, and which subjects it shows: chosen by a rule, never by eye."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from pasta_model.data.grid import Grid
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow
from pasta_model.report.verdicts import Verdict

TWINS_NOTICE = (
    "Every subject in this report is a digital twin: a generated scan, not a patient."
    " The numbers show that the software works, and nothing about people."
)
EXAMPLE_RULE = "the session with the median MAE of its diagnosis (the lower one of an even number)"
LIMITS = (
    "One run is one seed: a small difference between two methods can turn round with another seed.",
    "MAE rewards blur: the mean of all possible PETs has the lowest error. Read it beside SSIM and pictures.",
    "SSIM and PSNR depend on data range and mask; compare them with other work only when both are the same.",
    "A small MetaROI error means that regional averages agree: it tells nothing of a lesion or a diagnosis.",
    "The sites' means rest on few subjects and carry no confidence interval.",
    "A scan from a scanner, a population or a disease that no site has trained on was not tested.",
)


@dataclass(frozen=True)
class Example:
    """One session to look at: volumes (x, y, z) on `grid`; MRI arbitrary unit, PETs in SUVR."""

    diagnosis: str
    subject: str
    site: str
    mri: NDArray[Any]
    synthetic: NDArray[Any]
    real: NDArray[Any]
    grid: Grid
    rule: str = EXAMPLE_RULE


@dataclass(frozen=True)
class ReportContent:
    """All that the page shows.

    Attributes
    ----------
    notice
        What these subjects are, in large letters; `TWINS_NOTICE` for digital twins.
    facts
        What happened, name to text: sites, subjects a split, rounds, steps, network, durations.
    rows, scores
        As `summarise` and `score` return them.
    method
        The method whose pictures and scatter are shown.
    history
        One mapping a round: "round", "loss" and "valid_mae" by site; each of them optional.
    config, versions
        Provenance: the settings, nested as they are, and the versions of the software.
    limits
        What the numbers do not show.
    """

    title: str
    notice: str
    facts: Mapping[str, str]
    rows: Sequence[GroupRow]
    scores: Sequence[SubjectScore]
    verdicts: Sequence[Verdict]
    examples: Sequence[Example]
    history: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    method: str = "federated"
    limits: Sequence[str] = field(default=LIMITS)


def choose_examples(
    scores: Sequence[SubjectScore],
    *,
    method: str = "federated",
    diagnoses: Sequence[str] = ("CN", "MCI", "Dementia"),
) -> list[SubjectScore]:
    """Choose the session with the median MAE of each diagnosis, in the order of `diagnoses`.

    Of an even number the lower of the two in the middle; equal MAEs are ordered by site, subject
    and session. A diagnosis without a session is left out.
    """
    chosen = []
    for diagnosis in diagnoses:
        group = [
            (mae, s.key, s)
            for s in scores
            if s.method == method and s.diagnosis == diagnosis and (mae := s.values.get("mae")) is not None
        ]
        if group:
            chosen.append(sorted(group, key=lambda item: item[:2])[(len(group) - 1) // 2][2])
    return chosen
