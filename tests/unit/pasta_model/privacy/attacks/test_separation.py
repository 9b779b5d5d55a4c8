# SPDX-License-Identifier: Apache-2.0
"""Figures of membership inference, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score, roc_curve

from pasta_model.errors import PrivacyError
from pasta_model.privacy.attacks.separation import roc, separation


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [1, 8])  # with ties, and without
def test_as_scikit_learn_says(seed, decimals) -> None:
    rng = np.random.default_rng(seed)
    members, others = (rng.normal(m, 1, n).round(decimals) for m, n in ((0.7, 130), (0.0, 110)))
    scores, truth = np.concatenate([members, others]), np.repeat([1, 0], [130, 110])
    found = separation(members, others, rng=rng)
    assert found.auc == pytest.approx(roc_auc_score(truth, scores))
    fpr, tpr, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    ours = roc(members, others)
    assert np.allclose(ours, (fpr, tpr))
    assert found.tpr_at_10 == pytest.approx(tpr[fpr <= 0.1].max())
    assert found.tpr_at_1 == pytest.approx(tpr[fpr <= 0.01].max())
    best = max(balanced_accuracy_score(truth, scores >= t) for t in thresholds)
    assert found.balanced_accuracy == pytest.approx(best)


def test_by_hand() -> None:
    found = separation(
        np.array([3.0, 1.0, 2.0]), np.array([0.0, 2.0, -1.0, 0.5]), rng=np.random.default_rng(0)
    )
    assert found.auc == (4 + 3 + 3.5) / 12
    assert found.balanced_accuracy == (1 + 0.75) / 2  # from a score of 1 on
    assert (found.tpr_at_10, found.tpr_at_1) == (None, None)  # one of four is 25 %
    assert (found.members, found.others) == (3, 4)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, truth, hits = np.random.default_rng(1), 0.7602, 0  # P[N(1, 1) > N(0, 1)] = Phi(1 / sqrt 2)
    for _ in range(100):
        found = separation(rng.normal(1, 1, 60), rng.normal(0, 1, 60), rng=rng)
        hits += found.auc_low <= truth <= found.auc_high
    assert 87 <= hits <= 100


def test_equal_scores_tell_nothing() -> None:
    found = separation(np.zeros(5), np.zeros(20), rng=np.random.default_rng(0))
    assert (found.auc, found.balanced_accuracy) == (0.5, 0.5)
    assert (found.auc_low, found.auc_high) == pytest.approx((0.5, 0.5))
    assert found.tpr_at_10 == 0


@pytest.mark.parametrize(
    ("members", "others"), [([1.0], [1.0, 2.0]), ([1.0, 2.0], []), ([1.0, np.nan], [0.0, 1.0])]
)
def test_too_few_persons_or_no_number_is_refused(members, others) -> None:
    with pytest.raises(PrivacyError, match="two persons or more"):
        separation(np.array(members), np.array(others), rng=np.random.default_rng(0))
