# SPDX-License-Identifier: Apache-2.0
"""The true FDG uptake of one person, before any scanner.

Uptake is linear in the amplitude a of the disease, U(a) = U_0 - a D. The MetaROI SUVR at the common
resolution of 6.5 mm is a ratio of two linear functions of U, so the amplitude that gives a person the
SUVR drawn for them has a closed form. The blur is moved from the image to the masks (it is its own
adjoint): nothing needs to be blurred for one person.

Shapes: (x, y, z) on the head grid.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pasta_model.data.grid import template
from pasta_model.data.metaroi import reference_mask, region_masks
from simulation.twins.atrophy import Brain
from simulation.twins.fields import Floats, blur, smooth_noise, to_grid

COMMON_RESOLUTION = 6.5  # FWHM in mm: between the best and the worst scanner
_WHITE, _STEM, _FLUID = 0.30, 0.35, 0.04  # uptake relative to average cortex
_AMPLITUDE = (-0.25, 0.85)


class SuvrWeights(NamedTuple):
    """Weights of the two means of the SUVR index, each of sum 1, (x, y, z)."""

    metaroi: Floats
    reference: Floats


class Uptake(NamedTuple):
    """True uptake, (x, y, z) relative to average cortex, and the amplitude of the disease."""

    map: Floats
    amplitude: float


@lru_cache(maxsize=4)
def suvr_weights(spacing: float, *, resolution: float = 0.0) -> SuvrWeights:
    """Weights whose scalar product with an uptake map gives the means at a resolution (FWHM mm)."""
    grid = template(spacing).head
    regions = [mask / mask.sum() for mask in region_masks(grid).values()]
    reference = reference_mask(grid)
    means = (np.mean(regions, axis=0), reference / reference.sum())
    blurred = [blur(m.astype(np.float32), fwhm=resolution, spacing=spacing) for m in means]
    return SuvrWeights(blurred[0], blurred[1])


def _mean(weights: Floats, data: Floats) -> float:
    return float(np.sum(weights * data, dtype=np.float64))


def metaroi_suvr(suvr: Floats, *, spacing: float) -> float:
    """Mean of the five MetaROI means over the mean of pons and vermis."""
    weights = suvr_weights(spacing)
    return _mean(weights.metaroi, suvr) / _mean(weights.reference, suvr)


def to_suvr(pet: Floats, *, spacing: float) -> Floats:
    """Divide by the plain mean of pons and vermis."""
    return (pet / _mean(suvr_weights(spacing).reference, pet)).astype(np.float32)


def true_uptake(rng: np.random.Generator, brain: Brain, *, suvr: float) -> Uptake:
    """Uptake of a brain whose MetaROI SUVR at 6.5 mm is `suvr`, as far as the amplitude may go."""
    healthy, disease = _components(rng, brain)
    weights = suvr_weights(brain.grid.spacing, resolution=COMMON_RESOLUTION)
    # (m.U_0 - a m.D) = s (r.U_0 - a r.D), solved for a
    numerator = _mean(weights.metaroi, healthy) - suvr * _mean(weights.reference, healthy)
    denominator = _mean(weights.metaroi, disease) - suvr * _mean(weights.reference, disease)
    amplitude = float(np.clip(numerator / denominator, *_AMPLITUDE))
    return Uptake(np.clip(healthy - np.float32(amplitude) * disease, 0, None), amplitude)


def _components(rng: np.random.Generator, brain: Brain) -> tuple[Floats, Floats]:
    """Healthy uptake U_0 and what the disease removes at amplitude 1, D."""
    maps, grid = brain.maps, brain.grid
    cortex = 1.0 - maps["brainstem"]
    deep = np.minimum(maps["nuclei"], maps["white"])
    grey = (maps["grey"] + deep) * maps["glucose"] * cortex * to_grid(_regional(rng), grid)
    own = np.clip(1.0 + 0.15 * smooth_noise(rng, fwhm=35.0), 0.4, 1.6)
    pattern = np.clip(maps["hypometabolism"] * to_grid(brain.pattern * own, grid), 0, 1.3)
    white = (maps["white"] - deep) * cortex
    stem = (maps["grey"] + maps["white"]) * maps["brainstem"]
    healthy = grey + _WHITE * white + _STEM * stem + _FLUID * maps["csf"]
    return healthy, grey * pattern + 0.10 * white * pattern


def _regional(rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a person's own map of uptake about 1, more alike on both sides than not; (i, j, k)."""
    field = smooth_noise(rng, fwhm=32.0)
    return 1.0 + np.float32(0.045) * (0.8 * field + 0.3 * (field + field[::-1]))
