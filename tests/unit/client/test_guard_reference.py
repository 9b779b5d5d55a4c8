# SPDX-License-Identifier: Apache-2.0
"""Sums over persons at the gate: whatever the site's code says, few, others or unasked ones stay."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.guard.gate import Gate
from client.memory import run_name
from pasta_model.exchange.contents import REFERENCE, Parcel
from pasta_model.exchange.reference import ReferenceReport
from pasta_model.familiarity.features import COUNT
from pasta_model.familiarity.sums import FeatureSums
from pasta_model.norms.sums import VOLUMES, NormSums
from tests.support.guarded import Node, answers, build, open_log, write_kit, write_policy
from tests.support.people import GRID, SPACING, write_site
from tests.support.tasks import SMALLEST


@pytest.fixture
def make_guarded(tmp_path: Path, make_settings) -> Callable[..., Node]:
    """A node of a site of six normal persons, two others, and one of no age."""

    def make(*, policy: dict[str, object] | None = None, **changes) -> Node:
        store = write_site(tmp_path / "sites", "A", ageless=1)
        asked = {"federation__reference": "both"} | changes
        settings = make_settings(network__shape=SMALLEST, sampling__hop=4, **asked)
        kit = write_kit(tmp_path / "kit", store.path, **{"reference": True} | (policy or {}))
        node = Node(kit, settings, build(settings), Gate(kit, open_log(kit)))
        node.approve()
        return node

    return make


@pytest.fixture
def guarded(make_guarded) -> Node:
    return make_guarded()


def norms(persons: int = 6, *, site: str = "A", uptake: float = 1.0) -> Parcel:
    y = np.full(GRID.crop.shape, uptake)
    sums = NormSums(SPACING, 8.0, persons, 0.0, 1.0, persons * y, 0 * y, persons * y * y)
    return ReferenceReport(site, sums).parcel()


def features(persons: int = 9) -> Parcel:
    table = np.random.default_rng(0).normal(size=(persons, COUNT))
    return ReferenceReport("A", FeatureSums.of(table)).parcel()


def stays(node: Node, parcel: Parcel) -> str:
    """Let the code answer with this, which is to be kept back; return why, as the log tells it."""
    sent = node.ask(REFERENCE, answers(parcel))
    assert sent.message.has_error()
    assert len(sent.contents) == 1
    last = node.log[-1]
    assert (last["event"], last["direction"]) == ("refused", "out")
    return last["reason"]


def refused(node: Node) -> str:
    """Ask; return why the question did not reach the site's code."""
    sent = node.ask(REFERENCE, answers(norms()))
    assert sent.message.has_error()
    assert node.reached == []
    assert (node.log[-1]["event"], node.log[-1]["direction"]) == ("refused", "in")
    return node.log[-1]["reason"]


@pytest.mark.parametrize(("parcel", "persons"), [(norms(), 6), (features(), 9)])
def test_sums_that_may_leave_do_and_are_a_line(guarded: Node, parcel: Parcel, persons: int) -> None:
    sent = guarded.ask(REFERENCE, answers(parcel))
    assert sent.parcel.values == parcel.values
    for name, array in parcel.arrays.items():
        np.testing.assert_array_equal(sent.parcel.arrays[name], array)
    line = guarded.log[-1]
    assert (line["event"], line["direction"], line["kind"]) == ("sent", "out", REFERENCE)
    assert (line["subjects"], line["arrays"]) == (persons, len(parcel.arrays))
    assert line["values"] == sorted(parcel.values)
    assert line["reference"].startswith(f"{run_name(guarded.settings)}/{parcel.values['what']}/")


class TestQuestions:
    @pytest.mark.parametrize("policy", [{"reference": False}, {"reference": None}], ids=["false", "left out"])
    def test_a_policy_that_does_not_allow_it_refuses_the_question_not_the_run(
        self, make_guarded, policy
    ) -> None:
        node = make_guarded(policy=policy)
        assert "the policy does not let them leave" in refused(node)
        node.take_in("train")
        assert node.log[-1]["event"] == "received"

    def test_a_run_that_asks_for_none_in_its_settings(self, make_guarded) -> None:
        assert "whose settings ask for none" in refused(make_guarded(federation__reference="none"))


