# SPDX-License-Identifier: Apache-2.0
"""A site that protects its subjects: what it releases, what it counts, and when it stops."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from client import private as private_module
from client import site as site_module
from client.ledger import Ledger
from client.memory import run_name
from client.people import default_ledger, open_ledger
from client.policy import Policy
from client.private import TRAINING, VALIDATION
from client.site import Site
from client.spending import Limit, Spending
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import BudgetError, FederationError, PolicyError, PrivacyError, TrainingError
from pasta_model.exchange.contents import EVALUATE, JOIN, TRAIN, Parcel
from pasta_model.exchange.departure import check_departure
from pasta_model.privacy import training as training_module
from pasta_model.privacy.accounting import Release
from pasta_model.privacy.plan import plan_for
from server.rounds import Federation
from simulation.direct import DirectPost
from tests.support.accounting import remember, remembered
from tests.support.tasks import SMALL, Leader, vector

PRIVATE: dict[str, bool | float | str] = {
    **SMALL,
    "privacy__unit": "subject",
    "privacy__epsilon": 50.0,
    "privacy__delta": 1e-3,
    "privacy__noise_multiplier": 3.0,
    "privacy__subjects_per_step": 2,
    "privacy__slabs_per_subject": 1,
    "privacy__accountant": "rdp",
}
METRICS = {"train-loss", "valid-mae", "seconds"}
BARE = {"site", "round", "subjects"}


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path, prepared: Path) -> SiteStore:
    """A site of three who train and one who validates, prepared once for all tests."""
    if not prepared.exists():
        shutil.copytree(request.getfixturevalue("make_store")().path, prepared)
        return SiteStore(tmp_path / "sites" / "A")
    return SiteStore(shutil.copytree(prepared, tmp_path / "sites" / "A"))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared") / "A"


@pytest.fixture
def private(make_settings, store: SiteStore) -> Callable[..., Settings]:
    """Settings of a private run of this store."""
    return lambda **changes: make_settings(data__sites=str(store.path.parent), **(PRIVATE | changes))


@pytest.fixture
def settings(private) -> Settings:
    return private()


@pytest.fixture
def policy() -> Callable[..., Policy]:
    def make(**changes: object) -> Policy:
        usual = {"aggregations": ["fedavg"], "min_subjects": 1, "max_rounds": 9, "metrics_min_subjects": 1}
        usual |= {"metrics": ["train-loss", "valid-mae", "seconds"], "max_epsilon": 50.0, "max_delta": 1e-3}
        return Policy(**(usual | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rounds that were trained; training itself is a fresh random number added to every weight."""
    rounds: list[int] = []

    def train(network, subjects, optimizer, *, settings, place, plan) -> float:
        rounds.append(place.round)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(1e-3 * float(np.random.default_rng().normal()))
        return 0.5

    monkeypatch.setattr(private_module, "private_steps", train)
    return rounds


def site(settings: Settings, policy: Policy | None = None) -> Site:
    """A new process at the site."""
    return Site(Path(settings.data.sites) / "A", settings, policy)


def ledger_of(settings: Settings) -> Ledger:
    store = SiteStore(Path(settings.data.sites) / "A")
    return open_ledger(default_ledger(store.path), store)


def lines(settings: Settings, mechanism: str = TRAINING) -> list[Spending]:
    return [line for line in ledger_of(settings).spendings if line.mechanism == mechanism]


def content(settings: Settings) -> bytes:
    """Every byte of the ledger; empty where there is none."""
    path = default_ledger(Path(settings.data.sites) / "A")
    return path.read_bytes() if path.exists() else b""


def spent(settings: Settings, split: str = "train") -> float:
    ledger = ledger_of(settings)
    people = SiteStore(Path(settings.data.sites) / "A").persons(split)
    return ledger.spent(people, Limit(0.0, settings.privacy.delta, accountant="rdp"))


def cost(settings: Settings, *, rounds: int) -> float:
    """What so many rounds of these settings cost, straight from the accountant."""
    rate = settings.privacy.subjects_per_step / 3
    steps = rounds * settings.training.local_steps
    one = Release(settings.privacy.noise_multiplier, rate, steps)
    return remembered([one], delta=settings.privacy.delta, accountant="rdp")


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


def move(settings: Settings, subject: str, *, to: str) -> None:
    """Put a subject into another split, as preparing the data anew would."""
    path = Path(settings.data.sites) / "A" / "index.json"
    index = json.loads(path.read_text())
    for entry in index["entries"]:
        if entry["subject"] == subject:
            entry["split"] = to
    path.write_text(json.dumps(index))


