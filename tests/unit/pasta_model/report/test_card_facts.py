# SPDX-License-Identifier: Apache-2.0
"""What a run's card tells is read back as it was written, and nothing else is taken for it."""

import json
from pathlib import Path

import pytest

from pasta_model.errors import CheckpointError
from pasta_model.report.card import ModelCard
from pasta_model.report.card_facts import FACTS, read_facts, write_facts
from pasta_model.report.privacy import Privacy

CARD = ModelCard(
    "north-sea", "federated", (), (), summary="A model.", data={"from": "MRI"}, training={"rounds": "2"},
    sites={"A": 41, "B": None, "C": 3, "D": 4}, smallest=5,
    privacy=Privacy("site", 3.0, 1e-5, (1.5, 3.0), {"accountant": "prv"}),
    licence="apache-2.0", commands=("pasta-server run",), limits=("of the run alone",),
)  # fmt: skip


def test_there_and_back(tmp_path: Path) -> None:
    write_facts(tmp_path / FACTS, CARD)
    found = read_facts(tmp_path / FACTS)
    assert (found.name, found.summary, found.data) == ("north-sea", "A model.", {"from": "MRI"})
    assert found.sites == {"A": 41, "B": None, "C": "fewer than 5", "D": "fewer than 5"}
    assert found.privacy.facts == CARD.privacy.facts
    assert list(found.privacy.by_round) == [1.5, 3.0]
    assert (found.training, found.commands) == ({"rounds": "2"}, ("pasta-server run",))
    assert found.licence == "apache-2.0"
    assert "of the run alone" not in (tmp_path / FACTS).read_text(), "limits are of whoever measures"


def test_what_is_no_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FACTS
    with pytest.raises(CheckpointError, match="a run writes it when it ends"):
        read_facts(path)
    path.write_text("not JSON")
    with pytest.raises(CheckpointError, match="is not JSON"):
        read_facts(path)
    path.write_text(json.dumps({"name": "x", "colour": "blue"}))
    with pytest.raises(CheckpointError, match=r"holds no model card .*colour"):
        read_facts(path)
