# SPDX-License-Identifier: Apache-2.0
"""What leaves a site: exactly the type that was asked for, packed anew; never an exception's text."""

import io

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supernode.nodestate.in_memory_nodestate import CLIENT_APP_CRASHED_ERROR

from client.guard import inspection
from client.wire import ARRAYS, VALUES, reply
from pasta_model.exchange.contents import METRICS, NodeReport, Parcel, Refusal, SiteReport
from tests.support.guarded import NODE, RUN, Node, answers, fails, write_policy

SECRET = "/data/Doe_Jane_1950"


def kept_back(node: Node, kind: str, app) -> str:
    """Send a request whose answer is to be kept back; return why, as the site's log tells it."""
    sent = node.ask(kind, app)
    last = node.log[-1]
    assert (last["event"], last["direction"]) == ("refused", "out")
    assert sent.message.error.reason == f"{last['code']} (reference {last['reference']} in the site's log)"
    assert len(sent.contents) == 1
    assert SECRET.encode() not in sent.wire
    assert node.store.run_objects_mapping[RUN] == set(), "something of the reply is still in Flower's store"
    return last["reason"]


class TestAnswersThatAreRight:
    def test_training(self, node: Node, update) -> None:
        wanted = update(node)
        sent = node.ask("train", answers(wanted))
        assert sent.parcel.values == wanted.values
        for name, array in wanted.arrays.items():
            np.testing.assert_array_equal(sent.parcel.arrays[name], array)
        entry = node.log[-1]
        assert (entry["event"], entry["direction"], entry["kind"]) == ("sent", "out", "train")
        assert entry["values"] == sorted(wanted.values)
        assert (entry["subjects"], entry["arrays"], entry["withheld"]) == (3, len(wanted.arrays), [])
        assert entry["bytes"] == sum(map(len, sent.contents.values()))
        assert entry["content"] in sent.contents  # by the hash of what left

    def test_evaluation(self, node: Node, update) -> None:
        asked = {"codec": None, "train_loss": None, "subjects": 1}
        wanted = Parcel(update(node, **asked).values, {})
        assert node.ask("evaluate", answers(wanted)).parcel == wanted

    def test_names(self, node: Node) -> None:
        assert node.ask("query.sites", answers(NodeReport(("A",)).parcel())).parcel.values == {"sites": ["A"]}

    def test_what_it_says_about_itself_is_what_was_asked(self, node: Node) -> None:
        def chatty(request: Message) -> Message:
            answer = reply(NodeReport(("A",)).parcel(), request)
            answer.metadata.group_id = SECRET
            answer.metadata.__dict__["_src_task_id"] = 1950
            answer.metadata.created_at = 1950.0
            return answer

        sent = node.ask("query.sites", chatty)
        metadata = sent.message.metadata
        assert (metadata.group_id, metadata.message_type) == ("3", "query.sites")
        assert (metadata.run_id, metadata.src_node_id, metadata.dst_node_id) == (RUN, NODE, 1)
        assert metadata.src_task_id is None
        assert metadata.created_at > 1e9
        assert SECRET.encode() not in sent.wire

    def test_how_long_the_code_took_is_not_told(self, node: Node, update) -> None:
        assert node.ask("train", answers(update(node))).runtime == 0.0

    def test_nothing_stays_in_flowers_store(self, node: Node, update) -> None:
        node.ask("train", answers(update(node)))
        assert node.store.run_objects_mapping[RUN] == set()
        assert node.state.get_messages_legacy(is_reply=True) == []


class TestHiddenBytes:
    """Nothing of what the site's code has packed is passed on as it is."""

    def test_behind_the_end_of_an_array(self, node: Node, update) -> None:
        def hiding(request: Message) -> Message:
            answer = reply(update(node), request)
            array = next(iter(answer.content.array_records[ARRAYS].values()))
            array.data += SECRET.encode()
            return answer

        sent = node.ask("train", hiding)
        assert sent.message.has_content()
        assert SECRET.encode() not in sent.wire

    def test_in_the_words_about_an_array(self, node: Node, update) -> None:
        def hiding(request: Message) -> Message:
            answer = reply(update(node), request)
            next(iter(answer.content.array_records[ARRAYS].values())).dtype = SECRET
            return answer

        sent = node.ask("train", hiding)
        assert sent.message.has_content()
        assert SECRET.encode() not in sent.wire


