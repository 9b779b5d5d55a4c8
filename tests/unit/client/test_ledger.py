# SPDX-License-Identifier: Apache-2.0
"""A site's privacy ledger: it forgets nothing, counts what a person lost, and notices what is done to it."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant

from client import ledger as ledger_module
from client.ledger import Ledger
from client.people import names
from client.spending import LedgerLog, Limit
from pasta_model.console import run_command
from pasta_model.errors import BudgetError, PrivacyError
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remember, remembered

ROOT = Path(__file__).parents[3]
PEOPLE = ("sub-ada", "sub-bob", "sub-cyd")
DELTA = 1e-4
STEP = Release(1.1, 0.2, 5)
PLENTY = Limit(1e3, DELTA)


def opened(folder: Path, *, people: Sequence[str] = PEOPLE, site: str = "alder") -> Ledger:
    """A new process at the site opens its ledger, for all the people of its store."""
    ledger = Ledger(folder / "ledger.jsonl", site=site, witness=folder / "store" / "state" / "ledger.json")
    ledger.open_for(people)
    return ledger


def reserve(ledger: Ledger, task: str, release: Release = STEP, **changes: object) -> None:
    """Ask for a release in round 0 of run `first`, of everybody, unless told otherwise."""
    asked: dict[str, object] = {
        "run": "first",
        "number": 0,
        "mechanism": "training",
        "persons": PEOPLE,
        "limits": [PLENTY],
    }
    asked |= changes
    asked["limits"] = [replace(limit, accountant="rdp") for limit in asked["limits"]]  # type: ignore[attr-defined]
    ledger.reserve(task, release, **asked)  # type: ignore[arg-type]


def release(ledger: Ledger, task: str, release: Release = STEP, **changes: object) -> None:
    """Reserve, and note that the answer is kept."""
    reserve(ledger, task, release, **changes)
    ledger.note_released(task)


def spent(ledger: Ledger, *people: str, run: str = "", accountant: str = "rdp") -> float:
    limit = Limit(0.0, DELTA, run, accountant=accountant)  # type: ignore[arg-type]
    return ledger.spent(people or PEOPLE, limit)


@cache
def oracle(*releases: Release, accountant: str = "rdp") -> float:
    """What Opacus's accountant says that was told of every single step."""
    found = {"rdp": RDPAccountant, "prv": PRVAccountant}[accountant]()
    for r in releases:
        for _ in range(r.steps):
            found.step(noise_multiplier=r.noise_multiplier, sample_rate=r.sampling_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PRV: log 0
        return float(found.get_epsilon(delta=DELTA))


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


def content(folder: Path) -> dict[str, bytes]:
    """Every byte of the ledger and its head."""
    return {p.name: p.read_bytes() for p in folder.glob("ledger.jsonl*") if p.suffix in (".jsonl", ".head")}


class TestComposition:
    def test_epsilon_is_the_accountants_over_rounds_runs_and_reopened_ledgers(self, tmp_path: Path) -> None:
        history = [STEP, STEP, Release(1.1, 0.2, 3), Release(2.0, 0.05, 40), Release(10.0, 1.0, 1)]
        for number, one in enumerate(history):
            run = "first" if number < 3 else "second"
            release(opened(tmp_path), f"task-{number}", one, run=run, number=number)
            assert spent(opened(tmp_path)) == pytest.approx(oracle(*history[: number + 1]), rel=1e-9)
        assert spent(opened(tmp_path), run="first") == pytest.approx(oracle(*history[:3]), rel=1e-9)
        assert spent(opened(tmp_path), run="second") == pytest.approx(oracle(*history[3:]), rel=1e-9)
        assert spent(opened(tmp_path), run="third") == 0
        wanted = oracle(*history, accountant="prv")
        assert spent(opened(tmp_path), accountant="prv") == pytest.approx(wanted, abs=0.03)

    def test_a_person_pays_for_what_was_released_of_this_person_only(self, tmp_path: Path) -> None:
        dan, other = "sub-dan", Release(0.9, 0.3, 4)
        ledger = opened(tmp_path)
        release(ledger, "1", STEP, persons=PEOPLE)
        release(ledger, "2", other, run="second", persons=["sub-ada", dan])
        assert spent(ledger, dan) == pytest.approx(oracle(other), rel=1e-9)
        assert spent(ledger, "sub-bob") == pytest.approx(oracle(STEP), rel=1e-9)
        assert spent(ledger, "sub-ada") == pytest.approx(oracle(STEP, other), rel=1e-9)
        assert spent(ledger, "sub-eve") == 0
        assert spent(ledger, dan, "sub-bob", "sub-ada", "sub-eve") == spent(ledger, "sub-ada")

    def test_the_person_of_whom_most_was_released_decides(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        release(ledger, "1", STEP, persons=["sub-ada"])
        limit = Limit(1.01 * oracle(STEP), DELTA)
        release(ledger, "2", STEP, run="second", persons=["sub-bob", "sub-cyd"], limits=[limit])
        with pytest.raises(BudgetError):
            reserve(ledger, "3", STEP, run="third", persons=["sub-ada", "sub-dan"], limits=[limit])

    def test_two_mechanisms_of_a_round_compose(self, tmp_path: Path) -> None:
        ledger, error = opened(tmp_path), Release(10.0, 1.0, 1)
        release(ledger, "1")
        release(ledger, "2", error, mechanism="validation error")
        assert spent(ledger) == pytest.approx(oracle(STEP, error), rel=1e-9)

    def test_order_and_place_of_a_persons_name_do_not_matter(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        release(ledger, "1", persons=["sub-ada", "sub-bob"])
        release(ledger, "2", persons=["sub-bob", "sub-ada"])
        assert len(ledger.cohorts) == 1
        assert spent(ledger, "sub-bob") == pytest.approx(oracle(STEP, STEP), rel=1e-9)


def test_no_name_of_a_person_is_in_the_file(tmp_path: Path) -> None:
    release(opened(tmp_path), "1")
    assert content(tmp_path).keys() == {"ledger.jsonl", "ledger.jsonl.head"}
    for found in (*content(tmp_path).values(), (tmp_path / "store/state/ledger.json").read_bytes()):
        assert not [name for name in PEOPLE if name.encode() in found]
    assert (tmp_path / "ledger.jsonl").stat().st_mode & 0o077 == 0


def test_hashes_of_names_are_not_the_same_at_two_sites(tmp_path: Path) -> None:
    """Who has a list of names cannot hash them and look: the key is the ledger's own."""
    found = []
    for name in ("alder", "birch"):
        ledger = opened(tmp_path / name, site=name)
        release(ledger, "1")
        found.append(frozenset[str]().union(*ledger.cohorts.values()))
    assert len(found[0]) == len(found[1]) == len(PEOPLE)
    assert not found[0] & found[1]


class TestReservation:
    def test_it_counts_before_anything_is_released(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1")
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP), rel=1e-9)

    def test_killed_between_reservation_and_release_the_same_task_goes_on(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1")
        before = content(tmp_path)
        reserve(opened(tmp_path), "1")
        reserve(opened(tmp_path), "1", limits=[Limit(1.01 * oracle(STEP), DELTA)])
        assert content(tmp_path) == before

    def test_another_task_pays_for_itself(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1")
        reserve(opened(tmp_path), "2")
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP, STEP), rel=1e-9)

    def test_the_same_task_with_another_mechanism_pays_for_itself(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1")
        stronger = Release(0.7, 0.2, 5)
        reserve(opened(tmp_path), "1", stronger)
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP, stronger), rel=1e-9)

    def test_the_same_task_on_other_people_pays_for_itself(self, tmp_path: Path) -> None:
        reserve(opened(tmp_path), "1", persons=["sub-ada"])
        reserve(opened(tmp_path), "1", persons=["sub-ada", "sub-bob"])
        assert spent(opened(tmp_path), "sub-ada") == pytest.approx(oracle(STEP, STEP), rel=1e-9)

    def test_what_was_released_is_released_no_second_time_for_nothing(self, tmp_path: Path) -> None:
        release(opened(tmp_path), "1")
        release(opened(tmp_path), "1")
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP, STEP), rel=1e-9)
        with pytest.raises(BudgetError):
            reserve(opened(tmp_path), "1", limits=[Limit(1.01 * oracle(STEP, STEP), DELTA)])

    def test_reservation_that_another_took_the_place_of_is_used_by_nobody(self, tmp_path: Path) -> None:
        """Killed, then the people changed, then released twice: three releases, not two."""
        reserve(opened(tmp_path), "1", persons=["sub-ada"])
        reserve(opened(tmp_path), "1", persons=["sub-ada", "sub-bob"])
        for _ in range(2):
            release(opened(tmp_path), "1", persons=["sub-ada", "sub-bob"])
        assert spent(opened(tmp_path), "sub-bob") == pytest.approx(oracle(STEP, STEP), rel=1e-9)

    def test_noting_a_release_twice_changes_nothing(self, tmp_path: Path) -> None:
        release(opened(tmp_path), "1")
        before = content(tmp_path)
        opened(tmp_path).note_released("1")
        opened(tmp_path).note_released("never reserved")
        assert content(tmp_path) == before

    def test_two_processes_that_note_the_same_release(self, tmp_path: Path) -> None:
        """Both have read that it is open; the update is still known, and the next one still costs."""
        reserve(opened(tmp_path), "1")
        both = [opened(tmp_path), opened(tmp_path)]
        for ledger in both:
            ledger.note_released("1")
        assert opened(tmp_path).released("first", 0, "training") == 1
        release(opened(tmp_path), "1")
        assert opened(tmp_path).released("first", 0, "training") == 2
        assert spent(opened(tmp_path)) == pytest.approx(oracle(STEP, STEP), rel=1e-9)

    def test_what_is_known_of_a_round(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        assert ledger.released("first", 0, "training") == 0
        reserve(ledger, "1")
        assert opened(tmp_path).released("first", 0, "training") == 0, "reserved is not released"
        opened(tmp_path).note_released("1")
        found = opened(tmp_path)
        assert found.released("first", 0, "training") == 1
        assert found.released("first", 1, "training") == 0
        assert found.released("second", 0, "training") == 0
        assert found.released("first", 0, "validation error") == 0
        reserve(found, "1")  # once more, and killed: what had left by then had been paid for
        assert opened(tmp_path).released("first", 0, "training") == 1


class TestLimits:
    @pytest.mark.parametrize("people", [PEOPLE, ("sub-new", "sub-ada")])
    def test_beyond_a_limit_nothing_is_written(self, tmp_path: Path, people: tuple[str, ...]) -> None:
        release(opened(tmp_path), "1")
        ledger, before = opened(tmp_path), content(tmp_path)
        limit = Limit(1.2 * oracle(STEP), DELTA)
        with pytest.raises(BudgetError) as error:
            reserve(ledger, "2", number=7, persons=people, limits=[PLENTY, limit])
        assert content(tmp_path) == before
        said = str(error.value)
        assert said.startswith("site alder: the site's policy, over all runs: epsilon ")
        for wanted in (
            f"epsilon {oracle(STEP):.3f} of {limit.epsilon:g} is spent",
            f"it would be {oracle(STEP, STEP):.3f}",
            "unit subject",
            "delta 0.0001",
            "training of round 7",
            "nothing was released",
            "evaluates only",
        ):
            assert wanted in said
        assert spent(ledger) == spent(opened(tmp_path)) == pytest.approx(oracle(STEP), rel=1e-9)

    def test_exactly_the_limit_is_within_it(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        release(ledger, "1", limits=[Limit(remembered([STEP], delta=DELTA, accountant="rdp"), DELTA)])
        assert spent(ledger) == remembered([STEP], delta=DELTA, accountant="rdp")

    def test_limit_of_a_run_counts_the_run_alone(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        release(ledger, "1")
        own = Limit(1.01 * oracle(STEP), DELTA, "second")
        release(ledger, "2", run="second", limits=[own])
        with pytest.raises(BudgetError, match="run second: epsilon "):
            reserve(ledger, "3", run="second", limits=[own])

    def test_a_run_of_another_name_does_not_get_a_policys_budget_again(self, tmp_path: Path) -> None:
        ledger = opened(tmp_path)
        policy = Limit(1.01 * oracle(STEP, STEP), DELTA)
        for number in range(2):
            run = f"run-{number}"
            release(ledger, run, run=run, limits=[Limit(10.0, DELTA, run), policy])
        with pytest.raises(BudgetError, match="the site's policy, over all runs"):
            reserve(ledger, "run-2", run="run-2", limits=[Limit(10.0, DELTA, "run-2"), policy])

    def test_every_limit_is_asked_at_its_own_delta(self, tmp_path: Path) -> None:
        loose, tight = Limit(1.01 * oracle(STEP), DELTA), Limit(1.01 * oracle(STEP), DELTA / 1000)
        reserve(opened(tmp_path), "1", limits=[loose])
        with pytest.raises(BudgetError):
            reserve(opened(tmp_path / "other"), "1", limits=[loose, tight])

    def test_no_noise_is_beyond_every_limit(self, tmp_path: Path) -> None:
        with pytest.raises(BudgetError):
            reserve(opened(tmp_path), "1", Release(0.0, 0.2, 1))


# --- What is done to it ---------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A ledger of a run of two rounds."""
    ledger = opened(tmp_path)
    ledger.note_plan("first", PEOPLE, {"noise_multiplier": 1.1})
    for number in range(2):
        release(ledger, f"task-{number}", number=number)
    return tmp_path


def lines_of(folder: Path) -> list[bytes]:
    return (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def write(folder: Path, lines: Sequence[bytes]) -> None:
    (folder / "ledger.jsonl").write_bytes(b"".join(lines))


def edit_noise(folder: Path) -> None:
    write(
        folder,
        [line.replace(b'"noise_multiplier":1.1', b'"noise_multiplier":9.1') for line in lines_of(folder)],
    )


def delete_line(folder: Path) -> None:
    write(folder, [line for line in lines_of(folder) if b'"reserved"' not in line or b"task-0" not in line])


def delete_last_line(folder: Path) -> None:
    write(folder, lines_of(folder)[:-1])


def delete_file(folder: Path) -> None:
    (folder / "ledger.jsonl").unlink()


def delete_head(folder: Path) -> None:
    (folder / "ledger.jsonl.head").unlink()


def delete_both(folder: Path) -> None:
    delete_file(folder)
    delete_head(folder)


def damage_head(folder: Path) -> None:
    (folder / "ledger.jsonl.head").write_text("{")


def empty_both(folder: Path) -> None:
    delete_head(folder)
    write(folder, [])


def begin_anew(folder: Path) -> None:
    """A new ledger that is as long as the old one, and says that less was spent."""
    delete_both(folder)
    witness = folder / "store/state/ledger.json"
    kept = witness.read_bytes()
    witness.unlink()
    ledger = opened(folder)
    for number in range(4):
        release(ledger, f"task-{number}", Release(50.0, 0.01, 1))
    witness.write_bytes(kept)


def damage_witness(folder: Path) -> None:
    (folder / "store/state/ledger.json").write_text("{")


def empty_witness(folder: Path) -> None:
    (folder / "store/state/ledger.json").write_text('{"lines": 0, "hash": ""}')


def negative_witness(folder: Path) -> None:
    (folder / "store/state/ledger.json").write_text('{"lines": -40, "hash": ""}')


def list_for_a_witness(folder: Path) -> None:
    (folder / "store/state/ledger.json").write_text("[]")


TAMPERINGS = [
    edit_noise,
    delete_line,
    delete_last_line,
    delete_file,
    delete_head,
    delete_both,
    damage_head,
    empty_both,
    begin_anew,
    damage_witness,
    empty_witness,
    negative_witness,
    list_for_a_witness,
]


class TestChanged:
    @pytest.mark.parametrize("tamper", TAMPERINGS)
    def test_it_is_noticed_and_nothing_is_released(
        self, folder: Path, tamper: Callable[[Path], None]
    ) -> None:
        already_open = opened(folder)
        tamper(folder)
        before = content(folder)
        with pytest.raises(PrivacyError) as error:
            opened(folder)
        said = str(error.value)
        assert str(folder) in said
        assert "put it back" in said, "it does not say what to do"
        assert "Nothing is released before" in said
        assert "\n" not in said
        with pytest.raises(PrivacyError), already_open.alone():
            raise AssertionError("a process that opened it before goes on")
        assert content(folder) == before, "a changed ledger is kept as it is found"

    @given(place=st.integers(0, 10**6), byte=st.integers(0, 255))
    def test_whatever_byte_is_changed(self, ledger_for_all: Path, place: int, byte: int) -> None:
        path = ledger_for_all / "ledger.jsonl"
        whole = path.read_bytes()
        changed = bytearray(whole)
        changed[place % len(whole)] = byte
        try:
            path.write_bytes(bytes(changed))
            if bytes(changed) == whole:
                opened(ledger_for_all)
            else:
                with pytest.raises(PrivacyError):
                    opened(ledger_for_all)
        finally:
            path.write_bytes(whole)

    def test_older_copy_is_noticed(self, tmp_path: Path) -> None:
        release(opened(tmp_path), "1")
        copy = content(tmp_path)
        release(opened(tmp_path), "2")
        for name, found in copy.items():
            (tmp_path / name).write_bytes(found)
        with pytest.raises(PrivacyError, match=r"found 4 line\(s\), the store remembers 6.*put it back"):
            opened(tmp_path)

    def test_older_copy_that_went_on_is_noticed(self, tmp_path: Path) -> None:
        """Somebody trained on with an older copy elsewhere, and brought it back: as long, but another."""
        release(opened(tmp_path), "1")
        copy = content(tmp_path)
        release(opened(tmp_path), "2")
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        for name, found in copy.items():
            (elsewhere / name).write_bytes(found)
        release(opened(elsewhere), "3", Release(90.0, 0.01, 1))
        for name, found in content(elsewhere).items():
            (tmp_path / name).write_bytes(found)
        with pytest.raises(PrivacyError, match="taken away or replaced"):
            opened(tmp_path)

    def test_ledger_of_other_people_is_refused(self, folder: Path) -> None:
        with pytest.raises(PrivacyError, match=r"another data set.* 3 persons.* give this data set a ledger"):
            opened(folder, people=["sub-xi", "sub-yu"])
        opened(folder, people=["sub-xi", "sub-cyd"])  # people came and went, as they do

    def test_ledger_whose_witness_is_gone_says_what_was_spent(self, folder: Path) -> None:
        """Preparing the data anew takes the whole store away, and its memory with it."""
        wanted = spent(opened(folder))
        (folder / "store/state/ledger.json").unlink()
        assert spent(opened(folder)) == wanted
        reserve(opened(folder), "9")
        delete_last_line(folder)
        with pytest.raises(PrivacyError):
            opened(folder)


@pytest.fixture(scope="module")
def ledger_for_all(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger")
    release(opened(folder), "1")
    return folder


class Killed(BaseException):
    """Stands in for kill -9."""


@contextmanager
def killed_while_writing(folder: Path, *, left: int | None) -> Iterator[None]:
    """Kill the block at the first line that it would write, after so many bytes of it; None: after all."""
    before, heads, real = (folder / "ledger.jsonl").read_bytes(), [], LedgerLog._write_head

    def only_announce(self: LedgerLog, head: object) -> None:
        heads.append(head)
        if len(heads) == 2:
            raise Killed
        real(self, head)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LedgerLog, "_write_head", only_announce)
        with pytest.raises(Killed):
            yield
    line = (folder / "ledger.jsonl").read_bytes()[len(before) :]
    (folder / "ledger.jsonl").write_bytes(before + line[: len(line) if left is None else left])


@pytest.mark.parametrize("left", [0, 1, 40, -1, None])
class TestKilledWhileWriting:
    def test_a_reservation(self, folder: Path, left: int | None) -> None:
        before = spent(opened(folder))
        with killed_while_writing(folder, left=left):
            reserve(opened(folder), "9")
        # Whether it is there or not: nothing was trained, and the same task goes on.
        assert spent(opened(folder)) >= before
        release(opened(folder), "9")
        assert spent(opened(folder)) == pytest.approx(oracle(STEP, STEP, STEP), rel=1e-9)
        release(opened(folder), "9")
        assert spent(opened(folder)) == pytest.approx(oracle(STEP, STEP, STEP, STEP), rel=1e-9)
        assert opened(folder).chain.holds
        assert not opened(folder).chain.torn

    def test_that_something_was_released(self, folder: Path, left: int | None) -> None:
        """The answer is kept by now, and leaves when it is asked for again, which is noted then."""
        reserve(opened(folder), "9")
        with killed_while_writing(folder, left=left):
            opened(folder).note_released("9")
        opened(folder).note_released("9")  # it leaves
        release(opened(folder), "8")
        release(opened(folder), "9")
        assert spent(opened(folder)) == pytest.approx(oracle(*[STEP] * 5), rel=1e-9)


HOLDER = """
import sys
from pathlib import Path
from client.ledger import Ledger
folder = Path(sys.argv[1])
ledger = Ledger(folder / "ledger.jsonl", site="alder", witness=folder / "store" / "state" / "ledger.json")
with ledger.alone():
    print("holds it", flush=True)
    sys.stdin.read()
"""


def test_second_process_is_told_once_and_spends_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    app, ledger, before = typer.Typer(), opened(folder), content(folder)

    @app.command()
    def train() -> None:
        with ledger.alone():
            reserve(ledger, "9")

    words = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holds it\n"
        monkeypatch.setattr(sys, "argv", ["train"])
        with pytest.raises(SystemExit) as stop:
            run_command(app)
        assert stop.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        wanted = (
            f"error: {folder / 'ledger.jsonl'}: another run trains on these data now; two at once cannot"
            " both be told what is left. Nothing was spent; wait until it is done"
        )
        assert said.err.splitlines() == [wanted]
        assert content(folder) == before
        holder.kill()  # its lock dies with it
    with ledger.alone():
        reserve(ledger, "9")


def test_what_another_process_wrote_meanwhile_counts(folder: Path) -> None:
    waiting, limit = opened(folder), Limit(1.01 * oracle(STEP, STEP, STEP), DELTA)
    release(opened(folder), "8")
    with waiting.alone(), pytest.raises(BudgetError):
        reserve(waiting, "9", limits=[limit])


# --- Whatever happens, it never forgets --------------------------------------------------------

NAMES, GROUPS = st.sampled_from("abc"), st.sampled_from([PEOPLE, PEOPLE[:1], PEOPLE[1:], ("sub-dan",)])
MOVES = st.one_of(
    st.tuples(st.just("reserve"), NAMES, GROUPS, st.sampled_from([STEP, Release(0.8, 0.1, 2)])),
    st.tuples(st.just("release"), NAMES),
    st.tuples(st.just("reopen")),
)


@hypothesis_settings(max_examples=25)
@given(moves=st.lists(MOVES, max_size=12))
def test_spent_never_falls_and_every_release_was_paid_for(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple]
) -> None:
    everybody, made = (*PEOPLE, "sub-dan"), dict.fromkeys((*PEOPLE, "sub-dan"), 0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_module, "epsilon", in_steps)
        folder = tmp_path_factory.mktemp("ledger")
        ledger, waiting = opened(folder), dict[str, tuple]()
        before = dict.fromkeys(everybody, 0.0)
        for kind, *rest in moves:
            if kind == "reserve":
                task, people, one = rest
                reserve(ledger, task, one, persons=people)
                waiting[task] = (people, one)  # a process that is killed here begins the task again
            elif kind == "release" and rest[0] in waiting:
                people, one = waiting.pop(rest[0])
                ledger.note_released(rest[0])
                for name in people:
                    made[name] += in_steps([one], delta=DELTA, accountant="rdp")
            else:
                ledger = opened(folder, people=everybody)
            after = {name: spent(ledger, name) for name in everybody}
            assert all(after[name] >= before[name] for name in everybody)
            assert all(after[name] >= made[name] - 1e-9 for name in everybody)
            assert spent(ledger, *everybody) == max(after.values())
            before = after


def in_steps(releases: Sequence[Release], *, delta: float, accountant: str) -> float:
    """A cost that adds up, in place of an accountant's."""
    return sum(r.steps * r.sampling_rate / r.noise_multiplier for r in releases)


def test_lines_say_what_an_auditor_wants_to_know(folder: Path) -> None:
    entries = [json.loads(line) for line in lines_of(folder)]
    assert [e["event"] for e in entries] == ["opened", "cohort", "plan", *["reserved", "released"] * 2]
    reserved = entries[3]
    for name, wanted in {
        "run": "first",
        "round": 0,
        "mechanism": "training",
        "noise_multiplier": 1.1,
        "sampling_rate": 0.2,
        "steps": 5,
    }.items():
        assert reserved[name] == wanted
    assert reserved["epsilon"] == [pytest.approx(oracle(STEP), abs=1e-4)]
    assert entries[1]["cohort"] == reserved["cohort"]
    assert len(entries[1]["persons"]) == len(PEOPLE)


def test_all_names_of_a_person_are_known_so_that_a_new_rid_forgets_nothing(tmp_path: Path) -> None:
    def entry(person: str, subject: str) -> SimpleNamespace:
        return SimpleNamespace(person=person, subject=subject)

    before, after = (
        SimpleNamespace(entries=entries, indices=lambda _: range(2))
        for entries in (
            [entry("sub-1", "sub-1"), entry("rid:7", "sub-2")],
            [entry("rid:5", "sub-1"), entry("rid:3", "sub-2")],  # an RID that was not known; one that links
        )
    )
    ledger = opened(tmp_path)
    release(ledger, "1", persons=names(before, "train"))
    assert spent(ledger, *names(after, "train")) == oracle(STEP)
