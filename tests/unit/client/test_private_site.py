# SPDX-License-Identifier: Apache-2.0
"""A site that protects its subjects: what it releases, and what it counts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from client import private as private_module
from client import site as site_module
from client.ledger import Ledger
from client.people import default_ledger
from client.private import TRAINING, VALIDATION
from client.site import Site
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import BudgetError, PrivacyError, TrainingError
from pasta_model.exchange.contents import EVALUATE, JOIN, TRAIN
from pasta_model.exchange.departure import check_departure
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remember, remembered
from tests.support.private_site import (
    BARE,
    METRICS,
    content,
    cost,
    ledger_of,
    lines,
    move,
    same,
    settings_of,
    site,
    spent,
    with_epsilon,
)
from tests.support.tasks import Leader, vector


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


class TestWhatLeaves:
    def test_round_trip(self, settings: Settings) -> None:
        """The real thing: join, two rounds, and the measure of the end."""
        leader = Leader(settings)
        joined = site(settings).report().parcel()
        check_departure(JOIN, joined, settings)
        assert not any(sums.any() for sums in joined.arrays.values())
        assert (joined.values["train-subjects"], joined.values["valid-subjects"]) == (3, 1)
        assert content(settings) == b"", "to join costs nothing"
        for number in range(2):
            answer = site(settings).train(leader.task(number))
            check_departure(TRAIN, answer, settings)
            assert answer.values == {"site": "A", "round": number, "subjects": 3, "codec": "float32"}
            assert np.abs(leader.follow(answer)).max() > 0
            assert spent(settings) == pytest.approx(cost(settings, rounds=number + 1), rel=1e-9)
        before = content(settings)
        measured = site(settings).evaluate(leader.task(2))
        check_departure(EVALUATE, measured, settings)
        assert measured.values.keys() == BARE
        assert content(settings) == before
        events = [json.loads(line)["event"] for line in before.splitlines()]
        assert events == ["opened", "cohort", "plan", *["reserved", "released"] * 2]

    def test_noised_error_and_its_lines(self, private, trained) -> None:
        settings = private(privacy__metrics="noised")
        leader = Leader(settings)
        answer = site(settings).train(leader.task(0))
        check_departure(TRAIN, answer, settings)
        assert answer.values.keys() == BARE | {"codec", "valid-mae"}
        leader.follow(answer)
        measured = site(settings).evaluate(leader.task(1))
        check_departure(EVALUATE, measured, settings)
        assert measured.values.keys() == BARE | {"valid-mae"}
        found, ledger = lines(settings, VALIDATION), ledger_of(settings)
        assert [(line.round, line.release) for line in found] == [(n, Release(10.0, 1.0, 1)) for n in (0, 1)]
        store = SiteStore(Path(settings.data.sites) / "A")
        assert {line.cohort for line in found} == {ledger.cohort_of(store.persons("valid"))}
        assert spent(settings) == pytest.approx(cost(settings, rounds=1), rel=1e-9), "others than who train"
        twice = [Release(10.0, 1.0, 2)]
        assert spent(settings, "valid") == pytest.approx(
            remembered(twice, delta=settings.privacy.delta, accountant="rdp"), rel=1e-9
        )

    def test_every_look_at_the_same_weights_is_paid_for(self, private, monkeypatch) -> None:
        settings, seen = private(privacy__metrics="noised"), []

        def error(*_, settings) -> float:
            seen.append(len(lines(settings, VALIDATION)))
            return 0.25

        monkeypatch.setattr(private_module, "noised_validation_mae", error)
        for _ in range(3):
            assert site(settings).evaluate(Leader(settings).task(0)).values["valid-mae"] == 0.25
        assert seen == [1, 2, 3], "the line is there before the error is"

    def test_error_whose_budget_is_spent_stays(self, private, trained) -> None:
        settings = private(privacy__metrics="noised", privacy__metrics_noise_multiplier=0.05)
        answer = site(settings).train(Leader(settings).task(0))
        assert answer.values.keys() == BARE | {"codec"}
        before = content(settings)
        assert site(settings).evaluate(Leader(settings).task(1)).values.keys() == BARE
        assert content(settings) == before
        assert lines(settings, VALIDATION) == []

    @pytest.mark.parametrize("changes", [{"metrics": ["seconds"]}, {"metrics_min_subjects": 2}])
    def test_nothing_is_spent_on_an_error_that_the_policy_keeps_back(
        self, private, policy, trained, changes
    ) -> None:
        settings = private(privacy__metrics="noised")
        answer = site(settings, policy(**changes)).train(Leader(settings).task(0))
        assert "valid-mae" not in answer.values
        assert lines(settings, VALIDATION) == []
        assert len(lines(settings)) == 1

    def test_those_who_train_do_not_validate_in_place_of_nobody(self, private, trained) -> None:
        settings = private(privacy__metrics="noised")
        move(settings, "sub-Adan", to="test")
        answer = site(settings).train(Leader(settings).task(0))
        assert answer.values.keys() == BARE | {"codec"}
        assert site(settings).evaluate(Leader(settings).task(1)).values.keys() == BARE
        assert lines(settings, VALIDATION) == []

    def test_open_metrics_are_named_as_not_covered_and_leave(self, private, trained) -> None:
        settings = private(privacy__metrics="open")
        answer = site(settings).train(Leader(settings).task(0))
        assert answer.values.keys() == BARE | {"codec"} | METRICS
        assert lines(settings, VALIDATION) == []

    def test_no_private_run_writes_no_ledger(self, private) -> None:
        settings = private(privacy__unit="none")
        site(settings).train(Leader(settings).task(0))
        assert not default_ledger(Path(settings.data.sites) / "A").parent.exists()


class TestAskedTwice:
    @pytest.mark.parametrize("metrics", ["withheld", "noised"])
    def test_same_answer_and_nothing_is_spent_twice(self, private, trained, metrics: str) -> None:
        settings = private(privacy__metrics=metrics)
        leader = Leader(settings)
        first = site(settings).train(leader.task(0))
        before = content(settings)
        for again in (leader.task(0), leader.whole(0)):
            assert same(site(settings).train(again), first)
        assert content(settings) == before
        assert trained == [0]

    @pytest.mark.parametrize(
        "place",
        [
            "write_vector",
            "make_optimizer",
            "private_steps",
            "save_moments",
            "encode_step",
            "write_answer",
            "note_plan",
            "reserve",
            "note_released",
        ],
    )
    def test_killed_anywhere_one_round_costs_one_round(
        self, settings: Settings, trained, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        leader = Leader(settings)
        room = next(r for r in (private_module, site_module, Ledger) if hasattr(r, place))

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(room, place, killed)
                with pytest.raises(KeyboardInterrupt):
                    site(settings).train(leader.task(0))
        first = site(settings).train(leader.task(0))
        assert same(site(settings).train(leader.task(0)), first)
        (line,) = lines(settings)
        assert line.round == 0
        ledger = ledger_of(settings)
        assert ledger.released(line.run, 0, TRAINING) == 1, "what left is noted as released"
        assert spent(settings) == pytest.approx(cost(settings, rounds=1), rel=1e-9)

    def test_other_weights_are_another_release(self, settings: Settings, trained) -> None:
        """A server that asks twice about one round gets two updates, and two are counted."""
        leader = Leader(settings)
        site(settings).train(leader.task(0))
        leader.weights = {n: buffer + np.float32(1e-3) for n, buffer in leader.weights.items()}
        site(settings).train(leader.whole(0))
        assert trained == [0, 0]
        assert spent(settings) == pytest.approx(cost(settings, rounds=2), rel=1e-9)

    def test_answer_that_the_site_forgot_is_a_new_release(self, settings: Settings, trained) -> None:
        leader = Leader(settings)
        first = site(settings).train(leader.task(0))
        shutil.rmtree(Path(settings.data.sites) / "A" / "state")
        second = site(settings).train(leader.task(0))
        assert not np.array_equal(vector(first, settings), vector(second, settings))
        assert len(lines(settings)) == 2
        assert spent(settings) == pytest.approx(cost(settings, rounds=2), rel=1e-9)

    def test_training_that_failed_is_tried_again_for_its_own_task_only(
        self, settings: Settings, trained, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leader = Leader(settings)

        def fails(*_: object, **__: object) -> float:
            raise TrainingError("a loss is not finite")

        with monkeypatch.context() as patch:
            patch.setattr(private_module, "private_steps", fails)
            with pytest.raises(TrainingError):
                site(settings).train(leader.task(0))
        site(settings).train(leader.task(0))
        assert len(lines(settings)) == 1


class TestDataPreparedAnew:
    def test_ledger_outlives_the_store(self, settings: Settings, trained, make_store, policy) -> None:
        leader = Leader(settings)
        leader.follow(site(settings).train(leader.task(0)))
        before = content(settings)
        make_store()  # over the same folder
        left = (Path(settings.data.sites) / "A" / "state").rglob("*")
        assert [path.name for path in left] == ["ledger.json"], "the ledger's witness alone"
        assert content(settings) == before
        assert spent(settings) == pytest.approx(cost(settings, rounds=1), rel=1e-9)
        little = policy(max_epsilon=1.01 * cost(settings, rounds=2))
        another = with_epsilon(settings_of(settings, name="another"), little.max_epsilon)
        with pytest.raises(BudgetError, match="1 round"):
            site(another, little).report()

    def test_store_that_is_reached_by_another_way_has_the_same_ledger(
        self, settings: Settings, trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = Path(settings.data.sites) / "A"
        (tmp_path / "link").symlink_to(path)
        monkeypatch.chdir(path)
        ways = [path, tmp_path / "link", Path(), Path("../A"), Path("state/..")]
        assert {default_ledger(way) for way in ways} == {default_ledger(path.resolve())}

    def test_store_that_was_moved_without_its_ledger_is_noticed(self, settings: Settings, trained) -> None:
        site(settings).train(Leader(settings).task(0))
        path = Path(settings.data.sites) / "A"
        path.rename(path.with_name("moved"))
        with pytest.raises(PrivacyError, match="taken away or replaced"):
            Site(path.with_name("moved"), settings).report()
