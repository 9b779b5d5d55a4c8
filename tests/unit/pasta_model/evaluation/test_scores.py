# SPDX-License-Identifier: Apache-2.0
"""Scores of a pair of volumes, means computed by hand, and the table on disk."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.volume import Volume
from pasta_model.errors import ManifestError, VolumeError
from pasta_model.evaluation.scores import (
    ALL_SITES,
    MEAN_OF_SITES,
    METRICS,
    SubjectScore,
    best,
    read_scores,
    score,
    summarise,
    write_scores,
)

GRID = template(3.0).head
WHO = {"subject": "s1", "session": "bl", "site": "A", "diagnosis": "CN", "method": "federated"}


def _row(subject: str, site: str, mae: float, *, method: str = "federated") -> SubjectScore:
    return SubjectScore(
        subject, "bl", site, "CN", method, mae, 20 + 10 * mae, 1 - mae, 2 * mae, 1.0, 1.0 - 2 * mae
    )


# Two subjects at A, one at B: means by subject and by site differ.
SCORES = [_row("s1", "A", 0.1), _row("s2", "A", 0.2), _row("s3", "B", 0.6)]


def _pet(value: float, *, affine: np.ndarray = GRID.affine, unit: str = "SUVR") -> Volume:
    return Volume(np.full(GRID.shape, value, np.float32), affine, unit)


class TestScore:
    mask = np.ones(GRID.shape, bool)

    def test_of_a_constant_difference(self) -> None:
        found = score(_pet(1.25), _pet(1.0), mask=self.mask, **WHO)
        assert (found.subject, found.site, found.method) == ("s1", "A", "federated")
        assert found.mae == pytest.approx(0.25)
        assert found.psnr == pytest.approx(20 * np.log10(3.0 / 0.25))
        assert found.metaroi_error == pytest.approx(0.25)
        assert (found.metaroi_real, found.metaroi_synthetic) == pytest.approx((1.25, 1.0))

    def test_of_the_same_volume(self) -> None:
        found = score(_pet(1.0), _pet(1.0), mask=self.mask, **WHO)
        assert (found.mae, found.ssim, found.metaroi_error) == pytest.approx((0.0, 1.0, 0.0))

    def test_refuses_another_grid(self) -> None:
        moved = GRID.affine.copy()
        moved[0, 3] += 3.0
        with pytest.raises(VolumeError, match="different grids"):
            score(_pet(1.0), _pet(1.0, affine=moved), mask=self.mask, **WHO)

    def test_refuses_a_grid_that_is_not_ras(self) -> None:
        flipped = GRID.affine.copy()
        flipped[0, 0] *= -1
        with pytest.raises(VolumeError, match=r"not on an isotropic RAS\+ grid"):
            score(_pet(1.0, affine=flipped), _pet(1.0, affine=flipped), mask=self.mask, **WHO)

    def test_refuses_another_unit(self) -> None:
        with pytest.raises(VolumeError, match="synthetic PET is in unit 'arbitrary'"):
            score(_pet(1.0), _pet(1.0, unit="arbitrary"), mask=self.mask, **WHO)

    def test_refuses_nan(self) -> None:
        with pytest.raises(VolumeError, match="NaN"):
            score(_pet(1.0), _pet(np.nan), mask=self.mask, **WHO)


class TestSummarise:
    def test_means_by_hand(self) -> None:
        rows = {row.site: row for row in summarise(SCORES)}
        assert list(rows) == ["A", "B", ALL_SITES, MEAN_OF_SITES]
        assert [row.subjects for row in rows.values()] == [2, 1, 3, 3]
        assert [row.mae for row in rows.values()] == pytest.approx([0.15, 0.6, 0.3, 0.375])
        assert [row.psnr for row in rows.values()] == pytest.approx([21.5, 26.0, 23.0, 23.75])
        assert [row.ssim for row in rows.values()] == pytest.approx([0.85, 0.4, 0.7, 0.625])
        assert [row.metaroi_error for row in rows.values()] == pytest.approx([0.3, 1.2, 0.6, 0.75])
        assert [row.metaroi_bias for row in rows.values()] == pytest.approx([-0.3, -1.2, -0.6, -0.75])

    def test_groups_methods_in_the_order_of_their_first_score(self) -> None:
        rows = summarise([*SCORES, _row("s3", "B", 0.1, method="alone")])
        assert [(row.site, row.method) for row in rows] == [
            ("A", "federated"),
            ("B", "federated"),
            ("B", "alone"),
            (ALL_SITES, "federated"),
            (ALL_SITES, "alone"),
            (MEAN_OF_SITES, "federated"),
            (MEAN_OF_SITES, "alone"),
        ]

    def test_counts_a_subject_with_two_sessions_once(self) -> None:
        rows = summarise([SCORES[0], replace(SCORES[0], session="m12", mae=0.3)])
        assert rows[0].subjects == 1
        assert rows[0].mae == pytest.approx(0.2)

    def test_of_nothing_is_nothing(self) -> None:
        assert summarise([]) == []

    def test_best_follows_the_direction_of_the_metric(self) -> None:
        rows = summarise(SCORES)[:2]
        assert [best(rows, metric) for metric in METRICS] == ["0.1500", "26.00", "0.8500", "0.3000"]


class TestTable:
    def test_comes_back_with_every_digit(self, tmp_path: Path) -> None:
        scores = [*SCORES, replace(SCORES[0], subject='tab\tand "quote"', mae=1 / 3, psnr=float("inf"))]
        write_scores(tmp_path / "scores.tsv", scores)
        assert read_scores(tmp_path / "scores.tsv") == scores

    def test_names_every_bad_row_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "scores.tsv"
        write_scores(path, SCORES)
        lines = path.read_text().splitlines()
        lines[1] = lines[1].replace("0.1", "much", 1)
        lines[3] = "s3\tbl"
        path.write_text("\n".join(lines))
        with pytest.raises(ManifestError, match=r"2 problem\(s\)(?s:.)*row 2(?s:.)*row 4: wanted 11 columns"):
            read_scores(path)

    def test_refuses_other_columns(self, tmp_path: Path) -> None:
        (tmp_path / "scores.tsv").write_text("subject\tmae\n")
        with pytest.raises(ManifestError, match="wanted"):
            read_scores(tmp_path / "scores.tsv")

    def test_refuses_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="no such file"):
            read_scores(tmp_path / "scores.tsv")
