# SPDX-License-Identifier: Apache-2.0
"""Scenery of the report's tests: scores whose means are known, and volumes like a brain."""

from collections.abc import Sequence

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.evaluation.scores import SubjectScore

GRID = template(3.0).head
MAE = {"federated": 0.10, "alone": 0.12, "mean PET": 0.12}


def brain(seed: int = 0, *, unit: str = "SUVR") -> Volume:
    """Return an ellipsoid of noise, 0 outside."""
    x, y, z = np.moveaxis(GRID.coordinates(), -1, 0)
    inside = (x / 60) ** 2 + ((y + 18) / 75) ** 2 + ((z - 5) / 55) ** 2 < 1
    values = 1 + 0.2 * np.random.default_rng(seed).standard_normal(GRID.shape)
    return Volume((values * inside).astype(np.float32), GRID.affine, unit)


def made_scores(subjects: int = 12, methods: Sequence[str] = tuple(MAE)) -> list[SubjectScore]:
    """Return scores in which "federated" is the best of every subject, by far."""
    scores = []
    for k in range(subjects):
        for method in methods:
            mae = MAE.get(method, 0.12) + 0.001 * k
            values = {"mae": mae, "psnr": 30 - 50 * mae, "ssim": 1 - mae, "metaroi_error": mae / 2}
            values |= {"metaroi_real": 1.2 + 0.01 * k, "metaroi_synthetic": 1.2 + 0.01 * k + mae / 2}
            site, diagnosis = "AB"[k % 2], ("CN", "MCI", "Dementia")[k % 3]
            person = f"p{k}"
            scores.append(
                SubjectScore(
                    f"s{k:02d}", "bl", site, diagnosis, method, person, "FM"[k // 6], 60.0 + k, values
                )
            )
    return scores


@pytest.fixture(scope="session")
def scores() -> list[SubjectScore]:
    return made_scores()


@pytest.fixture(scope="session")
def volumes() -> dict[str, Volume]:
    return {"mri": brain(1, unit="arbitrary"), "real": brain(2), "synthetic": brain(3)}
