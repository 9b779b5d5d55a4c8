# SPDX-License-Identifier: Apache-2.0
"""Figures are PNGs, the same for the same input, and bear odd input."""

from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from pasta_model.data.grid import template
from pasta_model.data.metaroi import region_masks
from pasta_model.errors import VolumeError
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import summarise
from pasta_model.report.charts import curves, metaroi_scatter, metric_bars
from pasta_model.report.panels import CUTS, cut_of, subject_panel
from tests.support.scores import a_score

GRID = template(3.0).head
SCORES = [
    a_score(f"s{i}", "AB"[i % 2], diagnosis=dx, metaroi_real=1.0 + i / 10)
    for i, dx in enumerate(("CN", "MCI", "Dementia", "$other$"))
]


def _pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return imread(BytesIO(png), format="png")


@pytest.fixture
def volumes() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random(GRID.shape).astype(np.float32) for _ in range(3)]


def test_subject_panel_is_the_same_for_the_same_subject(volumes: list[np.ndarray]) -> None:
    first, second = (subject_panel(*volumes, grid=GRID, title="sub $1$") for _ in range(2))
    assert first == second
    assert min(_pixels(first).shape[:2]) > 900


def test_subject_panel_refuses_another_shape(volumes: list[np.ndarray]) -> None:
    with pytest.raises(VolumeError, match="a picture needs volumes"):
        subject_panel(volumes[0][:-1], *volumes[1:], grid=GRID, title="")


def test_subject_panel_of_an_empty_mri(volumes: list[np.ndarray]) -> None:
    assert subject_panel(np.zeros(GRID.shape), *volumes[1:], grid=GRID, title="")


def test_left_is_left_and_up_is_up() -> None:
    """The right hemisphere, the front and the top of the head are where the letters say."""
    x, y, z = np.moveaxis(GRID.coordinates(), -1, 0)
    axial, coronal, sagittal = CUTS
    assert cut_of(x, axial, GRID)[0, -1] > 0 > cut_of(x, axial, GRID)[0, 0]
    assert cut_of(y, axial, GRID)[-1, 0] > 0 > cut_of(y, axial, GRID)[0, 0]
    assert cut_of(x, coronal, GRID)[0, -1] > 0
    assert cut_of(z, coronal, GRID)[-1, 0] > 0
    assert cut_of(y, sagittal, GRID)[0, -1] > 0
    for cut, coordinate in zip(CUTS, (z, y, x), strict=True):
        assert abs(cut_of(coordinate, cut, GRID) - cut.position).max() <= GRID.spacing / 2


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"round": 1}],
        [{"round": 1, "loss": {"A": 1.0}}, {"round": 2, "loss": {"A": 0.5, "B": float("nan")}}],
        [{"round": 1, "loss": None, "valid_mae": {"A": 0.2, "global": 0.3}, "seconds": 2.0}],
        [{"valid_mae": {f"site {i}": 0.1 * i for i in range(12)}}],
    ],
)
def test_curves_bear_missing_keys(history: list[dict[str, object]]) -> None:
    _pixels(curves(history))


def test_scatter_does_not_tell_how_many_few_are() -> None:
    told = metaroi_scatter(SCORES, method="federated")
    assert metaroi_scatter(SCORES, method="federated", smallest=1) == told
    assert metaroi_scatter(SCORES, method="federated", smallest=100) != told


@pytest.mark.parametrize("count", range(5))
def test_scatter_of_few_subjects(count: int) -> None:
    _pixels(metaroi_scatter(SCORES[:count], method="federated"))


@pytest.mark.parametrize(
    "scores", [[], SCORES, [*SCORES, a_score("s9", method="mean PET", psnr=None, why={"psnr": "equal"})]]
)
def test_bars_of_any_table(scores: list[SubjectScore]) -> None:
    _pixels(metric_bars(summarise(scores)))


def test_settings_of_matplotlib_are_left_alone() -> None:
    before = dict(mpl.rcParams)
    metric_bars(summarise(SCORES))
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("spacing", [1.5, 3.0])
def test_the_cuts_together_meet_every_region(spacing: float) -> None:
    grid = template(spacing).head
    for name, mask in region_masks(grid).items():
        assert any(cut_of(mask, cut, grid).any() for cut in CUTS), name
