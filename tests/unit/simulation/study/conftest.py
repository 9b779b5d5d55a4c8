# SPDX-License-Identifier: Apache-2.0
"""Scenery of the studies' tests: a study in which nothing is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pasta_model.data.manifest import Session
from simulation.study.cohort import People
from simulation.study.run import Study
from simulation.study.settings import StudySettings


@pytest.fixture
def study_of(tmp_path: Path) -> Callable[..., Study]:
    """Return a study of methods, the first of them the main one; its table of people is not read."""

    def make(*methods: str, measure: dict[str, Any] | None = None, **parts: Any) -> Study:
        told = {
            "cohort": {"manifests": [tmp_path / "people.tsv"]},
            "methods": methods,
            "measure": {"main": methods[0], "samples": 1, **(measure or {})},
            "settings": {"data": {"spacing": 3.0}},
            **parts,
        }
        return Study(StudySettings.model_validate(told), tmp_path / "study", Console(quiet=True))

    return make


@pytest.fixture
def two_sites() -> People:
    """Twelve persons of alder, four of birch: a quarter is measured, all of them normal."""
    sessions = [
        Session(f"sub-{site}{n}", "bl", site, "CN", Path(), Path(), split=("test", "train")[n % 4 > 0])
        for site, persons in (("alder", 12), ("birch", 4))
        for n in range(persons)
    ]
    return People(tuple(sessions), ("alder", "birch"), ())
