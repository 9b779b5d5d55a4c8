# SPDX-License-Identifier: Apache-2.0
"""The card that a run leaves: what the coordinator knows, no more."""

from pathlib import Path

from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.clinical import Standardisation
from pasta_model.report.card_facts import FACTS, read_facts
from server.card import CARD, write_model_card
from server.records import Progress, RoundRecord


def record(number: int, **mae: float) -> RoundRecord:
    empty: dict[str, float] = {}
    return RoundRecord(number, empty, mae, empty, empty, {}, empty, 1.0, {}, {})


def card(tmp_path: Path, settings: Settings, progress: Progress, **subjects: int) -> str:
    write_model_card(tmp_path, settings, progress, subjects=subjects)
    return (tmp_path / CARD).read_text(encoding="utf-8")


def test_the_card_tells_what_the_coordinator_knows(tmp_path: Path) -> None:
    settings = settings_from_flat(
        {
            "run.name": "north-sea",
            "exchange.personal": "norms",
            "privacy.unit": "subject",
            "privacy.epsilon": 3.0,
        }
    )
    progress = Progress(3, Standardisation((), ()), "")
    progress.history += [record(0), record(1), record(2, alder=0.1675)]
    progress.best_round = 1
    text = card(tmp_path, settings, progress, alder=41, birch=4, cedar=3)
    for word in (
        "north-sea",
        "41",
        "0.1675",
        "norms",
        "after round 1",
        "not a medical device",
        "pasta evaluate",
    ):
        assert word in text, word
    assert "2 of 10 local steps" in text
    facts = read_facts(tmp_path / FACTS)  # a site completes the card from these
    assert (facts.name, facts.sites["alder"]) == ("PASTA, federated: north-sea", 41)
    assert "4" not in str(facts.sites["birch"])
    assert facts.privacy.epsilon == 3.0
    assert "each person at a site" in text
    assert "the most that a site was asked to spend" in text
    for site in ("birch", "cedar"):
        (line,) = (line for line in text.splitlines() if site in line)
        assert "fewer than 5" in line
        assert "4" not in line
        assert "3" not in line
    assert "withheld by the site" not in text, "nobody has"


def test_no_error_is_made_up(tmp_path: Path) -> None:
    progress = Progress(1, Standardisation((), ()), "")
    progress.history += [record(0), record(1)]
    text = card(tmp_path, Settings(), progress, alder=41, birch=50)
    assert "the last; no site told an error" in text
    assert "validation MAE of" not in text
    assert "no differential privacy" in text