class TestAnswersThatStay:
    @pytest.mark.parametrize("persons", [0, 1, 4])
    def test_over_fewer_than_five(self, guarded: Node, persons: int) -> None:
        parcel = norms(max(persons, 1))
        parcel.values["persons"] = persons
        assert f"sums over {persons} person(s), wanted at least 5" in stays(guarded, parcel)

    def test_over_fewer_than_the_policy_wants(self, make_guarded) -> None:
        node = make_guarded(policy={"metrics_min_subjects": 7})
        assert "sums over 6 person(s) would leave; wanted at least 7" in stays(node, norms())
        assert node.ask(REFERENCE, answers(features())).parcel.values["persons"] == 9

    @pytest.mark.parametrize(
        ("parcel", "said"),
        [
            (norms(7), "sums over 7 persons for norms; 6 can be here"),
            (features(10), "sums over 10 persons for familiarity; 9 can be here"),
        ],
    )
    def test_over_more_than_there_are(self, guarded: Node, parcel: Parcel, said: str) -> None:
        assert said in stays(guarded, parcel)

    def test_one_of_them_has_left_since(self, guarded: Node) -> None:
        assert guarded.ask(REFERENCE, answers(norms())).message.has_content()
        path = guarded.kit.site.store / "index.json"
        index = json.loads(path.read_text())
        index["entries"][0]["split"] = "test"
        path.write_text(json.dumps(index))
        assert "6 persons for norms; 5 can be here" in stays(guarded, norms())

    def test_of_another_site(self, guarded: Node) -> None:
        assert "this is 'A'" in stays(guarded, norms(site="B"))

    def test_not_those_that_the_run_asks_for(self, make_guarded) -> None:
        node = make_guarded(federation__reference="norms")
        assert "sums for familiarity: federation.reference of this run is 'norms'" in stays(node, features())

    def test_a_scan_beside_them(self, guarded: Node) -> None:
        parcel = norms()
        parcel.arrays["scan"] = parcel.arrays["uptake"]
        assert "scan" in stays(guarded, parcel)

    def test_a_scan_of_another_grid(self, guarded: Node) -> None:
        parcel = norms()
        parcel.arrays.update(dict.fromkeys(VOLUMES, np.zeros((96, 112, 96), np.float32)))
        assert "wanted (48, 56, 48)" in stays(guarded, parcel)

    def test_impossible_sums(self, guarded: Node) -> None:
        parcel = norms()
        parcel.arrays["uptake_squared"] = np.zeros_like(parcel.arrays["uptake"])
        assert "less than their sums allow" in stays(guarded, parcel)

    def test_the_policy_changed_meanwhile(self, guarded: Node) -> None:
        def slow(request):
            write_policy(guarded.kit.path.parent, reference=False)
            return answers(norms())(request)

        assert guarded.ask(REFERENCE, slow).message.has_error()
        assert "the policy does not let them leave" in guarded.log[-1]["reason"]

    @pytest.mark.parametrize("kind", ["train", "evaluate", "query.join", "query.sites"])
    def test_as_an_answer_to_something_else(self, guarded: Node, kind: str) -> None:
        assert guarded.ask(kind, answers(norms())).message.has_error()


class TestOnce:
    def test_the_same_may_be_given_again(self, guarded: Node) -> None:
        for _ in range(2):
            assert guarded.ask(REFERENCE, answers(norms())).message.has_content()
            guarded.restart()

    def test_others_may_not_even_after_a_restart(self, guarded: Node) -> None:
        """Of persons of whom one is another: the difference would be that one."""
        assert guarded.ask(REFERENCE, answers(norms(6))).message.has_content()
        assert "got sums for norms from here already, and these are others" in stays(guarded, norms(5))
        guarded.restart()
        assert "and these are others" in stays(guarded, norms(6, uptake=1.0001))
        assert guarded.ask(REFERENCE, answers(norms(6))).message.has_content()

    def test_norms_and_familiarity_are_two(self, guarded: Node) -> None:
        assert guarded.ask(REFERENCE, answers(norms())).message.has_content()
        assert guarded.ask(REFERENCE, answers(features())).message.has_content()

    def test_another_run_may_have_others(self, guarded: Node) -> None:
        assert guarded.ask(REFERENCE, answers(norms(6))).message.has_content()
        guarded.restart()
        guarded.override = {"run.name": "another"}
        assert guarded.ask(REFERENCE, answers(norms(5))).message.has_content()

    def test_what_was_kept_back_is_not_counted(self, guarded: Node) -> None:
        stays(guarded, norms(7))
        assert guarded.ask(REFERENCE, answers(norms(6))).message.has_content()
