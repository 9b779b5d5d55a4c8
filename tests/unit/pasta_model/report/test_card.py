# SPDX-License-Identifier: Apache-2.0
"""The model card tells what is known, computes where the model fails, and names no person."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from pasta_model.evaluation.scores import SubjectScore
from pasta_model.evaluation.summary import summarise
from pasta_model.report.card import ModelCard, card_blocks, told_sites, write_card
from pasta_model.report.failures import losses, worst_cases
from pasta_model.report.markdown import escaped, markdown
from pasta_model.report.page import Bullets, Cell, Code, Column, Fold, Heading, Picture, RowGroup, Table
from pasta_model.report.privacy import Privacy

KINDS = ("site", "diagnosis")


@pytest.fixture(scope="module")
def card(scores: list[SubjectScore]) -> ModelCard:
    return ModelCard(
        "PASTA of a test",
        "federated",
        scores,
        summarise(scores, by=KINDS),
        notice="These are twins.",
        data={"from": "MRI"},
        sites={"A": 40, "B": 31},
        privacy=Privacy("site", 6.79, 1e-5),
        commands=["pasta-sim demo"],
    )


@pytest.fixture(scope="module")
def text(card: ModelCard) -> str:
    with TemporaryDirectory() as folder:
        return _text(card, Path(folder))


def _bare(card: ModelCard, **fields: object) -> ModelCard:
    """Return the card without its results: comparing takes time."""
    return replace(card, scores=[], groups=[], **fields)


def _text(card: ModelCard, tmp_path: Path) -> str:
    write_card(tmp_path / "MODEL_CARD.md", card)
    return (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_says_what_it_must(text: str) -> None:
    for words in (
        "Research software, not a medical device", "Intended use", "Out of scope", "Where it fails",
        "These are twins", "Ethical notes", "epsilon", "6.79", "1e-05", "| A | 40 |", "| all | 71 |",
        "pasta-sim demo",
    ):  # fmt: skip
        assert words in text, words


def test_is_the_same_for_the_same_run(card: ModelCard, text: str, tmp_path: Path) -> None:
    assert _text(card, tmp_path) == text


def test_front_matter_makes_nothing_up(card: ModelCard, text: str, tmp_path: Path) -> None:
    head = text.split("---")[1]
    assert not any(word in head for word in ("license", "datasets", "metrics", "model-index"))
    assert "license: apache-2.0\n" in _text(_bare(card, licence="apache-2.0"), tmp_path).split("---")[1]


def test_small_sites_are_hidden_and_so_is_what_would_tell_them(card: ModelCard, tmp_path: Path) -> None:
    text = _text(_bare(card, sites={"A": 40, "B": 31, "C": 2}, smallest=5), tmp_path)
    assert "| C | fewer than 5 |" in text
    assert "| B | not shown |" in text  # the total of the report less A would be C's
    assert "| all |" not in text
    assert "| 2 |" not in text


def test_what_may_not_be_told_is_told_neither_by_us_nor_to_whoever_goes_on(
    card: ModelCard, tmp_path: Path
) -> None:
    told = told_sites({"A": 40, "B": 31, "C": 4, "D": 3}, smallest=5)
    assert told == {"A": 40, "B": 31, "C": "fewer than 5", "D": "fewer than 5"}
    text = _text(_bare(card, sites=told, smallest=2), tmp_path)
    assert "| D | fewer than 5 |" in text
    assert "withheld by the site" not in text
    assert "| all |" not in text


def test_what_is_not_ours_is_not_called_ours(card: ModelCard, tmp_path: Path) -> None:
    assert "arXiv:2603.18896" in _text(_bare(card), tmp_path)
    text = _text(_bare(card, paper="", federated=False), tmp_path)
    assert "PASTA: Li" not in text
    assert "federated-learning" not in text


def test_a_number_that_a_site_keeps_is_not_told(card: ModelCard, tmp_path: Path) -> None:
    text = _text(_bare(card, sites={"A": 40, "B": None}), tmp_path)
    assert "| B | withheld by the site |" in text
    assert "| all |" not in text


def test_without_privacy_it_says_so(card: ModelCard, tmp_path: Path) -> None:
    assert "no differential privacy" in _text(_bare(card, privacy=Privacy()), tmp_path)


def test_people_are_not_named(card: ModelCard, text: str) -> None:
    # s00, s03, s06 and s09 have 0.100, 0.103, 0.106 and 0.109: the median is 0.1045
    assert "worst MAE of CN (4): 1.0 times the median." in text
    assert "0.1090" not in text  # s09's own
    assert not any(score.subject in text for score in card.scores)
    alone = [score for score in card.scores if score.subject == "s00"]
    assert worst_cases(alone, "federated") == []  # one person is no group
    named = worst_cases(card.scores, "federated", people=False)
    assert any("s09 of B" in line for line in named)


def test_a_method_that_wins_everywhere_fails_nowhere(text: str) -> None:
    assert "No other method of the tables is better" in text
    assert "\u2717" not in text


def test_losses_are_computed(card: ModelCard, tmp_path: Path) -> None:
    text = _text(replace(card, method="alone"), tmp_path)
    said = [line.removeprefix("- \u2717 ") for line in text.splitlines() if "\u2717" in line]
    assert "All subjects: federated is better in MAE by 0.0200 SUVR." in said
    assert "Diagnosis MCI: federated is better in PSNR by 1.00 dB." in said
    assert not any("mean PET" in text for text in said)  # they are equal


def test_groups_that_are_not_shown_are_not_told_of(scores: list[SubjectScore]) -> None:
    rows = summarise(scores, by=KINDS, smallest=5)  # four of each diagnosis
    said = [loss.text for loss in losses(scores, rows, "alone")]
    assert any(text.startswith("Site A") for text in said)
    assert not any(text.startswith("Diagnosis") for text in said)
    assert worst_cases(scores, "alone", smallest=5) == []


def test_on_a_page_results_and_limits_are_not_told_twice(card: ModelCard) -> None:
    headings = [block.text for block in card_blocks(card, alone=False) if isinstance(block, Heading)]
    assert "Results" not in headings
    assert "What the numbers do not show" not in headings
    assert "Where it fails" in headings


def test_markdown_of_a_table() -> None:
    rows = [
        [Cell("a|b"), Cell("0.1", best=True, detail="0.0 to 0.2")],
        [Cell("<c>"), Cell("not available", note="why *not*", missing=True)],
    ]
    columns = [Column("S", "text"), Column("M", "text"), Column("MAE")]
    text = markdown([Table("T", columns, [RowGroup("A", rows)], "how")])
    assert text.splitlines() == [
        "**T**", "",
        "| S | M | MAE |", "| --- | --- | ---: |",
        "| A | a\\|b | **0.1** (0.0 to 0.2) |", "|  | &lt;c> | not available [1] |",
        "", "how", "", "1. why \\*not\\*",
    ]  # fmt: skip


def test_markdown_skips_pictures_and_opens_folds() -> None:
    blocks = [Picture(b"", "alt"), Fold("more", [Bullets(["x_y"])]), Code("a\nb")]
    assert markdown(blocks) == "- x\\_y\n\n```\na\nb\n```"


def test_a_text_stays_on_its_line() -> None:
    assert escaped("a\n  b & <c>") == "a b &amp; &lt;c>"
