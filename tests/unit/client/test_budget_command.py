# SPDX-License-Identifier: Apache-2.0
"""`pasta-client budget`: the account that a data-protection officer reads, and the plan before a run."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w

import client.cli
from client.kit import Kit
from client.ledger import Ledger
from client.memory import run_name
from client.people import default_ledger, open_ledger
from client.private import TRAINING, VALIDATION
from client.spending import Limit
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.privacy.accounting import Release
from tests.support.accounting import calibrated_once, remember, remembered
from tests.support.commands import Outcome, everything
from tests.support.guarded import open_log, write_kit

DELTA, LIMIT = 1e-3, 6.0
STEP, ERROR = Release(3.0, 0.5, 4), Release(10.0, 1.0, 1)
RUN: dict[str, dict[str, object]] = {
    "federation": {"rounds": 5},
    "training": {"local-steps": 4},
    "privacy": {"unit": "subject", "epsilon": 3.0, "delta": DELTA, "subjects-per-step": 2},
}


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
def kit(tmp_path: Path, store: SiteStore) -> Kit:
    return write_kit(tmp_path / "kit", store.path, max_delta=DELTA, max_epsilon=LIMIT, max_rounds=9)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `pasta-client budget` with words."""

    def run(*words: object) -> Outcome:
        monkeypatch.setenv("COLUMNS", "1000")
        monkeypatch.setattr(sys, "argv", ["pasta-client", "budget", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            client.cli.main()
        streams = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), streams.out, streams.err)

    return run


