# SPDX-License-Identifier: Apache-2.0
"""Scores without scans."""

from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow

USUAL = {
    "mae": 0.1,
    "psnr": 20.0,
    "ssim": 0.9,
    "metaroi_error": 0.1,
    "metaroi_real": 1.0,
    "metaroi_synthetic": 1.1,
}


def a_score(
    subject: str,
    site: str = "A",
    *,
    method: str = "federated",
    diagnosis: str = "CN",
    session: str = "bl",
    person: str = "",
    sex: str = "F",
    age: float | None = 70.0,
    why: dict[str, str] | None = None,
    **values: float | None,
) -> SubjectScore:
    """Return a score with usual values, some of them changed; every missing one needs its reason in `why`."""
    return SubjectScore(
        subject, session, site, diagnosis, method, person or subject, sex, age, {**USUAL, **values}, why or {}
    )


def a_row(group: str, method: str, subjects: int, **values: float | None) -> GroupRow:
    """Return the row of a site."""
    found = {name: Estimate(value, why="" if value is not None else "no") for name, value in values.items()}
    return GroupRow("site", group, method, subjects, found)