def same(one: Parcel, other: Parcel) -> bool:
    return one.values == other.values and all(
        np.array_equal(one.arrays[name], other.arrays[name]) for name in one.arrays.keys() | other.arrays
    )


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


def settings_of(settings: Settings, *, name: str) -> Settings:
    """The same run under another name."""
    return settings.model_copy(update={"run": settings.run.model_copy(update={"name": name})})


class TestBudget:
    def test_run_that_asks_for_more_than_it_promised_gets_no_more(self, private, trained) -> None:
        settings = with_epsilon(private(), 1.001 * cost(private(), rounds=2))
        leader = Leader(settings)
        for number in range(2):
            last = leader.task(number)
            leader.follow(site(settings).train(last))
        before = content(settings)
        said = r"site A: run .* nothing was released.*evaluates only"
        with pytest.raises(BudgetError, match=said) as error:
            site(settings).train(leader.task(1))  # the same round, from other weights
        assert "\n" not in str(error.value)
        assert content(settings) == before
        assert trained == [0, 1]
        assert site(settings).evaluate(leader.task(2)).values.keys() == BARE
        site(settings).train(last)  # what was released already is given again

    def test_two_runs_share_what_the_policy_allows(self, settings, trained, policy) -> None:
        """Both were let in, each fits alone; the fourth round of both together does not."""
        little = policy(max_epsilon=1.01 * cost(settings, rounds=3))
        settings = with_epsilon(settings, little.max_epsilon)
        runs = [settings_of(settings, name=name) for name in ("first", "second")]
        leaders = [Leader(run) for run in runs]
        for run in runs:
            site(run, little).report()
        for turn, number in ((0, 0), (1, 0), (0, 1)):
            leaders[turn].follow(site(runs[turn], little).train(leaders[turn].task(number)))
        before = content(settings)
        with pytest.raises(BudgetError, match="the site's policy, over all runs"):
            site(runs[1], little).train(leaders[1].task(1))
        assert content(settings) == before
        assert trained == [0, 0, 1]
        assert site(runs[1], little).evaluate(leaders[1].task(1)).values.keys() == BARE
        site(runs[1], little).report()  # a run that goes on is not refused for what it began

    def test_run_that_costs_more_than_is_left_is_refused_when_it_joins(self, settings, policy) -> None:
        little = policy(max_epsilon=1.01 * cost(settings, rounds=1))
        settings = with_epsilon(settings, little.max_epsilon)
        settings = with_noise(settings, 0.0)  # calibrated: it fits
        site(settings, little).report()
        settings = with_noise(settings, 3.0)
        with pytest.raises(PrivacyError, match=r"2 rounds of .* wanted at most .*holds 1 round") as error:
            site(settings, little).report()
        assert content(settings) == b""
        assert str(error.value).count("\n") == 0

    def test_run_that_does_not_fit_beside_earlier_ones_is_refused_when_it_joins(
        self, settings, trained, policy
    ) -> None:
        usual = policy(max_epsilon=1.01 * cost(settings, rounds=3))
        settings = with_epsilon(settings, usual.max_epsilon)
        leader = Leader(settings)
        for number in range(2):
            leader.follow(site(settings, usual).train(leader.task(number)))
        another, before = settings_of(settings, name="another"), content(settings)
        with pytest.raises(BudgetError) as error:
            site(another, usual).report()
        said = str(error.value)
        for wanted in (
            "site A: 2 rounds of this run would bring epsilon from",
            f"the policy allows {usual.max_epsilon:g} over all runs",
            "unit subject",
            "1 round(s) would fit",
            "Nothing was spent",
        ):
            assert wanted in said
        assert content(settings) == before
        with pytest.raises(BudgetError):  # nor by a server that does not ask it to join
            site(another, usual).train(leader.whole(0))
        assert content(settings) == before

    def test_people_who_join_later_have_their_own_budget(self, settings, trained, policy) -> None:
        little = policy(max_epsilon=1.01 * cost(settings, rounds=2))
        settings = with_epsilon(settings, little.max_epsilon)
        leader = Leader(settings)
        for number in range(2):
            leader.follow(site(settings, little).train(leader.task(number)))
        for name in ("sub-Aada", "sub-Abob", "sub-Acyd"):
            move(settings, name, to="test")
        move(settings, "sub-Adan", to="train")
        another = settings_of(settings, name="another")
        alone = another.privacy.model_copy(update={"subjects_per_step": 1, "noise_multiplier": 0.0})
        another = another.model_copy(update={"privacy": alone})
        site(another, little).report()
        site(another, little).train(Leader(another).task(0))

    def test_delta_that_would_let_a_scan_be_published_is_refused_when_it_joins(self, private) -> None:
        settings = private(privacy__delta=0.34)
        with pytest.raises(PrivacyError, match=r"privacy.delta is 0.34, wanted less than 1 / subjects"):
            site(settings).report()
        with pytest.raises(PrivacyError, match=r"privacy.delta is 0.34"):
            site(settings).train(Leader(settings).task(0))
        assert ledger_of(settings).plans == {}
        assert lines(settings) == []

    def test_site_that_only_measures_needs_no_budget(self, private, policy) -> None:
        little = policy(max_epsilon=0.5)
        settings = private(federation__held_out="A, C", privacy__epsilon=0.5)
        with pytest.raises(PrivacyError):
            site(private(privacy__epsilon=0.5), little).report()
        assert site(settings, little).report().train_subjects == 3
        assert site(settings, little).evaluate(Leader(settings).task(0)).values.keys() == BARE
        assert content(settings) == b""


