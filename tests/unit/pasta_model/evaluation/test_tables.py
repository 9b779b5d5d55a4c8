# SPDX-License-Identifier: Apache-2.0
"""The tables on disk: whole numbers, reasons, and nothing lost on the way back."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pasta_model.errors import ManifestError
from pasta_model.evaluation.agreement import agreement
from pasta_model.evaluation.columns import ALL_METRICS
from pasta_model.evaluation.summary import summarise
from pasta_model.evaluation.tables import read_scores, write_groups, write_regions, write_scores
from tests.support.scores import a_score

SCORES = [a_score("s1", mae=0.1), a_score("s2", mae=0.2), a_score("s3", "B", mae=1 / 3, sex="", age=None)]
REASONS = st.text(st.sampled_from("ab;\\:, ()\t1.%"), min_size=1, max_size=20).map(
    lambda text: " ".join(("why " + text).split())
)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_come_back_with_every_digit(tmp_path: Path) -> None:
    none = {"psnr": None, "psnr_volume": None, "mae_published": None}
    why = {"psnr": "the volumes are equal", "psnr_volume": "the volumes are equal"}
    why["mae_published"] = "constant; no range: by C:\\x"
    scores = [*SCORES, a_score('tab\tand "quote"', mae=1e-17, why=why, **none)]
    write_scores(tmp_path / "scores.tsv", scores)
    assert read_scores(tmp_path / "scores.tsv") == scores
    written = _rows(tmp_path / "scores.tsv")[-1]
    assert written["psnr"] == written["mse"] == "n/a"
    assert written["not_available"].startswith("psnr, psnr_volume: the volumes are equal; mae_published: ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    values=st.dictionaries(
        st.sampled_from([m.name for m in ALL_METRICS] + ["a new one"]),
        st.one_of(st.floats(allow_nan=False, allow_infinity=False), REASONS),
        max_size=6,
    )
)
def test_any_score_comes_back(tmp_path: Path, values: dict[str, float | str]) -> None:
    numbers = {name: None if isinstance(value, str) else value for name, value in values.items()}
    why = {name: value for name, value in values.items() if isinstance(value, str)}
    score = replace(SCORES[0], values=numbers, why=why)
    write_scores(tmp_path / "scores.tsv", [score])
    assert read_scores(tmp_path / "scores.tsv") == [score]


def test_names_every_bad_row_at_once(tmp_path: Path) -> None:
    path = tmp_path / "scores.tsv"
    write_scores(path, SCORES)
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("0.1\t", "much\t", 1)
    lines[2] = lines[2].replace("0.2\t", "nan\t", 1)
    lines[3] += "\tone too many"
    path.write_text("\n".join(lines))
    with pytest.raises(ManifestError) as refused:
        read_scores(path)
    said = str(refused.value)
    assert "3 problem(s)" in said
    assert "line 2: mae 'much', wanted a number or n/a" in said
    assert "line 3: mae is nan; wanted a finite number" in said
    assert "line 4: " in said


def test_refuses_other_columns_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "scores.tsv").write_text("subject\tmae\n")
    with pytest.raises(ManifestError, match="wanted subject, session"):
        read_scores(tmp_path / "scores.tsv")
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(ManifestError, match="wanted subject, session"):
        read_scores(tmp_path / "empty.tsv")
    with pytest.raises(ManifestError, match="no such file"):
        read_scores(tmp_path / "nothing.tsv")


def test_groups_hold_values_intervals_and_reasons(tmp_path: Path) -> None:
    rows = summarise(SCORES, smallest=2)
    write_groups(tmp_path / "groups.tsv", rows)
    written = _rows(tmp_path / "groups.tsv")
    assert len(written) == sum(len(row.values) for row in rows)
    whole = next(r for r in written if r["kind"] == "all" and r["metric"] == "mae")
    found = next(row for row in rows if row.kind == "all").values["mae"]
    assert [float(whole[name]) for name in ("value", "low", "high")] == [found.value, found.low, found.high]
    hidden = [r for r in written if r["group"] == "B"]
    assert {r["value"] for r in hidden} == {"n/a"}
    assert {r["why"] for r in hidden} == {"fewer than 2 subjects, too few to tell"}
    assert {"nan", "inf"}.isdisjoint(cell for row in written for cell in row.values())


def test_regions_hold_five_statistics_each(tmp_path: Path) -> None:
    rows = agreement(SCORES)
    write_regions(tmp_path / "regions.tsv", rows)
    written = _rows(tmp_path / "regions.tsv")
    assert len(written) == 5 * len(rows) == 30
    bias = next(r for r in written if (r["region"], r["statistic"]) == ("metaroi", "bias"))
    assert float(bias["value"]) == pytest.approx(0.1)
    assert {r["why"] for r in written if r["region"] == "angular_left"} == {"not measured"}
