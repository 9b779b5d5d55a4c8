# SPDX-License-Identifier: Apache-2.0
"""A study's report and card: nothing is said that nobody knows, or of too few."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pasta_model.report.card import card_blocks
from pasta_model.report.evaluation_page import Evaluation
from pasta_model.report.markdown import markdown
from pasta_model.report.page import Page, Table
from simulation.study import report, sections
from simulation.study.cohort import People
from simulation.study.measures import Measures
from simulation.study.run import Study
from simulation.study.training import TrainJob

Make = Callable[..., Study]
NOTHING = Measures([], [], [], [], [])


def card_of(study: Study, found: People) -> str:
    return markdown(card_blocks(report._card(study, found, NOTHING, [])))


def test_a_card_of_a_mean_tells_of_no_network(study_of: Make, two_sites: People) -> None:
    private = {"privacy": {"unit": "subject"}, "data": {"spacing": 3.0}}
    text = card_of(study_of("mean PET", settings=private), two_sites)
    for word in ("pair of diffusion models", "tiny", "adni", "local steps", "Li et al", "each person at"):
        assert word not in text, word
    assert "The mean of the training PETs" in text
    assert report._card(study_of("mean PET"), two_sites, NOTHING, []).name == "mean PET: study"


def test_a_card_of_a_rival_names_it(study_of: Make, two_sites: People) -> None:
    text = card_of(study_of("U-Net"), two_sites)
    assert "A network that PASTA is compared with, U-Net" in text
    assert "pair of diffusion models" not in text


def test_a_card_says_fewer_than_the_threshold_and_blames_no_site(study_of: Make, two_sites: People) -> None:
    text = card_of(study_of("fedavg"), two_sites)
    assert "birch | fewer than 5" in text
    assert "withheld" not in text
    assert "A pair of diffusion models" in text


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Evaluation]:
    """Keep what the report would show, and write a page without it."""
    kept: list[Evaluation] = []

    def page(found: Evaluation) -> Page:
        kept.append(found)
        return Page("", "", [])

    monkeypatch.setattr(report, "evaluation_page", page)
    return kept


def test_nobody_is_called_new_to_a_model_made_elsewhere(
    study_of: Make, two_sites: People, shown: list[Evaluation], tmp_path: Path
) -> None:
    own = {"other": {"like": "alone", "settings": {"run.initial": "elsewhere/model.safetensors"}}}
    for read, unseen in ((["fedavg"], True), (["fedavg", "other"], False)):
        study = study_of("fedavg", "other", method=own, measure={"diagnosis": read})
        study.folder.mkdir(exist_ok=True)
        report.write_study_report(study, two_sites, NOTHING)
        assert shown[-1].unseen is unseen
        assert any("'other': from a model that was made elsewhere" in text for text in shown[-1].limits)
    assert shown[-1].smallest == 5


def test_a_page_tells_no_number_of_few(study_of: Make, two_sites: People) -> None:
    study = study_of("fedavg")
    (table,) = (
        block
        for section in sections.sections(study, two_sites, NOTHING, [])
        for block in section.blocks
        if isinstance(block, Table) and block.title == "People"
    )
    alder, birch = ([cell.text for cell in row] for row in table.rows[0].rows)
    assert birch == ["birch", *["fewer than 5"] * 6, ""]
    assert alder[1] == "not shown"
    assert report._facts(study, two_sites)["people who are measured"] == "fewer than 5"


def test_ledgers_of_few_tell_neither_how_many_nor_the_noise_that_says_so(
    study_of: Make, two_sites: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    persons = {"alder": 9, "birch": 3, "cedar": 8}

    def account(site: str) -> Any:
        rows = [SimpleNamespace(noise_multiplier=1.0 + persons[site])]
        spent = {sections.SPLITS["train"]: (7.5, 7.9)}
        return SimpleNamespace(subjects=persons[site], spent=spent, delta=1e-3, rows=rows)

    monkeypatch.setattr(sections, "read_place", lambda path: path.name)
    monkeypatch.setattr(sections, "account_of", account)
    study = study_of("private")
    method = study.methods()["private"]
    places = {site: Path(site) for site in persons}
    job = TrainJob(method, study.settings.settings_of(method), places, Path(), Path())
    told = [[cell.text for cell in row] for row in sections.spent_table([job], smallest=5).rows[0].rows]
    assert [(row[3], row[6]) for row in told] == [
        ("9", "10.00"), ("fewer than 5", "not shown"), ("not shown", "not shown"),
    ]  # fmt: skip
    assert [row[3] for row in told] != [row[3].text for row in sections.spent_table([job]).rows[0].rows]
