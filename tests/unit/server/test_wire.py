# SPDX-License-Identifier: Apache-2.0
"""What comes over Flower's grid may be anything: a reason, never the end of the server."""

import pytest
from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from pasta_model.exchange.contents import Parcel
from server.wire import LONGEST_REASON, GridPost
from tests.support.grid import InProcessGrid


def ask(grid: InProcessGrid) -> dict[str, Parcel | str]:
    post = GridPost(grid, deadline=5.0, settle_checks=0)
    return dict(post.ask({"A": (1, Parcel({}, {})), "B": (2, Parcel({}, {}))}, "query.sites"))


def says(reason: str) -> ClientApp:
    app = ClientApp()
    app.query("sites")(lambda message, context: Message(Error(100, reason), reply_to=message))
    return app


@pytest.mark.parametrize("error", [AttributeError, KeyError, TypeError, ValueError])
def test_upload_that_flower_itself_cannot_unpack_is_one_sites_failure(error: type[Exception]) -> None:
    grid = InProcessGrid(says("StoreError (reference x)"), run_config={}, nodes=2)
    pull = grid.pull_messages

    def odd(identities):
        (identity,) = identities
        if identity == "message-0":
            raise error("no Message")
        return pull([identity])

    grid.pull_messages = odd
    assert ask(grid) == {
        "A": f"unreadable answer ({error.__name__})",
        "B": "code 100: StoreError (reference x)",
    }


def test_lost_connection_is_no_answer_and_is_raised() -> None:
    grid = InProcessGrid(says(""), run_config={}, nodes=2)

    def lost(_):
        raise ConnectionError

    grid.pull_messages = lost
    with pytest.raises(ConnectionError):
        ask(grid)


def test_a_sites_own_words_are_cut_and_printable() -> None:
    grid = InProcessGrid(says("a\x1b[31m\n" + "b" * 10_000), run_config={}, nodes=2)
    answer = ask(grid)["A"]
    assert answer.startswith("code 100: a[31mbbb")
    assert len(answer) <= LONGEST_REASON + len("code 100: ")
    assert answer.isprintable()


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("query.sites", "0.01"), ("query.join", "0.01"), ("query.reference", "0.05"), ("train", "0.05")],
)
def test_whoever_must_read_scans_gets_the_time_of_a_round(kind: str, seconds: str) -> None:
    app = ClientApp()
    for register in (app.query("sites"), app.query("join"), app.query("reference"), app.train()):
        register(lambda message, context: Message(Error(100, "late"), reply_to=message))
    grid = InProcessGrid(app, run_config={}, nodes=1, tamper=lambda *_: None)
    post = GridPost(grid, deadline=0.05, query_deadline=0.01)
    assert dict(post.ask({"A": (1, Parcel({}, {}))}, kind)) == {"A": f"no answer within {seconds} s"}
