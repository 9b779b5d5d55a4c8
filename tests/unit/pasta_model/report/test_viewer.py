# SPDX-License-Identifier: Apache-2.0
"""The viewer holds as many cases as its budget, and says what it left out."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from pasta_model.data.volume import Volume
from pasta_model.report.cases import Case
from pasta_model.report.layers import LAYERS
from pasta_model.report.page import Picture
from pasta_model.report.surfaces import _COLOURS, Z_LIMITS
from pasta_model.report.viewer import PAGE_LIMIT, budget_left, shown_case, viewer_of


@pytest.fixture(scope="module")
def cases(volumes: dict[str, Volume]) -> list[Case]:
    return [Case(f"sub-{k}", "A", "CN", f"rule {k}", volumes) for k in range(3)]


def test_a_case_is_shown_with_its_difference(cases: list[Case]) -> None:
    shown = shown_case(cases[0])
    assert list(shown.volumes) == ["mri", "real", "synthetic", "difference"]
    assert (shown.name, shown.group, shown.rule) == ("sub-0, A", "CN", "rule 0")
    assert shown.size == sum(len(volume) for volume in shown.volumes.values())


def test_the_last_by_rule_are_left_out_and_counted(cases: list[Case]) -> None:
    size = shown_case(cases[0]).size
    viewer = viewer_of(cases, budget=2 * size, chosen=5)
    assert [case.rule for case in viewer.cases] == ["rule 0", "rule 1"]
    assert [note for note in viewer.notes if "left out" in note] == [
        "1 more case was chosen and left out, the last by rule, so that this file stays below 25 MB.",
        "2 more cases were chosen and left out, the last by rule, as the first 3 were read for this page.",
    ]
    assert not any("left out" in note for note in viewer_of(cases, chosen=3).notes)


def test_cases_that_would_fit_are_not_said_to_be_too_large(cases: list[Case]) -> None:
    assert not any("MB" in note for note in viewer_of(cases, chosen=5).notes)


def test_one_case_is_always_kept(cases: list[Case]) -> None:
    assert len(viewer_of(cases, budget=0).cases) == 1


def test_only_layers_that_are_there_have_buttons(cases: list[Case]) -> None:
    viewer = viewer_of(cases[:1])
    assert [layer.key for layer in viewer.layers] == ["mri", "real", "synthetic", "difference"]
    assert viewer.first == "synthetic"
    mri = Case("x", "A", "CN", "", {"mri": cases[0].volumes["mri"]})
    assert viewer_of([mri]).first == "mri"


def test_people_are_told_of_and_twins_are_not(cases: list[Case]) -> None:
    assert any("recognised" in note for note in viewer_of(cases, people=True).notes)
    assert not any("recognised" in note for note in viewer_of(cases, people=False).notes)


def test_no_case_gives_an_empty_viewer() -> None:
    assert viewer_of([]).cases == []


def test_pictures_take_from_the_budget() -> None:
    picture = Picture(bytes(3_000_000), "alt")
    assert budget_left([picture], other=1_000_000) == PAGE_LIMIT - 5_000_000
    assert budget_left([picture] * 9) == 0


def test_colours_stand_beside_what_is_drawn() -> None:
    for layer in LAYERS:
        assert len(layer.shown.colours) == len(layer.shown.opaque) > 2
        assert all(len(colour) == 7 for colour in layer.shown.colours)
        assert layer.signed == (layer.shown.limits is not None and layer.shown.limits[0] < 0)


def test_hypometabolism_has_the_colours_of_the_surfaces() -> None:
    shown = next(layer.shown for layer in LAYERS if layer.key == "z_real")
    z = np.linspace(-5, 5, len(shown.colours))
    strong, weak = Z_LIMITS
    for value, colour, drawn in zip(z, shown.colours, shown.opaque, strict=True):
        assert drawn == (abs(value) > 1.65)
        if value < weak:
            expected = to_hex(_COLOURS((value - strong) / (weak - strong)))
            for part in (1, 3, 5):
                assert (
                    abs(int(colour[part : part + 2], 16) - int(expected[part : part + 2], 16)) <= 8
                )  # both maps have 256 steps