@pytest.fixture
def told(call, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run it for programs; nothing may be written, whatever is asked."""

    def run(*words: object) -> dict[str, Any]:
        before = everything(tmp_path)
        said = call(*words, "--json")
        assert (said.status, said.err) == (0, "")
        assert everything(tmp_path) == before
        return json.loads(said.out, parse_constant=pytest.fail)

    return run


@pytest.fixture
def refused(call, tmp_path: Path) -> Callable[..., str]:
    """Expect one message, exit status 2, and nothing written; return the message."""

    def run(*words: object) -> str:
        before = everything(tmp_path)
        said = call(*words)
        assert said.status == 2, said
        assert everything(tmp_path) == before
        assert len(re.findall(r"(?m)^error: ", said.err)) == 1, said.err
        assert "Traceback" not in said.err + said.out
        return said.err

    return run


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., Path]:
    """Settings of a run, with some of its privacy changed."""

    def write(*, rounds: int = 5, **privacy: object) -> Path:
        own = RUN["privacy"] | {name.replace("_", "-"): value for name, value in privacy.items()}
        path = tmp_path / "run.toml"
        path.write_text(tomli_w.dumps(RUN | {"privacy": own, "federation": {"rounds": rounds}}))
        return path

    return write


def pay(
    ledger: Path,
    store: SiteStore,
    release: Release = STEP,
    *,
    run: str = "first",
    number: int = 0,
    mechanism: str = TRAINING,
    people: Sequence[str] = (),
) -> Ledger:
    """A release that was made and kept."""
    book = open_ledger(ledger, store)
    book.open_for(sorted({entry.person for entry in store.entries}))
    task = f"{run}-{number}-{mechanism}"
    book.reserve(
        task,
        release,
        run=run,
        number=number,
        mechanism=mechanism,
        persons=people or store.persons("train" if mechanism == TRAINING else "valid"),
        limits=[Limit(100.0, DELTA, accountant="rdp")],
    )
    book.note_released(task)
    return book


def prv(*releases: Release) -> float:
    return remembered(releases, delta=DELTA)


def rdp(*releases: Release) -> float:
    return remembered(releases, delta=DELTA, accountant="rdp")


class TestAccount:
    def test_nothing_spent(self, kit: Kit, told) -> None:
        found = told(kit.path)
        assert (found["site"], found["unit"], found["delta"], found["limit"]) == (
            "A",
            "subject",
            DELTA,
            LIMIT,
        )
        assert found["spent"] == {"those who train": [0, 0], "those who validate": [0, 0]}
        assert found["left"] == {"those who train": LIMIT, "those who validate": LIMIT}
        assert (found["rows"], found["lines"]) == ([], 0)
        assert not kit.guard.ledger.parent.exists()

    def test_two_runs_and_two_mechanisms(self, kit: Kit, store: SiteStore, told) -> None:
        ledger = kit.guard.ledger
        for number in range(2):
            pay(ledger, store, number=number)
            pay(ledger, store, ERROR, number=number, mechanism=VALIDATION)
        book = pay(ledger, store, Release(5.0, 0.5, 4), run="second")
        found = told(kit.path.parent)
        rows = [
            (r["run"], r["mechanism"], r["rounds"], r["steps"], r["noise_multiplier"]) for r in found["rows"]
        ]
        assert rows == [
            ("first", TRAINING, 2, 8, 3.0),
            ("first", VALIDATION, 2, 2, 10.0),
            ("second", TRAINING, 1, 4, 5.0),
        ]
        alone = [prv(STEP, STEP), prv(ERROR, ERROR), prv(Release(5.0, 0.5, 4))]
        assert [row["epsilon"] for row in found["rows"]] == pytest.approx(alone)
        both = prv(STEP, STEP, Release(5.0, 0.5, 4))
        spent, checked = found["spent"]["those who train"]
        assert spent == pytest.approx(both)
        assert checked >= spent
        assert found["spent"]["those who validate"][0] == pytest.approx(prv(ERROR, ERROR))
        # What one run showed may have shaped the other: together they count by RDP.
        assert found["left"]["those who train"] == pytest.approx(LIMIT - checked)
        assert (found["lines"], found["hash"]) == (book.chain.lines, book.chain.hash)

    def test_for_a_person(self, kit: Kit, store: SiteStore, call) -> None:
        pay(kit.guard.ledger, store)
        said = call(kit.path)
        assert (said.status, said.err) == (0, "")
        for wanted in (
            "site A: unit subject, 3 train; epsilon at delta 0.001",
            f"those who train: epsilon {prv(STEP):.3f} spent, {LIMIT - rdp(STEP):.3f} of 6 left",
            f" left for a new run, {LIMIT - prv(STEP):.3f} for first where it goes on (RDP",
            "chain of 4 lines holds; note this elsewhere: 4 ",
        ):
            assert wanted in said.out
        assert re.search(r"first +training +1 +4 +3 +0.5 +\d\.\d{3} +20\d\d-", said.out)

    def test_what_was_reserved_and_never_kept_counts(self, kit: Kit, store: SiteStore, told) -> None:
        pay(kit.guard.ledger, store)
        book = open_ledger(kit.guard.ledger, store)
        book.reserve(
            "killed",
            STEP,
            run="first",
            number=1,
            mechanism=TRAINING,
            persons=store.persons("train"),
            limits=[],
        )
        assert told(kit.path)["spent"]["those who train"][0] == pytest.approx(prv(STEP, STEP))

    def test_those_who_were_in_earlier_runs_are_not_forgotten(self, kit, store: SiteStore, told) -> None:
        pay(kit.guard.ledger, store, people=["sub-gone", "sub-Aada"])
        found = told(kit.path)
        assert found["spent"]["those of earlier runs"][0] == pytest.approx(prv(STEP))
        assert found["left"]["those of earlier runs"] == pytest.approx(LIMIT - rdp(STEP))
        assert found["spent"]["those who validate"][0] == 0

    def test_what_is_left_is_what_a_new_run_gets(self, kit: Kit, store: SiteStore, told) -> None:
        """One run is in the ledger: it is judged by PRV, and the next one, beside it, by RDP."""
        pay(kit.guard.ledger, store)
        found = told(kit.path)
        assert found["left"]["those who train"] == pytest.approx(LIMIT - rdp(STEP))
        assert found["left_to_run"]["first"]["those who train"] == pytest.approx(LIMIT - prv(STEP))
        pay(kit.guard.ledger, store, run="second")
        found = told(kit.path)
        assert found["left"]["those who train"] == pytest.approx(LIMIT - rdp(STEP, STEP))
        assert found["left_to_run"] == {}

    def test_delta_of_the_policy_that_promises_nothing(self, tmp_path: Path, store, refused) -> None:
        loose = write_kit(tmp_path / "loose", store.path, max_delta=0.5, max_epsilon=LIMIT)
        said = refused(loose.path)
        assert "max-delta in the site's policy is 0.5, wanted less than 1 / subjects = 0.33" in said

    def test_more_spent_than_the_policy_now_allows(self, kit: Kit, store: SiteStore, told) -> None:
        pay(kit.guard.ledger, store, Release(1.0, 0.5, 400))
        assert told(kit.path)["left"]["those who train"] == 0

    def test_updates_that_nothing_protected_are_told(self, kit: Kit, call, told) -> None:
        assert told(kit.path)["bare"] == 0
        assert "not covered" not in call(kit.path).out
        log = open_log(kit)
        for kind in ("train", "train", "evaluate"):
            log.append({"event": "sent", "kind": kind, "content": "x"})
        log.append({"event": "refused", "kind": "train"})
        assert told(kit.path)["bare"] == 2
        assert "not covered: 2 update(s) of runs without subject privacy left this site" in call(kit.path).out

    def test_store_without_a_kit(self, store: SiteStore, call, told, monkeypatch: pytest.MonkeyPatch) -> None:
        book = pay(default_ledger(store.path), store)
        book.note_plan("first", store.persons("train"), {"delta": 0.01})
        monkeypatch.chdir(store.path)
        for way in (store.path, Path()):
            found = told(way)
            assert (found["limit"], found["left"], found["delta"]) == (None, {}, 0.01)
            assert found["spent"]["those who train"][0] == pytest.approx(remembered([STEP], delta=0.01))
        assert "left" not in call(store.path).out

    def test_name_of_a_run_is_shown_as_it_is(self, kit: Kit, store: SiteStore, call) -> None:
        pay(kit.guard.ledger, store, run="[red]a[/blue]")
        assert "[red]a[/blue]" in call(kit.path).out


class TestPlan:
    def test_it_is_shown_before_anything_is_spent(self, kit: Kit, told, plan, call) -> None:
        found = told(kit.path, "--settings", plan())["plan"]
        sigma = calibrated_once(epsilon=3.0, delta=DELTA, sampling_rate=2 / 3, steps=20, accountant="prv")
        assert found["noise_multiplier"] == sigma
        assert (found["subjects"], found["steps"], found["delta"]) == (3, 20, DELTA)
        assert found["sampling_rate"] == pytest.approx(2 / 3)
        assert found["epsilon"] == pytest.approx(prv(Release(sigma, 2 / 3, 20)))
        assert found["epsilon"] <= 3.0
        assert found["afterwards"] == pytest.approx(found["epsilon"])
        said = call(kit.path, "--settings", plan()).out
        assert (
            f"noise multiplier {sigma:g}, clip norm 1: epsilon {found['epsilon']:.2f} at delta 0.001" in said
        )
        assert "Nothing was spent now" in said

    def test_on_top_of_what_was_spent(self, kit: Kit, store: SiteStore, told, plan) -> None:
        pay(kit.guard.ledger, store)
        found = told(kit.path, "--settings", plan())["plan"]
        whole = Release(found["noise_multiplier"], found["sampling_rate"], 20)
        assert found["afterwards"] == pytest.approx(rdp(STEP, whole))

    def test_run_that_has_begun_is_not_counted_twice(self, kit, store: SiteStore, told, plan) -> None:
        path = plan()
        found = told(kit.path, "--settings", path)["plan"]
        settings = Settings.model_validate(RUN | {"federation": {"rounds": 5}})
        rate, run = found["sampling_rate"], run_name(settings)
        for number in range(2):
            pay(kit.guard.ledger, store, Release(found["noise_multiplier"], rate, 4), run=run, number=number)
        again = told(kit.path, "--settings", path)["plan"]
        assert again["afterwards"] == pytest.approx(found["afterwards"])

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"epsilon": 0.0}, "privacy.epsilon: found 0.0, wanted greater than 0"),
            ({"epsilon": -1.0}, "privacy.epsilon: found -1.0"),
            ({"epsilon": float("inf")}, "privacy.epsilon: found inf"),
            ({"delta": 0.0}, "privacy.delta: found 0.0"),
            ({"delta": 1.0}, "privacy.delta: found 1.0, wanted less than 1"),
            ({"max_grad_norm": 0.0}, "privacy.max-grad-norm: found 0.0"),
            ({"max_grad_norm": float("nan")}, "privacy.max-grad-norm: found nan"),
            ({"noise_multiplier": -1.0}, "privacy.noise-multiplier: found -1.0"),
            ({"subjects_per_step": 0}, "privacy.subjects-per-step: found 0"),
            ({"epsilon": 7.0}, "privacy.epsilon is 7; the policy allows 6"),
            ({"delta": 0.01}, "privacy.delta is 0.01; the policy allows 0.001"),
            ({"unit": "none"}, "privacy.unit is 'none', wanted 'subject'"),
            ({"noise_multiplier": 3.0}, "wanted at most 3; that holds 4 round(s)"),
            ({"rounds": 10}, "federation.rounds is 10; the policy allows 9"),
        ],
        ids=str,
    )
    def test_impossible_ones(self, kit: Kit, refused, plan, changes: dict[str, Any], said: str) -> None:
        assert said in refused(kit.path, "--settings", plan(**changes))
        assert said in refused(kit.path, "--settings", plan(**changes), "--json")

    def test_all_that_is_impossible_is_told_at_once(self, kit: Kit, refused, plan) -> None:
        said = refused(kit.path, "--settings", plan(epsilon=0.0, delta=2.0, max_grad_norm=-1.0))
        assert "3 problem(s)" in said

    def test_delta_that_would_let_a_scan_be_published(self, store: SiteStore, refused, plan) -> None:
        said = refused(store.path, "--settings", plan(delta=0.4))
        assert "privacy.delta is 0.4, wanted less than 1 / subjects = 0.33" in said

    def test_more_rounds_than_the_budget_holds(self, kit: Kit, store: SiteStore, refused, plan) -> None:
        before = Release(1.8, 0.5, 20)
        pay(kit.guard.ledger, store, before)
        assert 3 < rdp(before) < LIMIT
        said = refused(kit.path, "--settings", plan())
        assert "site A: 5 rounds of this run would bring epsilon from" in said
        assert "the policy allows 6 over all runs" in said
        assert re.search(r"[1-4] round\(s\) would fit\. Nothing was spent", said)

    def test_errors_have_an_account_of_their_own(self, kit: Kit, store, told, plan, call, refused) -> None:
        path = plan(metrics="noised", metrics_noise_multiplier=8.0)
        assert told(kit.path, "--settings", plan())["plan"]["errors"] is None
        found = told(kit.path, "--settings", plan(metrics="noised", metrics_noise_multiplier=8.0))["plan"]
        whole = Release(8.0, 1.0, 6)
        assert found["errors"]["errors"] == 6
        assert found["errors"]["epsilon"] == found["errors"]["afterwards"] == pytest.approx(prv(whole))
        assert "those who validate: 6 noised errors, noise multiplier 8: epsilon" in (
            call(kit.path, "--settings", path).out
        )
        pay(kit.guard.ledger, store, ERROR, mechanism=VALIDATION)
        found = told(kit.path, "--settings", path)["plan"]
        assert found["errors"]["afterwards"] == pytest.approx(rdp(ERROR, whole))
        assert found["afterwards"] == pytest.approx(found["rdp"], rel=0.5)
        said = refused(kit.path, "--settings", plan(metrics="noised", metrics_noise_multiplier=0.5))
        assert "6 noised validation error(s)" in said

    def test_settings_that_are_not_there(self, kit: Kit, refused, tmp_path: Path) -> None:
        assert "cannot be read" in refused(kit.path, "--settings", tmp_path / "nothing.toml")


class TestChanged:
    @pytest.mark.parametrize("words", [(), ("--json",)])
    @pytest.mark.parametrize("how", ["edited", "cut", "deleted", "all deleted"])
    def test_ledger(self, kit: Kit, store: SiteStore, refused, how: str, words: tuple[str, ...]) -> None:
        pay(kit.guard.ledger, store)
        path = kit.guard.ledger
        if how == "edited":
            path.write_bytes(path.read_bytes().replace(b'"steps":4', b'"steps":1'))
        elif how == "cut":
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        elif how == "deleted":
            path.unlink()
        else:
            shutil.rmtree(path.parent)
        said = refused(kit.path, *words)
        assert "put it back from a copy" in said
        assert len(said.splitlines()) == 1

    def test_ledger_of_other_people(self, kit: Kit, store: SiteStore, refused) -> None:
        book = Ledger(kit.guard.ledger, site="A", witness=store.path.parent / "elsewhere.json")
        book.open_for(["sub-x"])
        book.note_plan("first", ["sub-x"], {})
        assert "the ledger of another data set" in refused(kit.path)

    def test_store_whose_ledger_is_in_its_kit(self, kit: Kit, store: SiteStore, refused) -> None:
        pay(kit.guard.ledger, store)
        assert "a kit keeps it elsewhere" in refused(store.path)

    def test_what_is_neither_a_kit_nor_a_store(self, refused, tmp_path: Path) -> None:
        assert "cannot be read" in refused(tmp_path)
