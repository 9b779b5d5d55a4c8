# SPDX-License-Identifier: Apache-2.0
"""Healthy people whose metabolism is known: a straight line of age, and noise, in the template's brain."""

from collections.abc import Callable

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.norms.sums import NormPerson
from pasta_model.prepare.template import template_brain

CROP = template(3.0).crop
BRAIN = template_brain(CROP).mask


@pytest.fixture(scope="session")
def make_pet() -> Callable[..., Volume]:
    """A PET of a given level in the brain, with noise, on the 3 mm crop."""

    def make(level: float = 1.2, *, seed: int = 0, noise: float = 0.1) -> Volume:
        values = level + noise * np.random.default_rng(seed).standard_normal(CROP.shape)
        return Volume(np.where(BRAIN, values, 0).astype(np.float32), CROP.affine, "SUVR")

    return make


@pytest.fixture(scope="session")
def make_people(make_pet: Callable[..., Volume]) -> Callable[..., list[NormPerson]]:
    """People of different ages; a decade takes 0.1 SUVR."""

    def make(count: int, *, seed: int = 0) -> list[NormPerson]:
        ages = np.random.default_rng([seed, 99]).uniform(60, 90, count)
        return [
            NormPerson(f"p{seed}-{i}", float(age), make_pet(1.2 - (age - 75) / 100, seed=1000 * seed + i))
            for i, age in enumerate(ages)
        ]

    return make
