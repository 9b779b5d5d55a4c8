# SPDX-License-Identifier: Apache-2.0
"""How well a score tells members from others: the figures of membership inference, with their uncertainty."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from pasta_model.errors import PrivacyError

RESAMPLES = 2000
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Separation:
    """What a score tells; higher scores mean members.

    Attributes
    ----------
    auc, auc_low, auc_high
        Probability that a member scores above another person; its 95 % interval, by bootstrap over persons.
    p_value
        Of no difference against members scoring higher (Mann and Whitney).
    balanced_accuracy
        At the best threshold, chosen on these very persons: of few persons above 1/2 by luck alone.
    tpr_at_10, tpr_at_1
        Members found where 10 % (1 %) of the others are accused; None where they are too few to say.
    """

    members: int
    others: int
    auc: float
    auc_low: float
    auc_high: float
    p_value: float
    balanced_accuracy: float
    tpr_at_10: float | None
    tpr_at_1: float | None


def separation(members: Scores, others: Scores, *, rng: np.random.Generator) -> Separation:
    """Compare the scores of members with those of others, one a person.

    Raises
    ------
    PrivacyError
        When a group has fewer than two persons, or a score is not finite.
    """
    if min(len(members), len(others)) < 2 or not np.isfinite([*members, *others]).all():
        raise PrivacyError(
            f"found scores of {len(members)} members and {len(others)} others; wanted two persons or more of"
            " either, each with a finite score"
        )
    found = mannwhitneyu(members, others, alternative="greater")
    low, high = _bootstrap(members, others, rng)
    fpr, tpr = roc(members, others)
    return Separation(
        members=len(members),
        others=len(others),
        auc=float(found.statistic) / (len(members) * len(others)),
        auc_low=low,
        auc_high=high,
        p_value=float(found.pvalue),
        balanced_accuracy=float(((tpr + 1 - fpr) / 2).max()),
        tpr_at_10=_found_at(0.1, fpr, tpr, others=len(others)),
        tpr_at_1=_found_at(0.01, fpr, tpr, others=len(others)),
    )


def roc(members: Scores, others: Scores) -> tuple[Scores, Scores]:
    """Return the shares of others accused and of members found, at every threshold from above all scores."""
    thresholds = np.unique([*members, *others])[::-1, None]
    accused, found = ((group >= thresholds).mean(axis=1) for group in (others, members))
    return np.concatenate([[0.0], accused]), np.concatenate([[0.0], found])


def _found_at(rate: float, fpr: Scores, tpr: Scores, *, others: int) -> float | None:
    if others * rate < 1 - 1e-9:
        return None  # not even one of them may be accused
    return float(tpr[fpr <= rate + 1e-9].max())


def _bootstrap(members: Scores, others: Scores, rng: np.random.Generator) -> tuple[float, float]:
    """Return the 95 % interval of the AUC when the persons of each group are drawn again."""
    above = (members[:, None] > others) + 0.5 * (members[:, None] == others)
    drawn = (rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n for n in above.shape)
    of_members, of_others = drawn
    aucs = ((of_members @ above) * of_others).sum(axis=1)
    low, high = np.quantile(aucs, [0.025, 0.975])
    return float(low), float(high)