def with_epsilon(settings: Settings, value: float) -> Settings:
    privacy = settings.privacy.model_copy(update={"epsilon": value})
    return settings.model_copy(update={"privacy": privacy})


def with_noise(settings: Settings, value: float) -> Settings:
    privacy = settings.privacy.model_copy(update={"noise_multiplier": value})
    return settings.model_copy(update={"privacy": privacy})


class TestPlan:
    def test_it_is_made_once_and_read_back(self, settings, trained, monkeypatch) -> None:
        made, used, leader = [], [], Leader(settings)
        train = private_module.private_steps

        def plan(settings, *, subjects):
            made.append(plan_for(settings, subjects=subjects))
            return made[-1]

        def spy(*arguments, plan, **words):
            used.append(plan)
            return train(*arguments, plan=plan, **words)

        monkeypatch.setattr(private_module, "plan_for", plan)
        monkeypatch.setattr(private_module, "private_steps", spy)
        for number in range(2):
            leader.follow(site(settings).train(leader.task(number)))
        assert len(made) == 1
        assert used == [made[0]] * 2
        (line,) = ledger_of(settings).plans.values()
        assert line["noise_multiplier"] == 3.0
        assert line["epsilon"] == pytest.approx(cost(settings, rounds=2), rel=1e-9)

    @pytest.mark.parametrize("subject", ["sub-Acyd", "sub-Adan"])
    def test_people_who_changed_while_a_run_went_on_are_refused(self, settings, trained, subject) -> None:
        leader = Leader(settings)
        leader.follow(site(settings).train(leader.task(0)))
        before = content(settings)
        move(settings, subject, to="train" if subject == "sub-Adan" else "test")
        with pytest.raises(PrivacyError, match=r"training subjects changed.*begin a new run \(run.name\)"):
            site(settings).train(leader.task(1))
        assert content(settings) == before
        assert trained == [0]
        move(settings, subject, to="valid" if subject == "sub-Adan" else "train")
        site(settings).train(leader.task(1))

    def test_ledger_says_what_the_sampler_was_given(self, private, monkeypatch) -> None:
        given = []
        real = training_module.UniformWithReplacementSampler

        def spy(**words):
            given.append(words)
            return real(**words)

        monkeypatch.setattr(training_module, "UniformWithReplacementSampler", spy)
        settings = private(training__local_steps=3)
        site(settings).train(Leader(settings).task(0))
        (words,), (line,) = given, lines(settings)
        assert words["sample_rate"] == line.release.sampling_rate == pytest.approx(2 / 3)
        assert words["steps"] == line.release.steps == 3
        assert words["num_samples"] == 3


