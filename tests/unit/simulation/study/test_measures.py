# SPDX-License-Identifier: Apache-2.0
"""A study of few shows nothing of them, in no table, and not by difference either."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pasta_model.data.tables import read_table
from pasta_model.errors import ConfigError, Problems
from pasta_model.evaluation.columns import METRICS
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.tables import write_scores
from simulation.study import measures
from simulation.study.cohort import People
from simulation.study.measures import Measures
from simulation.study.report import write_comparison
from simulation.study.run import Study
from simulation.study.scoring import ScoreJob
from simulation.study.sections import _seeds_table

Make = Callable[..., Study]


def summaries(study: Study, persons: int, folder: Path) -> Measures:
    """Measure so many persons, on whom "alone" is worse by 0.05."""
    jobs = []
    for method in study.methods():
        for seed in study.settings.seeds:
            scores = []
            for n in range(persons):
                values = {m.name: 0.1 + 0.01 * n + 0.05 * (method == "alone") + 0.001 * seed for m in METRICS}
                scores.append(SubjectScore(f"s{n}", "bl", "A", "CN", method, f"p{n}", "F", 70.0, values))
            table = folder / f"{method}-{seed}.tsv"
            write_scores(table, scores)
            jobs.append(ScoreJob(method, seed, folder, (), table, {}))
    return measures._summaries(study, jobs, folder)


@pytest.mark.parametrize(("persons", "shown"), [(3, False), (6, True)])
def test_means_differences_and_spreads_are_hidden_together(
    study_of: Make, tmp_path: Path, persons: int, shown: bool
) -> None:
    study = study_of("fedavg", "alone", seeds=[1, 2])
    told = summaries(study, persons, tmp_path)
    write_comparison(tmp_path / "table.tsv", study, told)
    _, rows = read_table(tmp_path / "table.tsv", Problems("table"))
    (alone,) = (row for row in rows.values() if row["method"] == "alone")
    numbers = {name: cell for name, cell in alone.items() if name not in ("method", "family", "subjects")}
    assert all((cell != "n/a") == shown for cell in numbers.values())
    assert alone["subjects"] == ("6" if shown else "fewer than 5")
    cells = [cell for row in _seeds_table(told).rows[0].rows for cell in row[1:]]
    assert all(cell.missing != shown for cell in cells)
    assert shown or all("fewer than 5" in cell.note for cell in cells)


def test_diagnoses_of_few_are_not_read(study_of: Make, two_sites: People, tmp_path: Path) -> None:
    study = study_of("fedavg", measure={"diagnosis": ["fedavg"], "smallest_group": 5})
    assert len(two_sites.measured) == 4
    with pytest.raises(ConfigError, match="fewer than 5 persons with CN are measured"):
        measures._diagnosis(study, two_sites, summaries(study, 6, tmp_path), tmp_path)
