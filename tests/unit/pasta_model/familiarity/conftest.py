# SPDX-License-Identifier: Apache-2.0
"""Brains that cost nothing: the template, a little moved, swollen, shaded and noisy."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.prepare.template import template_brain

HEAD = template(3.0).head


@pytest.fixture(scope="session")
def make_brain() -> Callable[[int], Volume]:
    """Return the MRI of the person of a number."""
    known = template_brain(HEAD)
    centre = (np.array(HEAD.shape) - 1) / 2

    def make(number: int) -> Volume:
        rng = np.random.default_rng(number)
        size, shift = rng.normal(1.0, 0.02, 3), rng.normal(0.0, 0.5, 3)
        place = {"offset": centre - size * (centre + shift), "order": 1}
        t1 = ndimage.affine_transform(known.t1, np.diag(size), **place)
        inside = ndimage.affine_transform(known.mask.astype(np.float32), np.diag(size), **place) > 0.5
        waves = HEAD.coordinates() @ rng.normal(0.0, 8e-4, 3)
        shaded = (t1 / t1.max()) ** rng.normal(1.0, 0.1) * np.exp(waves)
        noisy = np.abs(shaded + rng.uniform(0.015, 0.03) * rng.standard_normal(HEAD.shape))
        scan = np.where(inside, 1e-3 + noisy, 0.0) * rng.uniform(100, 900)
        return Volume(scan.astype(np.float32), HEAD.affine)

    return make