class TestAnswersThatAreWrong:
    def test_another_record(self, node: Node, update) -> None:
        def more(request: Message) -> Message:
            answer = reply(update(node), request)
            answer.content["rows"] = ConfigRecord({"subject": SECRET})
            return answer

        assert "holds records ['rows']" in kept_back(node, "train", more)

    @pytest.mark.parametrize(
        "records",
        [
            {ARRAYS: ConfigRecord({"subject": SECRET})},
            {VALUES: MetricRecord({"a": 1.0})},
            {VALUES: ArrayRecord({"a": Array(np.zeros(3))})},
        ],
    )
    def test_a_record_of_another_kind(self, node: Node, records) -> None:
        assert "holds records" in kept_back(
            node, "query.sites", lambda request: Message(RecordDict(records), reply_to=request)
        )

    def test_another_array(self, node: Node, update) -> None:
        wanted = update(node)
        wanted.arrays["scan"] = np.zeros(8, np.float32)
        assert "superfluous ['scan']" in kept_back(node, "train", answers(wanted))

    def test_a_missing_array(self, node: Node, update) -> None:
        wanted = update(node)
        wanted.arrays.popitem()
        kept_back(node, "train", answers(wanted))
        assert node.log[-1]["code"] == "ExchangeError"

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_number_that_is_not_finite(self, node: Node, update, bad: float) -> None:
        wanted = update(node)
        next(iter(wanted.arrays.values()))[0] = bad
        assert "NaN or infinity" in kept_back(node, "train", answers(wanted))

    @pytest.mark.parametrize("dtype", [np.float64, np.int32, ">f4"])
    def test_another_dtype(self, node: Node, update, dtype) -> None:
        wanted = update(node)
        name = next(iter(wanted.arrays))
        wanted.arrays[name] = wanted.arrays[name].astype(dtype)
        kept_back(node, "train", answers(wanted))
        assert node.log[-1]["code"] == "ExchangeError"

    def test_another_size(self, node: Node, update) -> None:
        wanted = update(node)
        name = next(iter(wanted.arrays))
        wanted.arrays[name] = np.append(wanted.arrays[name], np.float32(0))
        kept_back(node, "train", answers(wanted))
        assert node.log[-1]["code"] == "ExchangeError"

    def test_an_array_of_objects(self, node: Node, update) -> None:
        def pickled(request: Message) -> Message:
            answer = reply(update(node), request)
            buffer = io.BytesIO()
            np.save(buffer, np.array([SECRET], object), allow_pickle=True)
            first = next(iter(answer.content.array_records[ARRAYS].values()))
            first.data = buffer.getvalue()
            return answer

        kept_back(node, "train", pickled)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("note", SECRET),
            ("valid_mae", float("nan")),
            ("subjects", -1),
            ("subjects", "three"),
            ("codec", "int8"),
            ("codec", SECRET),
            ("round", None),
        ],
    )
    def test_another_value(self, node: Node, update, name: str, value: object) -> None:
        kept_back(node, "train", answers(update(node, **{name: value})))
        assert node.log[-1]["code"] == "ExchangeError"

    @pytest.mark.parametrize("kind", ["train", "query.sites"])
    def test_another_sites_name(self, node: Node, update, kind: str) -> None:
        parcel = NodeReport(("A", SECRET)).parcel() if kind == "query.sites" else update(node, site=SECRET)
        assert "this is 'A'" in kept_back(node, kind, answers(parcel))

    @pytest.mark.parametrize("kind", ["query.sites", "query.join", "evaluate"])
    def test_weights_that_nobody_asked_for(self, node: Node, update, kind: str) -> None:
        kept_back(node, kind, answers(update(node)))

    def test_an_answer_of_another_type_of_message(self, node: Node, update) -> None:
        def other(request: Message) -> Message:
            answer = reply(update(node), request)
            answer.metadata.message_type = "train"
            return answer

        kept_back(node, "query.sites", other)

    def test_a_policy_that_became_unreadable_meanwhile(self, node: Node, update) -> None:
        def slow(request: Message) -> Message:
            node.kit.guard.policy.write_text("", encoding="utf-8")
            return reply(update(node), request)

        assert "policy.toml" in kept_back(node, "train", slow)

    def test_half_a_reply(self, node: Node, update, monkeypatch) -> None:
        monkeypatch.setattr(inspection, "STALLED_SECONDS", 0.0)
        node.state.store_object = lambda *_: False
        assert "did not deliver the whole reply" in kept_back(node, "train", answers(update(node)))

    def test_a_reply_to_nothing_stays(self, node: Node) -> None:
        def twice(request: Message) -> Message:
            second = reply(NodeReport((SECRET,)).parcel(), request)
            node.hand_back(second)
            return reply(NodeReport(("A",)).parcel(), request)

        node.ask("query.sites", twice)  # the first that came is the answer, and it is wrong
        assert [sent.message.has_error() for sent in node.sent] == [True]
        assert not [sent for sent in node.sent if SECRET.encode() in sent.wire]

    def test_flower_cannot_send_what_the_gate_has_not_packed(self, node: Node, update) -> None:
        caught: list[type] = []

        def careless(*, state, object_store, send, push_object) -> None:
            stray = Message(RecordDict(), 1, "train")
            stray.metadata.__dict__["_message_id"] = "0" * 64
            for attempt in (
                lambda: send(stray, None, 1.0),
                lambda: push_object(RUN, "session", "0" * 64, b"x"),
            ):
                with pytest.raises(AssertionError, match="not packed") as error:
                    attempt()
                caught.append(error.type)

        node.gate.push(
            careless,
            state=node.state,
            object_store=node.store,
            send=node._send,
            push_object=node._push_object,
        )
        assert len(caught) == 2
        assert node.sent == []


