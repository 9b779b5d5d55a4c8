# SPDX-License-Identifier: Apache-2.0
"""No line in the privacy ledger, no update: the guard looks for itself."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from client.ledger import Ledger
from client.memory import run_name
from client.people import everybody, open_ledger
from client.private import TRAINING, VALIDATION
from client.spending import Limit
from pasta_model.data.store import SiteStore
from pasta_model.exchange.contents import Parcel
from pasta_model.privacy.accounting import Release
from tests.support.accounting import remember
from tests.support.guarded import Node, answers

STEP = Release(3.0, 0.5, 1)
BARE = {"train_loss": None, "valid_mae": None, "seconds": None}


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


@pytest.fixture
def private(make_node) -> Callable[..., Node]:
    return lambda **changes: make_node(policy={"max_delta": 1e-3}, privacy__unit="subject", **changes)


def ledger_of(node: Node) -> Ledger:
    store = SiteStore(node.kit.site.store)
    ledger = open_ledger(node.kit.guard.ledger, store)
    ledger.open_for(everybody(store))
    return ledger


def pay(node: Node, number: int = 0, mechanism: str = TRAINING, *, run: str = "", kept: bool = True) -> None:
    """What the site's code does before and after a release."""
    ledger, task = ledger_of(node), f"{number}-{mechanism}"
    ledger.reserve(
        task,
        STEP,
        run=run or run_name(node.settings),
        number=number,
        mechanism=mechanism,
        persons=everybody(SiteStore(node.kit.site.store)),
        limits=[Limit(100.0, 1e-4, accountant="rdp")],
    )
    if kept:
        ledger.note_released(task)


def stays(node: Node, kind: str, parcel: Parcel) -> str:
    """Ask, and expect a refusal in place of the answer; return why, as the site's log tells it."""
    sent = node.ask(kind, answers(parcel))
    assert sent.message.has_error()
    assert sent.message.error.reason.startswith("PrivacyError (reference ")
    assert len(sent.contents) == 1
    last = node.log[-1]
    assert (last["event"], last["direction"], last["code"]) == ("refused", "out", "PrivacyError")
    return last["reason"]


def error_of(update: Callable[..., Parcel], node: Node, *, error: float = 0.25) -> Parcel:
    """An answer to an evaluation."""
    asked: Mapping[str, object] = BARE | {"codec": None, "subjects": 1, "valid_mae": error}
    return Parcel(update(node, **asked).values, {})


def test_update_that_was_paid_for_leaves_and_the_ledgers_line_is_in_the_log(private, update) -> None:
    node = private()
    pay(node)
    assert node.ask("train", answers(update(node, **BARE))).message.has_content()
    chain = ledger_of(node).chain
    assert node.log[-1]["event"] == "sent"
    assert (node.log[-1]["ledger-lines"], node.log[-1]["ledger-hash"]) == (chain.lines, chain.hash)


@pytest.mark.parametrize(
    "paid",
    [
        None,
        {"number": 1},
        {"mechanism": VALIDATION},
        {"run": "another"},
        {"kept": False},
    ],
    ids=["nothing", "another round", "another mechanism", "another run", "only reserved"],
)
def test_update_without_its_line_stays(private, update, paid: Mapping[str, object] | None) -> None:
    node = private()
    if paid is not None:
        pay(node, **paid)  # type: ignore[arg-type]
    said = stays(node, "train", update(node, **BARE))
    wanted = "round 0, training: with this 1 would have left, and the ledger has 0 release(s); it stays here"
    assert wanted in said


def test_noised_error_without_its_line_stays(private, update) -> None:
    node = private(privacy__metrics="noised")
    pay(node)
    wanted = "validation error: with this 1 would have left, and the ledger has 0 release(s)"
    assert wanted in stays(node, "train", update(node, **BARE | {"valid_mae": 0.25}))
    assert wanted in stays(node, "evaluate", error_of(update, node))
    pay(node, mechanism=VALIDATION)
    sent = node.ask("train", answers(update(node, **BARE | {"valid_mae": 0.25})))
    assert sent.parcel.values["valid-mae"] == 0.25
    assert node.ask("evaluate", answers(error_of(update, node))).parcel.values["valid-mae"] == 0.25


def test_as_many_updates_leave_as_lines_were_paid_for(private, update) -> None:
    """A line of the round is not a licence for all that is called this round."""
    node = private()
    pay(node)
    first, second = update(node, **BARE), update(node, **BARE)
    for name in second.arrays:
        second.arrays[name] = second.arrays[name] + np.float32(1e-3)
    assert node.ask("train", answers(first)).message.has_content()
    assert "with this 2 would have left, and the ledger has 1 release(s)" in stays(node, "train", second)
    node.restart()
    assert node.ask("train", answers(first)).message.has_content(), "what left is given again"
    stays(node, "train", second)
    pay(node)
    assert node.ask("train", answers(second)).message.has_content()


def test_every_noised_error_that_leaves_was_paid_for(private, update) -> None:
    node = private(privacy__metrics="noised")
    pay(node, mechanism=VALIDATION)
    assert node.ask("evaluate", answers(error_of(update, node))).message.has_content()
    assert node.ask("evaluate", answers(error_of(update, node))).message.has_content()
    assert "with this 2 would have left" in stays(node, "evaluate", error_of(update, node, error=0.3))
    pay(node, mechanism=VALIDATION)
    assert node.ask("evaluate", answers(error_of(update, node, error=0.3))).message.has_content()


def test_answer_that_tells_nothing_of_anybody_needs_no_line(private, update) -> None:
    node = private()
    asked: Mapping[str, object] = BARE | {"codec": None, "subjects": 1}
    assert node.ask("evaluate", answers(Parcel(update(node, **asked).values, {}))).message.has_content()
    assert "ledger-hash" not in node.log[-1]
    assert not node.kit.guard.ledger.parent.exists(), "who only looks writes nothing"


def test_run_without_privacy_is_not_asked_for_a_line(node: Node, update) -> None:
    assert node.ask("train", answers(update(node))).message.has_content()
    assert "ledger-hash" not in node.log[-1]


@pytest.mark.parametrize("how", ["edited", "deleted", "cut"])
def test_changed_ledger_lets_nothing_out(private, update, how: str) -> None:
    node = private()
    pay(node)
    path = node.kit.guard.ledger
    if how == "edited":
        path.write_bytes(path.read_bytes().replace(b'"steps":1', b'"steps":0'))
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    assert "put it back" in stays(node, "train", update(node, **BARE))


def test_log_of_exchanges_remembers_a_ledger_that_everybody_else_forgot(private, update) -> None:
    """Ledger, head and the store's memory gone, as after preparing anew: a fresh one is no ledger."""
    node = private()
    pay(node)
    node.ask("train", answers(update(node, **BARE)))
    for path in (*node.kit.guard.ledger.parent.iterdir(), node.kit.site.store / "state" / "ledger.json"):
        path.unlink()
    pay(node)
    said = stays(node, "train", update(node, **BARE))
    assert "not the ledger of which the log of exchanges saw 4 lines" in said
    assert "put the right one back" in said
    node.restart()
    stays(node, "train", update(node, **BARE))


def test_ledger_that_went_on_is_the_one_that_the_log_remembers(private, update) -> None:
    node = private()
    for number in range(2):
        pay(node, number)
        assert node.ask("train", answers(update(node, number, **BARE))).message.has_content()
