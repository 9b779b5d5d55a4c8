# SPDX-License-Identifier: Apache-2.0
"""What leaves a site, as bytes on the wire: what is listed, and nothing else."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import message_to_proto

from client import client_app
from client.wire import parcel_of
from pasta_model.data.clinical import Standardisation
from pasta_model.exchange.contents import Invitation, NodeReport, Parcel, SiteReport, TrainReport, TrainTask
from pasta_model.exchange.departure import check_departure
from pasta_model.exchange.steps import Step
from server.wire import GridPost
from tests.support.grid import InProcessGrid
from tests.support.tasks import PLAIN, SMALL, Leader

ALL = ("query.sites", "query.join", "train", "evaluate")


@pytest.fixture
def settings(tmp_path: Path, make_settings, make_store):
    """Settings of a federation of one site, A, whose store is prepared."""
    make_store()
    return make_settings(data__sites=str(tmp_path / "sites"), **SMALL)


@pytest.fixture
def ask(settings):
    """Send a parcel to the real ClientApp; return the reply message itself."""

    def send(kind: str, parcel: Parcel, **changes) -> Message:
        replies: list[Message] = []
        grid = InProcessGrid(
            client_app.app,
            run_config=settings.flat() | changes,
            nodes=1,
            tamper=lambda _, reply: replies.append(reply) or reply,
        )
        list(GridPost(grid, deadline=1.0).ask({"A": (1, parcel)}, kind))
        return replies[0]

    return send


def on_the_wire(message: Message) -> bytes:
    message.metadata.__dict__["_message_id"] = "1"
    return message_to_proto(message).SerializeToString()


def secrets(settings) -> list[bytes]:
    """What no message may hold: names of subjects and sessions, paths, clinical rows."""
    index = json.loads((Path(settings.data.sites) / "A" / "index.json").read_text())
    words = {settings.data.sites, "scans", ".nii"}
    for entry in index["entries"]:
        words |= {entry["subject"], entry["mri"], entry["pet"], str(entry["mri_full"])}
    return [word.encode() for word in words]


def parcels(settings) -> dict[str, Parcel]:
    leader = Leader(settings)
    return {
        "query.sites": Parcel({}, {}),
        "query.join": Invitation("A").parcel(),
        "train": leader.task(0).parcel(),
        "evaluate": leader.task(2).parcel(),
    }


@pytest.mark.parametrize("kind", ALL)
def test_answer_is_exactly_of_its_type_and_holds_no_secret(ask, settings, kind: str) -> None:
    message = ask(kind, parcels(settings)[kind])
    assert set(message.content) == {"arrays", "values"}
    check_departure(kind, parcel_of(message), settings)
    assert not [word for word in secrets(settings) if word in on_the_wire(message)]


def test_names_of_sites(ask) -> None:
    message = ask("query.sites", Parcel({}, {}))
    assert NodeReport.of(parcel_of(message)) == NodeReport(("A",))


def test_join_sends_counts_and_sums(ask, settings) -> None:
    report = SiteReport.of(parcel_of(ask("query.join", Invitation("A").parcel())))
    assert (report.site, report.train_subjects, report.valid_subjects) == ("A", 3, 1)
    assert report.holds == Leader(settings).base, "the first weights follow from the seed"
    entries = json.loads((Path(settings.data.sites) / "A" / "index.json").read_text())["entries"]
    ages = [e["clinical"]["age"] for e in entries if e["split"] == "train"]
    assert report.moments.count.tolist() == [3, 3, 3, 0, 0, 0]
    assert report.moments.total[0] == pytest.approx(sum(ages))
    assert report.moments.squares[0] == pytest.approx(sum(age**2 for age in ages))


def test_sums_of_few_values_do_not_leave(ask, monkeypatch) -> None:
    # Three training subjects: their sums of ages would nearly tell the ages.
    monkeypatch.setattr("client.site.MIN_VALUES", 4)
    report = SiteReport.of(parcel_of(ask("query.join", Invitation("A").parcel())))
    for part in (report.moments.count, report.moments.total, report.moments.squares):
        assert part.tolist() == [0.0] * 6


def test_training_sends_a_difference_and_three_numbers(ask, settings) -> None:
    leader = Leader(settings)
    parcel = parcel_of(ask("train", leader.task(0).parcel()))
    assert set(parcel.values) == {
        "site", "round", "subjects", "train-loss", "valid-mae", "seconds", "codec",
    }  # fmt: skip
    report = TrainReport.of(parcel)
    assert (report.site, report.round, report.subjects) == ("A", 0, 3)
    assert 0 < report.valid_mae < 3
    assert report.train_loss > 0
    assert 0 < report.update.check(leader.sizes) < 1, "one small step"


def test_evaluation_sends_no_weights(ask, settings) -> None:
    leader = Leader(settings)
    report = TrainReport.of(parcel_of(ask("evaluate", leader.task(2).parcel())))
    assert report.update is None
    assert (report.round, report.subjects, report.train_loss) == (2, 1, None)
    trained = TrainReport.of(parcel_of(ask("train", leader.whole(0).parcel())))
    assert report.valid_mae == trained.valid_mae  # both measure the received weights


@pytest.mark.parametrize("kind", ALL)
def test_text_of_an_error_stays_in_the_log(ask, settings, caplog, kind: str) -> None:
    parcel, words = parcels(settings)[kind], secrets(settings)
    root = Path(settings.data.sites)
    (root / "A" / "mri.npy").unlink()
    with caplog.at_level(logging.ERROR):
        message = ask(kind, parcel)
    assert message.error.code == 100
    assert message.error.reason.startswith("StoreError (reference ")
    wire = on_the_wire(message)
    assert not [word for word in words if word in wire]
    reference = message.error.reason.split("reference ")[1].split()[0]
    assert any(reference in text and str(root) in text for text in caplog.messages)


def test_our_own_mistakes_do_not_leak_either(ask, monkeypatch) -> None:
    def fail(*args, **kwargs):
        raise ZeroDivisionError("sub-Aada in /home/somebody")

    monkeypatch.setattr("client.site.Site.report", fail)
    wire = on_the_wire(ask("query.join", Invitation("A").parcel()))
    assert b"ZeroDivisionError" in wire
    assert b"sub-A" not in wire
    assert b"somebody" not in wire


def test_unknown_site(ask) -> None:
    message = ask("query.join", Invitation("Nowhere").parcel())
    assert message.error.reason.startswith("ExchangeError (reference ")


def test_message_with_something_else_in_it(ask) -> None:
    message = ask("query.join", Parcel({"site": "A", "send": "everything"}, {}))
    assert message.error.reason.startswith("ExchangeError")


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_task_that_cannot_be_done_is_refused_and_leaves_nothing_behind(ask, settings, kind: str) -> None:
    good = Leader(settings).whole(0)
    (step,) = good.steps
    short = {name: buffer[:-1] for name, buffer in step.arrays.items()}
    bad = {name: np.full_like(buffer, np.nan) for name, buffer in step.arrays.items()}
    wrong = {
        "weights of another network": {"steps": (Step("float32", short),)},
        "weights that are no numbers": {"steps": (Step("float32", bad),)},
        "no weights": {"steps": (Step("float32", {}),)},
        "a codec that nobody knows": {"steps": (Step("zip", step.arrays),)},
        "another standardisation": {"standardisation": Standardisation((1.0, 2.0), (1.0, 2.0))},
    }
    for change in wrong.values():
        sent = TrainTask(**{**vars(good), **change})
        assert ask(kind, sent.parcel()).error.reason.startswith("ExchangeError")
    for change in ({"base": "f" * 64, "steps": ()}, {"target": "e" * 64}, {"base": "", "steps": ()}):
        sent = TrainTask(**{**vars(good), **change})
        assert ask(kind, sent.parcel()).error.reason.startswith("StaleWeightsError")
    state = Path(settings.data.sites) / "A" / "state"
    assert not [path for path in state.rglob("*") if path.is_file()]


def test_model_without_clinical_data(ask, make_settings) -> None:
    plain = make_settings(**{"data.clinical": "none"}, **SMALL)
    sent = Leader(plain).task(0, Standardisation((), ()))
    changes = {"data.clinical": "none"}
    report = SiteReport.of(parcel_of(ask("query.join", Invitation("A").parcel(), **changes)))
    assert report.moments.count.shape == (0,)
    assert TrainReport.of(parcel_of(ask("train", sent.parcel(), **changes))).subjects == 3


def test_context_of_a_node_is_not_used_as_memory(settings) -> None:
    """What a site must remember is on its disk: Flower's state stays empty."""
    grid = InProcessGrid(client_app.app, run_config=settings.flat(), nodes=1)
    task = Leader(settings).task(0, PLAIN).parcel()
    ((_, answer),) = GridPost(grid, deadline=1.0).ask({"A": (1, task)}, "train")
    assert isinstance(answer, Parcel)
    context: Context = grid._contexts[1]
    assert context.state == RecordDict({"empty": ConfigRecord()})
