# SPDX-License-Identifier: Apache-2.0
"""Twins of four hospitals: held-out ones are familiar, faulty ones are not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume, read_volume
from pasta_model.familiarity.features import features_of
from pasta_model.familiarity.model import Familiarity
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.prepare.template import template_brain
from simulation.twins.cohort import DEFAULT_SITES, CohortSettings, build_cohort

pytestmark = pytest.mark.slow
HEAD = template(3.0).head
RNG = np.random.default_rng(0)
TRAINED, HELD_OUT = 18, 7  # of each of four sites


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> list[list[Volume]]:
    """MRIs by site."""
    folder = tmp_path_factory.mktemp("twins") / "cohort"
    sites = tuple(s.model_copy(update={"subjects": TRAINED + HELD_OUT}) for s in DEFAULT_SITES)
    tables = build_cohort(CohortSettings(seed=5, sites=sites), folder, workers=1)
    return [[read_volume(p) for p in sorted(Path(t).parent.rglob("*_T1w.nii.gz"))] for t in tables]


@pytest.fixture(scope="module")
def known(twins: list[list[Volume]]) -> Familiarity:
    """What the sites' sums, added up, say is usual."""
    parts = [FeatureSums.of(np.array([features_of(mri) for mri in site[:TRAINED]])) for site in twins]
    return Familiarity.of(FeatureSums.pool(parts), spacing=3.0)


def test_held_out_twins_of_the_training_sites_are_familiar(twins, known: Familiarity) -> None:
    flagged = [known.judge(mri).unlike for site in twins for mri in site[TRAINED:]]
    assert len(flagged) == 28
    assert sum(flagged) <= 1


def _ghost(v: np.ndarray) -> np.ndarray:
    return v + 0.25 * (np.roll(v, 17, axis=1) + np.roll(v, -17, axis=1))


def _zoomed(v: np.ndarray) -> np.ndarray:
    centre = (np.array(v.shape) - 1) / 2
    return ndimage.affine_transform(v, np.eye(3) / 1.1, offset=centre - centre / 1.1, order=1)


INSIDE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "blur": lambda v: ndimage.gaussian_filter(v, 1.0),
    "noise": lambda v: v + 0.15 * v.max() * RNG.standard_normal(v.shape),
    "ghosts": _ghost,
    "bias field": lambda v: v * np.exp(HEAD.coordinates()[..., 1] / 120),
    "contrast of a T2": lambda v: 1.1 * v.max() - v,
}
WHOLE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "upside down": lambda v: v[:, :, ::-1],
    "axes exchanged": lambda v: np.pad(v.transpose(0, 2, 1), [(0, 0), (6, 6), (0, 0)])[:, :, 6:-6],
    "cut off": lambda v: np.where(HEAD.coordinates()[..., 2] > 45, 0, v),
    "wrong scale": _zoomed,
    "shifted 9 mm": lambda v: np.roll(v, 3, axis=1),
    "random": lambda v: RNG.random(v.shape),
    "template": lambda _: template_brain(HEAD).t1 * template_brain(HEAD).mask,
}


@pytest.mark.parametrize("fault", [*INSIDE, *WHOLE])
def test_faulty_twins_are_flagged(fault: str, twins, known: Familiarity) -> None:
    missed = []
    for mri in (site[-1] for site in twins):
        scan = mri.data.astype(np.float64)
        made = (
            WHOLE[fault](scan)
            if fault in WHOLE
            else np.where(scan > 0, np.maximum(INSIDE[fault](scan), 1), 0)
        )
        if not known.judge(replace(mri, data=np.maximum(made, 0).astype(np.float32))).unlike:
            missed.append(mri)
    assert not missed
