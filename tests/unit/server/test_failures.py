# SPDX-License-Identifier: Apache-2.0
"""Bad answers: one site is left out with its reason, and the round goes on; too few end the run."""

import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from pasta_model.checkpoint import load_checkpoint
from pasta_model.errors import FederationError
from pasta_model.exchange.contents import Parcel
from tests.support.grid import InProcessGrid
from tests.support.sites import (
    SUBJECTS,
    Sites,
    after,
    message_of,
    parcel_of,
    refusing,
    spoil,
    weight,
    with_arrays,
    with_values,
)

Change = Callable[[Message, Parcel], Message | None]


def with_raw_array(data: bytes, stype: str = "numpy.ndarray") -> Change:
    """An array of Flower's whose bytes are whatever the site liked."""

    def change(message: Message, parcel: Parcel) -> Message:
        arrays = ArrayRecord({"float32.000": Array("float32", (4,), stype, data)})
        values = ConfigRecord(parcel.values)
        return Message(RecordDict({"arrays": arrays, "values": values}), reply_to=message)

    return change


def with_a_further_record(message: Message, parcel: Parcel) -> Message:
    reply = message_of(parcel, message)
    reply.content["more"] = MetricRecord({"age-of-sub-1": 71.5})
    return reply


def without_an_update(message: Message, parcel: Parcel) -> Message:
    values = {name: value for name, value in parcel.values.items() if name != "codec"}
    return message_of(Parcel(values, {}), message)


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(4, np.float32))
    return file.getvalue()


def claims_terabytes() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(4, np.float32))
    return file.getvalue().replace(b"(4,), }             ", b"(4000000000000,), } ")