class TestMetrics:
    @pytest.mark.parametrize(
        ("policy", "withheld"),
        [
            ({"metrics": []}, METRICS),
            ({"metrics": ["valid-mae"]}, ("train-loss", "seconds")),
            ({"metrics_min_subjects": 2}, ("valid-mae",)),  # one subject validates, whatever the report says
            ({"metrics_min_subjects": 4}, METRICS),
        ],
    )
    def test_the_policy_keeps_them_back(self, make_node, update, policy, withheld) -> None:
        node = make_node(policy=policy)
        wanted = update(node, subjects=1000)
        sent = node.ask("train", answers(wanted))
        assert wanted.values.keys() - sent.parcel.values.keys() == set(withheld)
        assert sorted(node.log[-1]["withheld"]) == sorted(withheld)
        assert sorted(node.log[-1]["values"]) == sorted(sent.parcel.values)

    def test_an_edit_of_the_policy_holds_for_the_next_answer(self, node: Node, update) -> None:
        def slow(request: Message) -> Message:
            write_policy(node.kit.path.parent, metrics=[])
            return reply(update(node), request)

        assert METRICS[0] not in node.ask("train", slow).parcel.values

    def test_sums_over_few_subjects_stay(self, make_node) -> None:
        node = make_node(policy={"metrics_min_subjects": 3})
        six = np.array([3.0, 3.0, 2.0, 0.0, 1.0, 3.0])
        values = {"site": "A", "train-subjects": 3, "valid-subjects": 1, "holds": ""}
        arrays = {"count": six, "total": 70 * six, "squares": 4900 * six}
        report = SiteReport.of(node.ask("query.join", answers(Parcel(values, arrays))).parcel)
        assert report.moments.count.tolist() == [3, 3, 0, 0, 0, 3]
        assert report.moments.total.tolist() == [210, 210, 0, 0, 0, 210]
        assert node.log[-1]["withheld"] == ["sums of 2 columns"]


class TestErrors:
    def test_an_exceptions_text_never_leaves(self, node: Node, caplog) -> None:
        sent = node.ask("train", fails(2, f"<class 'ValueError'>:<'{SECRET} is broken'>"))
        assert SECRET.encode() not in sent.wire
        reference = node.log[-1]["reference"]
        assert sent.message.error == Error(2, f"AppRaised (reference {reference} in the site's log)")
        assert f"reference {reference}: the site's code failed: <class 'ValueError'>" in caplog.text
        assert SECRET in caplog.text  # for the site
        assert node.log[-1]["event"] == "failed"

    def test_our_refusal_passes(self, node: Node) -> None:
        text = Refusal("StoreError", "0123abcd").text
        assert node.ask("train", fails(100, text)).message.error == Error(100, text)
        assert node.log[-1]["reference"] == "0123abcd"

    @pytest.mark.parametrize(
        ("code", "text"),
        [
            (100, SECRET),
            (100, Refusal("Doe_Jane_1950", "0123abcd").text),  # a class may have any name
            (100, Refusal("StoreError", "Jane1950").text),
            (100, Refusal("StoreError", "0123abcd").text + "\n" + SECRET),
            (101, Refusal("StoreError", "0123abcd").text),
            (1950, SECRET),
            (8, SECRET),
            (0, None),
        ],
    )
    def test_every_other_text_is_replaced(self, node: Node, code: int, text: str | None) -> None:
        error = node.ask("train", fails(code, text)).message.error
        assert error.code == (code if code <= 8 else 100)
        assert error.reason != text
        assert inspection._REFUSAL.fullmatch(error.reason)
        assert "Jane" not in error.reason

    def test_flowers_own_error_of_a_code_that_died(self, node: Node) -> None:
        node.take_in("train")
        node.state.get_messages_legacy(run_ids=[RUN], is_reply=False, limit=1)
        node.state._store_error_replies({RUN}, CLIENT_APP_CRASHED_ERROR)
        error = node.let_out().message.error
        reference = node.log[-1]["reference"]
        assert error == Error(8, f"AppCrashed (reference {reference} in the site's log)")