class TestNoise:
    def test_no_setting_of_a_run_chooses_it(self, settings, monkeypatch) -> None:
        """All that a server can say are settings and tasks; neither holds a seed of the noise."""
        names = set(settings.flat())
        assert {name for name in names if "seed" in name} == {"run.seed"}
        assert {name for name in names if "noise" in name} == {
            "privacy.noise-multiplier",
            "privacy.metrics-noise-multiplier",
            "sampling.noise",
        }
        assert not {name for name in names if "generator" in name or "chance" in name}
        given: dict[str, object] = {}
        monkeypatch.setattr(private_module, "private_steps", lambda *_, **words: given.update(words) or 0.5)
        site(settings).train(Leader(settings).task(0))
        assert given.keys() == {"settings", "place", "plan"}, "a release has no generator of its own"

    @pytest.mark.parametrize("unit", ["subject", "none"])
    def test_same_seed_and_data_do_not_give_the_same_update(self, private, store, unit, tmp_path) -> None:
        settings = private(privacy__unit=unit)
        shutil.copytree(store.path, tmp_path / "other" / "A")
        leader = Leader(settings)
        places = (store.path, tmp_path / "other" / "A")
        found = [vector(Site(place, settings).train(leader.task(0)), settings) for place in places]
        assert np.array_equal(*found) == (unit == "none")


class TestChangedLedger:
    @pytest.mark.parametrize("what", ["deleted", "edited", "replaced by another site's"])
    def test_nothing_is_trained_nor_told(self, private, trained, what: str) -> None:
        settings = private(privacy__metrics="noised")
        leader = Leader(settings)
        leader.follow(site(settings).train(leader.task(0)))
        path = default_ledger(Path(settings.data.sites) / "A")
        if what == "deleted":
            shutil.rmtree(path.parent)
        elif what == "edited":
            path.write_bytes(path.read_bytes().replace(b'"steps":1', b'"steps":0'))
        else:
            other = Ledger(path.with_name("other"), site="B", witness=path.with_name("witness"))
            other.open_for(["sub-B"])
            for end in ("", ".head"):
                path.with_name("other" + end).replace(path.with_name(path.name + end))
        before = content(settings)
        asked: list[Callable[[Site], object]] = [
            lambda found: found.report(),
            lambda found: found.train(leader.task(1)),
            lambda found: found.train(leader.whole(1)),
            lambda found: found.evaluate(leader.task(1)),
        ]
        for ask in asked:
            with pytest.raises(PrivacyError, match="put it back"):
                ask(site(settings))
        assert trained == [0]
        assert content(settings) == before

    def test_round_whose_answer_stays_here_was_paid_for(self, settings, trained, monkeypatch) -> None:
        """Its moments and personal parts feed the next round, so it counts as released."""
        leader = Leader(settings)

        def stays(*_: object) -> None:
            raise PolicyError("it stays here")

        with monkeypatch.context() as patch:
            patch.setattr(Site, "_let_go", stays)
            for _ in range(2):
                with pytest.raises(PolicyError):
                    site(settings).train(leader.task(0))
        assert trained == [0], "asked again, nothing is trained"
        assert ledger_of(settings).released(run_name(settings), 0, TRAINING) == 1
        assert spent(settings) == pytest.approx(cost(settings, rounds=1), rel=1e-9)

    def test_kept_answer_does_not_leave_either(self, settings, trained) -> None:
        leader = Leader(settings)
        site(settings).train(leader.task(0))
        default_ledger(Path(settings.data.sites) / "A").unlink()
        with pytest.raises(PrivacyError, match="put it back"):
            site(settings).train(leader.task(0))


class TestTwoRunsAtOnce:
    def test_second_is_refused_and_spends_nothing(self, private, trained, tmp_path: Path) -> None:
        settings = private(
            run__output=str(tmp_path / "run"), federation__min_sites=1, federation__patience=0.0
        )
        with ledger_of(settings).alone():
            before = content(settings)
            run = Federation(DirectPost(settings, {"partition-id": 0, "num-partitions": 1}), settings)
            with pytest.raises(FederationError) as error:
                run.run()
        assert str(error.value).count("another run trains on these data now") == 1
        assert "wait until it is done" in str(error.value)
        assert trained == []
        assert content(settings) == before
        assert spent(settings) == 0

    def test_error_is_not_told_while_another_asks_the_ledger(self, private, trained) -> None:
        """Two who read the same account at once would both be told that enough is left."""
        settings = private(privacy__metrics="noised")
        with ledger_of(settings).alone(), pytest.raises(PrivacyError, match="another run trains"):
            site(settings).evaluate(Leader(settings).task(0))
        assert lines(settings, VALIDATION) == []
        site(settings).evaluate(Leader(settings).task(0))
        assert len(lines(settings, VALIDATION)) == 1

    def test_what_was_released_is_given_again_meanwhile(self, settings, trained) -> None:
        first = site(settings).train(Leader(settings).task(0))
        with ledger_of(settings).alone():
            assert same(site(settings).train(Leader(settings).task(0)), first)