GOOD = np.zeros(4, np.float32)
BAD: dict[str, tuple[Change, str]] = {
    "raises": (refusing, "StoreError"),
    "never answers": (lambda *_: None, "no answer within"),
    "NaN weights": (with_arrays(float32_000=np.full(4, np.nan, np.float32)), "NaN"),
    "infinite weights": (with_arrays(float32_000=np.full(4, -np.inf, np.float32)), "NaN or infinity"),
    "wrong shape": (with_arrays(float32_000=np.zeros(5, np.float32)), "(5,), wanted float32 (4,)"),
    "wrong dtype": (with_arrays(float32_000=np.zeros(4, np.float64)), "float64 (4,), wanted float32"),
    "text as weights": (with_arrays(float32_000=np.array(["a"] * 4)), "<U1 (4,), wanted float32"),
    "no weights": (with_arrays(), "codec without weights"),
    "no update": (without_an_update, "sent no update"),
    "more weights": (with_arrays(float32_000=GOOD, a=[1.0]), "superfluous ['a']"),
    "other weights": (with_arrays(float32_001=GOOD), "missing ['float32.000']"),
    "another codec": (with_values(codec="int8"), "sent weights as int8, wanted float32"),
    "unknown codec": (with_values(codec="gzip"), "sent weights as gzip"),
    "another site": (with_values(site="C"), "answered for site 'C'"),
    "another round": (with_values(round=7), "round 7"),
    "NaN loss": (with_values(train_loss=float("nan")), "finite"),
    "a further value": (with_values(subject="sub-1"), "holds"),
    "an array of another library": (with_raw_array(b"\x00" * 16, "somebody.else"), ""),
    "an empty array": (with_raw_array(b""), "unreadable answer"),
    "noise": (with_raw_array(b"\x93NUMPY" + b"noise" * 9), "unreadable answer"),
    "a broken archive": (with_raw_array(b"PK\x03\x04" + b"noise" * 9), "unreadable answer"),
    "an archive": (with_raw_array(archive()), "unreadable answer"),
    "an array of terabytes": (with_raw_array(claims_terabytes()), "unreadable answer"),
    "a further record": (with_a_further_record, "more"),
    "a million subjects": (with_values(subjects=1_000_000), "claims 1,000,000 subjects, joined with 3"),
    "a far-out norm": (
        with_arrays(float32_000=np.full(4, 1e6, np.float32)),
        "its update is 2.5e+05 times as long as the median, allowed 10",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_answer_is_left_out_with_its_reason_and_the_run_goes_on(run, kind: str) -> None:
    change, reason = BAD[kind]
    progress, folder = run(Sites("ABC"), tamper=spoil("B", 0, change))
    first = progress.history[0]
    assert set(first.failures) == {"B"}
    assert reason in first.failures["B"]
    assert set(first.loss) == set(first.valid_mae) == set(first.shares) == {"A", "C"}
    assert progress.history[1].failures == {}
    # Round 0: (1 x 4 + 4 x -2) / 5 = -0.8. Round 1: (1 x 4 + 3 x 8 + 4 x -2) / 8 = 2.5.
    assert weight(folder / "last.safetensors") == pytest.approx(1.7, abs=1e-6)


@pytest.mark.parametrize("long", "AB")
def test_of_two_sites_the_longer_update_is_the_far_out_one(run, long: str) -> None:
    change = with_arrays(float32_000=np.full(4, 1000.0, np.float32))
    with pytest.raises(FederationError, match=rf"round 0: 1 usable.*{long}: its update is \d+ times as long"):
        run(tamper=spoil(long, 0, change))


def test_how_far_out_is_too_far_is_a_setting(run) -> None:
    # B's 8 is twice A's 4.
    with pytest.raises(
        FederationError, match=r"B: its update is 2 times as long as the median, allowed 1\.5"
    ):
        run(aggregation__norm_factor=1.5)
    run(aggregation__norm_factor=2.1, output="lenient")


def test_site_that_keeps_back_its_numbers_is_averaged_all_the_same(run) -> None:
    def silent(message: Message, parcel: Parcel) -> Message:
        kept = {n: v for n, v in parcel.values.items() if n not in ("train-loss", "valid-mae", "seconds")}
        return message_of(Parcel(kept, parcel.arrays), message)

    progress, folder = run(tamper=spoil("B", 0, silent))
    assert weight(folder / "last.safetensors") == 14.0
    first = progress.history[0]
    assert first.shares == {"A": 0.25, "B": 0.75}
    assert set(first.loss) == set(first.valid_mae) == set(first.site_seconds) == {"A"}
    assert first.failures == {}


def test_nobody_tells_the_error_and_the_last_model_is_the_best_that_is_known(run) -> None:
    def silent(message: Message, reply: Message) -> Message:
        if message.metadata.message_type not in ("train", "evaluate"):
            return reply
        parcel = parcel_of(reply)
        return message_of(
            Parcel({n: v for n, v in parcel.values.items() if n != "valid-mae"}, parcel.arrays), message
        )

    progress, folder = run(tamper=silent)
    assert weight(folder / "last.safetensors") == 14.0
    assert progress.best_round == -1
    assert weight(folder / "model.safetensors") == 14.0
    assert load_checkpoint(folder / "model.safetensors").round == 2


def test_too_few_answers_end_the_run_and_say_why(run, tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"round 1: 1 usable answer.*at least 2.*B: .*StoreError"):
        run(tamper=spoil("B", 1, refusing))
    assert after(tmp_path / "run", 1) == 7.0
    assert not (tmp_path / "run" / "rounds" / "after-00002").exists()


def test_one_site_is_enough_when_so_configured(run) -> None:
    _, folder = run(tamper=spoil("B", 1, refusing), federation__min_sites=1)
    assert weight(folder / "last.safetensors") == 11.0  # 7, then A alone adds 4


def test_missing_site_leaves_its_share_to_the_others_and_the_history_says_so(run) -> None:
    # Of 1, 3 and 4 subjects B's are missing: A and C count 1/5 and 4/5, and that is what is kept.
    progress, folder = run(Sites("ABC"), tamper=spoil("B", 0, refusing), federation__rounds=1)
    assert progress.history[0].shares == pytest.approx({"A": 0.2, "C": 0.8})
    assert weight(folder / "last.safetensors") == pytest.approx((4 + 4 * -2) / 5)


def test_last_measurement_may_fail(run) -> None:
    def tamper(message: Message, reply: Message) -> Message | None:
        return None if message.metadata.message_type == "evaluate" else reply

    progress, folder = run(tamper=tamper)
    assert weight(folder / "last.safetensors") == 14.0
    assert progress.best_round == 1


def test_weights_in_answer_to_a_measurement_are_refused(run) -> None:
    def tamper(message: Message, reply: Message) -> Message | None:
        if message.metadata.message_type != "evaluate":
            return reply
        parcel = parcel_of(reply)
        values = parcel.values | {"codec": "float32", "subjects": SUBJECTS[str(parcel.values["site"])]}
        return message_of(Parcel(values, {"float32.000": GOOD}), message)

    progress, _ = run(tamper=tamper)
    assert progress.history[2].failures == dict.fromkeys("AB", "sent weights that nobody asked for")
    assert progress.history[2].valid_mae == {}


def test_log_names_the_site_and_the_reason(run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(Sites("ABC"), tamper=spoil("B", 0, refusing))
    assert "round 0: nothing from site B: code 100: StoreError (reference x)" in caplog.messages


def test_message_that_cannot_be_sent_is_a_reason(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower hands back None, or nothing, for a message that it could not push."""
    real = InProcessGrid.push_messages
    for nothing in ([None], [""], []):

        def push(self, messages, nothing=nothing):
            (message,) = messages
            lost = message.metadata.message_type == "train" and message.metadata.dst_node_id == 2
            return nothing if lost else real(self, messages)

        monkeypatch.setattr(InProcessGrid, "push_messages", push)
        progress, _ = run(Sites("ABC"), output=f"run-{nothing}")
        assert progress.history[0].failures == {"B": "the message could not be sent"}
