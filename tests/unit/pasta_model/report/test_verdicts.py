# SPDX-License-Identifier: Apache-2.0
"""Sentences that are computed, also where they do not please."""

from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import GroupRow, summarise
from pasta_model.report.verdicts import verdicts
from tests.support.scores import a_row, a_score


def _scores(method: str, values: dict[str, tuple[float, float]]) -> list[SubjectScore]:
    return [
        a_score(f"{site}1", site, method=method, mae=mae, psnr=20 - mae, ssim=ssim)
        for site, (mae, ssim) in values.items()
    ]


def _rows(mine: dict[str, tuple[float, float]], other: dict[str, tuple[float, float]]) -> list[GroupRow]:
    return summarise([*_scores("federated", mine), *_scores("alone", other)])


def test_says_where_it_beats_and_where_not() -> None:
    rows = _rows({"A": (0.1, 0.9), "B": (0.2, 0.5)}, {"A": (0.3, 0.8), "B": (0.15, 0.9)})
    found = {v.text.split(":")[0]: v for v in verdicts(rows, baselines=("alone",))}
    assert list(found) == ["MAE", "PSNR", "SSIM", "MetaROI error"]
    assert found["MAE"].beats
    assert str(found["MAE"]) == (
        "MAE: federated beats alone over all 2 subjects (0.1500 against 0.2250 SUVR, 33% lower);"
        " better at A; not at B."
    )
    assert not found["SSIM"].beats
    assert "does not beat alone over all 2 subjects (0.7000 against 0.8500); better at A" in str(
        found["SSIM"]
    )


def test_an_equal_value_does_not_beat() -> None:
    rows = _rows({"A": (0.1, 0.9)}, {"A": (0.1, 0.9)})
    found = verdicts(rows, baselines=("alone",))
    assert [v.beats for v in found] == [False] * 4
    assert all("does not beat" in v.text and "better at no site of 1" in v.text for v in found)


def test_better_everywhere() -> None:
    rows = _rows({"A": (0.1, 0.9), "B": (0.1, 0.9)}, {"A": (0.2, 0.8), "B": (0.2, 0.8)})
    assert "better at all 2 sites" in str(verdicts(rows, baselines=("alone",))[0])


def test_a_missing_baseline_is_said() -> None:
    rows = _rows({"A": (0.1, 0.9)}, {"A": (0.1, 0.9)})
    (only,) = verdicts(rows, baselines=("mean PET",))
    assert not only.beats
    assert "no scores of mean PET" in only.text


def test_other_subjects_are_not_compared() -> None:
    rows = _rows({"A": (0.1, 0.9), "B": (0.1, 0.9)}, {"A": (0.2, 0.8)})
    (only,) = verdicts(rows, baselines=("alone",))
    assert "not compared, they have 2 and 1 subjects" in only.text


def test_what_is_not_available_is_not_compared() -> None:
    mine = [a_score("a", psnr=None, why={"psnr": "the volumes are equal"}), a_score("b", "B")]
    rows = summarise([*mine[:1], a_score("a", method="alone", psnr=10.0)])
    found = {v.text.split(":")[0]: v for v in verdicts(rows, baselines=("alone",))}
    assert str(found["federated against alone"]).endswith("not compared, PSNR is not available.")
    rows = summarise([*mine, *(a_score(s, t, method="alone", psnr=10.0) for s, t in ("aA", "bB"))])
    found = {v.text.split(":")[0]: v for v in verdicts(rows, baselines=("alone",))}
    assert str(found["PSNR"]).endswith("better at all 1 sites.")  # at B: A has none


def test_a_group_of_another_kind_is_no_site() -> None:
    rows = summarise([a_score("a"), a_score("a", method="alone")], by=("sex",))
    assert "at no site available" in str(verdicts(rows, baselines=("alone",))[0])
    assert a_row("A", "m", 1).kind == "site"
