# SPDX-License-Identifier: Apache-2.0
"""What the privacy section says epsilon covers, and what not."""

import pytest

from pasta_model.federated_sections import PrivacySettings
from pasta_model.report.page import Paragraph
from pasta_model.report.privacy import Privacy, privacy_blocks

WITHHELD = [{"round": r, "loss": {}, "valid_mae": {}, "epsilon": None} for r in range(2)]
TOLD = [{"round": r, "loss": {}, "valid_mae": {"A": 0.2}, "epsilon": None} for r in range(2)]


def facts(history: list[dict], **own: object) -> dict[str, str]:
    return Privacy.of(PrivacySettings(**own), history).facts


@pytest.mark.parametrize(
    ("unit", "metrics"), [("subject", "open"), ("site", "withheld"), ("site", "noised"), ("site", "open")]
)
def test_errors_that_were_told_bare_are_not_covered(unit: str, metrics: str) -> None:
    """Where the unit is the site, `privacy.metrics` changes nothing: no site adds noise."""
    said = facts(TOLD, unit=unit, metrics=metrics)
    assert said["not covered"].startswith("losses and validation errors: they were told without noise")
    assert "the best model was chosen" in said["not covered"]
    assert "validation errors" not in said


def test_a_bare_loss_alone_is_not_covered_either() -> None:
    said = facts([{"round": 0, "loss": {"A": 0.3}, "valid_mae": {}}], unit="subject", metrics="open")
    assert "told without noise" in said["not covered"]


def test_withheld_errors_chose_nothing() -> None:
    said = facts(WITHHELD, unit="subject")
    assert said["validation errors"] == "no loss or error was told, so none chose a model"
    assert "not covered" not in said
    assert said["treated as public"] == "how many subjects a site has, and that it takes part"


def test_an_error_that_left_although_it_was_withheld_is_not_called_covered() -> None:
    assert "told without noise" in facts(TOLD, unit="subject", metrics="withheld")["not covered"]


def test_noised_errors_are_covered() -> None:
    said = facts(TOLD, unit="subject", metrics="noised")
    assert said["validation errors"].startswith("told with noise")
    assert "not covered" not in said


def test_the_server_is_trusted_where_it_adds_the_noise() -> None:
    said = facts(WITHHELD, unit="site")
    assert said["not covered"].startswith("what the server itself is told")
    assert said["validation errors"].startswith("no loss or error was told")


def test_the_accountant_is_the_one_that_counted() -> None:
    assert facts([], unit="subject")["accountant"] == "prv"
    assert facts([], unit="site")["accountant"] == "rdp"  # server.privacy.ACCOUNTANT


def test_the_meaning_points_to_what_is_not_covered() -> None:
    words = privacy_blocks(Privacy.of(PrivacySettings(unit="site"), TOLD))[1]
    assert isinstance(words, Paragraph)
    assert "apart from what is named as not covered" in words.text
