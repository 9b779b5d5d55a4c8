# SPDX-License-Identifier: Apache-2.0
"""The page of an evaluation has a place for all that was found, and none for what was not."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from pasta_model.data.volume import Volume
from pasta_model.diagnosis.results import AucDifference
from pasta_model.evaluation.agreement import agreement
from pasta_model.evaluation.estimates import Estimate
from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import summarise
from pasta_model.evaluation.uncertainty import SpreadRow
from pasta_model.report.cases import Case
from pasta_model.report.evaluation_page import Evaluation, evaluation_page
from pasta_model.report.html import blocks_of, pictures_of, render
from pasta_model.report.page import Code, Facts, Fold, Page, Paragraph, Picture, Table, Verdicts, Viewer
from pasta_model.report.privacy import Privacy, privacy_blocks
from pasta_model.report.provenance import Provenance, provenance_blocks

HISTORY = [{"round": r, "loss": {"A": 1 / r}, "valid_mae": {"A": 0.2}, "epsilon": 1.5 * r} for r in (1, 2)]


@pytest.fixture(scope="module")
def found(scores: list[SubjectScore], volumes: dict[str, Volume]) -> Evaluation:
    return Evaluation(
        "Title", "federated", scores, summarise(scores, by=("site", "diagnosis", "sex")), "notice",
        facts={"rounds": "2"}, regions=agreement(scores), history=HISTORY,
        spread=[SpreadRow("federated", 9, *[Estimate(0.5)] * 3)],
        privacy=Privacy("site", 3.0, 1e-5, (1.5, 3.0)), cases=[Case("sub-1", "A", "CN", "median", volumes)],
        chosen=3, people=False, surfaces={"sub-1": pictures_png()}, provenance=Provenance(seeds={"": 7}),
        card=[Paragraph("card")],
    )  # fmt: skip


def pictures_png() -> bytes:
    return b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def page(found: Evaluation) -> Page:
    return evaluation_page(found)


def _tables(page: Page) -> list[str]:
    return [block.title for block in blocks_of(page) if isinstance(block, Table)]


def test_everything_has_its_place(page: Page) -> None:
    assert [section.id for section in page.shown] == [
        "run", "result", "look", "metaroi", "hypometabolism", "uncertainty", "training", "privacy", "limits",
        "card", "provenance",
    ]  # fmt: skip
    assert _tables(page)[:3] == ["By site", "Paired differences", "By diagnosis"]
    assert "<html" in render(page)


def test_what_is_not_there_has_none(found: Evaluation) -> None:
    bare = Evaluation("Title", "federated", [], [])
    assert [section.id for section in evaluation_page(bare).shown] == ["limits"]
    render(evaluation_page(bare))


def test_the_viewer_says_what_was_chosen_and_left_out(page: Page) -> None:
    (viewer,) = (block for block in blocks_of(page) if isinstance(block, Viewer))
    assert any(note.startswith("2 more cases") for note in viewer.notes)
    panels = [picture for picture in pictures_of(page) if picture.caption == "Chosen by rule: median."]
    assert len(panels) == 1
    assert panels[0].png.startswith(b"\x89PNG")


def test_few_rivals_get_a_sentence_a_metric(page: Page) -> None:
    (said,) = (block for block in blocks_of(page) if isinstance(block, Verdicts))
    assert len(said.items) == 8
    assert said.items[0].text.startswith("MAE: federated is better than alone")


def test_many_rivals_get_one_and_their_tables_are_folded(found: Evaluation) -> None:
    scores = list(found.scores)
    for name in ("a", "b"):
        scores += [replace(s, method=name) for s in found.scores if s.method == "alone"]
    rows = summarise(scores, by=("site", "diagnosis"))
    page = evaluation_page(replace(found, scores=scores, groups=rows, cases=()))
    (said,) = (block for block in blocks_of(page) if isinstance(block, Verdicts))
    assert len(said.items) == 4
    result = next(section for section in page.sections if section.id == "result")
    assert [b.title for b in result.blocks if isinstance(b, Table)] == ["All subjects", "Paired differences"]
    assert {"By site", "By diagnosis"} <= {b.summary for b in result.blocks if isinstance(b, Fold)}


@pytest.mark.parametrize(("sites", "said"), [
    ({"A": 1.0}, "One line: a single site"),
    ({"A": 1.0, "B": 2.0}, "Thin lines: one site each"),
    ({"A": 1.0, "global": 2.0}, "Thin line: the one site that trains"),
])  # fmt: skip
def test_the_training_chart_says_what_its_lines_are(sites: dict[str, float], said: str) -> None:
    page = evaluation_page(Evaluation("T", "federated", [], [], history=[{"round": 1, "loss": sites}] * 2))
    (picture,) = pictures_of(page)
    assert picture.caption.startswith(said)


def test_readers_are_compared_with_those_of_real_scans() -> None:
    row = AucDifference("CN / Dementia", "network", "m", "m", "real PET", Estimate(-0.1, -0.2, 0.0))
    page = evaluation_page(Evaluation("T", "m", [], [], auc_differences=[row]))
    assert _tables(page) == ["Paired differences of AUC"]


def test_one_method_is_compared_with_nobody(found: Evaluation) -> None:
    scores = [s for s in found.scores if s.method == "federated"]
    page = evaluation_page(replace(found, scores=scores, groups=summarise(scores), cases=()))
    assert not any(isinstance(block, Verdicts) for block in blocks_of(page))
    assert "Paired differences" not in _tables(page)


def test_the_page_says_on_whom_and_how_that_is_known(found: Evaluation) -> None:
    bare = replace(found, cases=(), history=(), surfaces={})
    titles = [section.title for section in evaluation_page(bare).sections if section.id == "result"]
    assert titles == ["Result on held-out subjects"], "a study has held them out itself"
    told = replace(bare, result_title="Result", result_note="Nobody has checked.")
    (section,) = (s for s in evaluation_page(told).sections if s.id == "result")
    assert (section.title, section.blocks[0]) == ("Result", Paragraph("Nobody has checked."))


def test_what_the_means_hide_the_differences_hide_too(found: Evaluation) -> None:
    scores = [s for s in found.scores if s.person in {"p0", "p1", "p2"}]
    few = replace(found, scores=scores, groups=summarise(scores, smallest=5), cases=(), smallest=5)
    page = evaluation_page(few)
    (table,) = (b for b in blocks_of(page) if isinstance(b, Table) and b.title == "Paired differences")
    assert {cell.text for row in table.rows[0].rows for cell in row[1:]} == {"not available"}
    (said,) = (block for block in blocks_of(page) if isinstance(block, Verdicts))
    assert all("not compared, fewer than 5 subjects" in item.text for item in said.items)


def test_privacy_that_was_promised_and_spent() -> None:
    settings = SimpleNamespace(unit="site", epsilon=8.0, delta=1e-5, accountant="prv")
    privacy = Privacy.of(settings, HISTORY)
    assert (privacy.epsilon, tuple(privacy.by_round)) == (3.0, (1.5, 3.0))
    facts, words, picture = privacy_blocks(privacy)
    assert isinstance(facts, Facts)
    assert facts.pairs["epsilon"] == "3"
    assert facts.pairs["epsilon is"] == "spent"
    assert isinstance(words, Paragraph)
    assert isinstance(picture, Picture)
    assert picture.png.startswith(b"\x89PNG")


def test_privacy_that_sites_account_for_is_the_most_they_were_asked() -> None:
    settings = SimpleNamespace(unit="subject", epsilon=8.0, delta=1e-5, accountant="prv")
    privacy = Privacy.of(settings, [{"round": 1, "epsilon": None}])
    assert privacy.epsilon == 8.0
    assert privacy.facts["epsilon is"] == "the most that a site was asked to spend"
    assert len(privacy_blocks(privacy)) == 2


def test_no_privacy_is_said_plainly() -> None:
    settings = SimpleNamespace(unit="none", epsilon=8.0, delta=1e-5, accountant="prv")
    facts, words = privacy_blocks(Privacy.of(settings, []))
    assert facts == Facts({"differential privacy": "none"})
    assert isinstance(words, Paragraph)
    assert "no differential privacy" in words.text


def test_provenance() -> None:
    found = Provenance(["pasta a"], {"": 1, "cohort": 2}, {"torch": "2"}, {"m": "ab"}, {"b": {"a": 1}})
    facts, commands, digests, settings = provenance_blocks(found)
    assert facts == Facts({"seed": "1", "seed, cohort": "2", "torch": "2"})
    assert commands == Code("pasta a")
    assert isinstance(digests, Fold)
    assert isinstance(settings, Fold)
    assert settings.blocks == [Code('{\n  "b": {\n    "a": 1\n  }\n}')]
    assert provenance_blocks(Provenance()) == []
