# SPDX-License-Identifier: Apache-2.0
"""In a private run even the kind of an error tells nothing about who was drawn."""

import pytest
from flwr.app import Error

from pasta_model.exchange.contents import Refusal
from tests.unit.client.test_guard_out import answers, fails

PRIVATE = {"privacy__unit": "subject", "privacy__delta": 1e-4}


@pytest.mark.parametrize("question", ["train", "evaluate"])
class TestPrivateRun:
    @pytest.mark.parametrize("kind", ["TrainingError", "VolumeError", "ValueError", "OutOfMemoryError"])
    def test_kinds_are_one(self, make_node, question: str, kind: str) -> None:
        node = make_node(**PRIVATE)
        found = node.ask(question, fails(100, Refusal(kind, "0123abcd").text)).message.error
        assert found == Error(100, Refusal("Error", "0123abcd").text)

    @pytest.mark.parametrize("kind", ["BudgetError", "PrivacyError", "StaleWeightsError"])
    def test_what_depends_on_nobodys_data_is_told(self, make_node, question: str, kind: str) -> None:
        text = Refusal(kind, "0123abcd").text
        assert make_node(**PRIVATE).ask(question, fails(100, text)).message.error == Error(100, text)

    @pytest.mark.parametrize("code", [2, 8, 1950])
    def test_how_the_code_died_is_not_told(self, make_node, question: str, code: int) -> None:
        node = make_node(**PRIVATE)
        found = node.ask(question, fails(code, "sub-ada is broken")).message.error
        assert found == Error(100, Refusal("Error", node.log[-1]["reference"]).text)

    def test_what_the_guard_finds_wrong_is_not_told_either(self, make_node, update, question: str) -> None:
        """Such as a value that is not finite, which weights could bring about for one subject alone."""
        node = make_node(**PRIVATE)
        found = node.ask(question, answers(update(node, site="B"))).message.error
        assert found == Error(100, Refusal("Error", node.log[-1]["reference"]).text)
        assert node.log[-1]["reason"], "the site's own log says what it was"


def test_before_anybodys_data_are_read_the_kind_is_told(make_node) -> None:
    text = Refusal("StoreError", "0123abcd").text
    assert make_node(**PRIVATE).ask("query.join", fails(100, text)).message.error == Error(100, text)


def test_run_without_privacy_tells_the_kind(make_node) -> None:
    text = Refusal("TrainingError", "0123abcd").text
    assert make_node().ask("train", fails(100, text)).message.error == Error(100, text)
