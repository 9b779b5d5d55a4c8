# SPDX-License-Identifier: Apache-2.0
"""The rounds, with sites that answer constants: every number can be computed by hand.

The model is one weight matrix of 2 x 2 that starts at zero; a site adds its own constant to what it
gets. A has 1 training subject and adds 4, B has 3 and adds 8, so without a cap a round adds 7.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from pasta_model.checkpoint import load_checkpoint
from pasta_model.config import Settings, settings_from_flat
from pasta_model.data.clinical import Moments, Standardisation
from pasta_model.errors import CheckpointError, FederationError
from pasta_model.exchange.contents import Invitation, NodeReport, Parcel, SiteReport, TrainReport, TrainTask
from pasta_model.exchange.packing import Layout
from server import rounds, wire
from server.records import Progress
from server.rounds import Federation
from server.wire import GridPost
from tests.support.grid import InProcessGrid

SUBJECTS = {"A": 1, "B": 3, "C": 4}
ADDS = {"A": 4.0, "B": 8.0, "C": -2.0}
ERRORS = {"A": 0.4, "B": 0.2, "C": 0.1}
AGES = {"A": [60.0], "B": [70.0, 80.0, 90.0], "C": [70.0] * 4}


class OneMatrix(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(2, 2))


@pytest.fixture(autouse=True)
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "new_network", lambda settings: OneMatrix())
    monkeypatch.setattr(rounds, "network_layout", lambda settings: Layout.of(OneMatrix().state_dict()))
    monkeypatch.setattr(wire, "POLL_SECONDS", 0.001)


def parcel_of(message: Message) -> Parcel:
    arrays = message.content.array_records["arrays"]
    return Parcel(dict(message.content.config_records["values"]), {k: a.numpy() for k, a in arrays.items()})


def message_of(parcel: Parcel, message: Message) -> Message:
    arrays = ArrayRecord({k: Array(v) for k, v in parcel.arrays.items()})
    return Message(RecordDict({"arrays": arrays, "values": ConfigRecord(parcel.values)}), reply_to=message)


class Sites:
    """A ClientApp for node n that serves the n-th site; `trained` lists (site, round)."""

    def __init__(self, names: str = "AB") -> None:
        self.names = names
        self.trained: list[tuple[str, int]] = []
        self.received: list[TrainTask] = []
        self.interrupt_at: int | None = None
        self.app = ClientApp()
        self.app.query("sites")(self.sites)
        self.app.query("join")(self.join)
        self.app.train()(self.train)
        self.app.evaluate()(self.evaluate)

    def sites(self, message: Message, context) -> Message:
        return message_of(NodeReport((self.names[context.node_id - 1],)).parcel(), message)

    def join(self, message: Message, context) -> Message:
        site = Invitation.of(parcel_of(message)).site
        table = np.array([[age, 0.0, 12.0] for age in AGES[site]])
        return message_of(SiteReport(site, SUBJECTS[site], 1, Moments.of(table)).parcel(), message)

    def train(self, message: Message, context) -> Message:
        task = TrainTask.of(parcel_of(message))
        if task.round == self.interrupt_at:
            raise KeyboardInterrupt
        self.trained.append((task.site, task.round))
        self.received.append(task)
        weights = {name: buffer + np.float32(ADDS[task.site]) for name, buffer in task.weights.items()}
        return message_of(self.report(task, weights), message)

    def evaluate(self, message: Message, context) -> Message:
        task = TrainTask.of(parcel_of(message))
        return message_of(self.report(task, {}), message)

    def report(self, task: TrainTask, weights: dict[str, np.ndarray]) -> Parcel:
        # The model gets better with every round, but the last one is worse.
        error = ERRORS[task.site] / (task.round + 1) if task.round < 2 else 9.0
        return TrainReport(task.site, task.round, SUBJECTS[task.site], 1.5, error, 0.1, weights).parcel()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Progress, Path]]:
    """Run a federation and return how far it came, and its folder."""

    def start(
        sites: Sites | None = None, *, tamper=None, output: str = "run", deadline: float = 0.02, **changes
    ):
        sites = sites or Sites()
        settings = make_settings(tmp_path / output, **changes)
        grid = InProcessGrid(sites.app, run_config={}, nodes=len(sites.names), tamper=tamper)
        federation = Federation(GridPost(grid, deadline=deadline, settle_checks=0), settings)
        start.grid = grid
        return federation.run(), tmp_path / output

    return start


def make_settings(output: Path, **changes) -> Settings:
    values = {
        "run.output": str(output),
        "data.clinical": "demographics",
        "federation.rounds": 2,
        "federation.join-deadline": 0.01,
        "federation.weight-cap": 1.0,
        "training.ema-decay": 0.5,
        "training.local-steps": 1,
    }
    return settings_from_flat(
        values | {k.replace("__", ".").replace("_", "-"): v for k, v in changes.items()}
    )


def weight(path: Path) -> float:
    """The value of all four weights of a saved model."""
    (found,) = load_checkpoint(path).state["weight"].unique().tolist()
    return found


class TestTwoRounds:
    def test_weights_by_hand(self, run) -> None:
        progress, folder = run()
        assert progress.state["weight"].tolist() == [[14.0, 14.0], [14.0, 14.0]]
        assert weight(folder / "last.safetensors") == 14.0
        # Moving average: 7 after the first round; then it keeps 2 / 11 of that, which is its warm-up.
        assert weight(folder / "average.safetensors") == pytest.approx(2 / 11 * 7 + 9 / 11 * 14)

    def test_moving_average_by_hand_after_its_warm_up(self, run) -> None:
        _, folder = run(training__ema_decay=0.1)
        assert weight(folder / "average.safetensors") == pytest.approx(0.1 * 7 + 0.9 * 14)
        _, folder = run(training__ema_decay=0.3, training__local_steps=2, output="two-steps")
        assert weight(folder / "average.safetensors") == pytest.approx(0.3**2 * 7 + (1 - 0.3**2) * 14)

    def test_cap_makes_the_sites_equal(self, run) -> None:
        progress, _ = run(federation__weight_cap=0.5)
        assert progress.state["weight"][0, 0].item() == 12.0  # 2 rounds of (4 + 8) / 2

    def test_sites_get_the_pooled_standardisation(self, run) -> None:
        sites = Sites()
        run(sites)
        # Ages 60, 70, 80, 90: mean 75, standard deviation sqrt(125). Sex and education do not vary.
        wanted = Standardisation((75.0, 0.0, 12.0), (125**0.5, 1.0, 1.0))
        for task in sites.received:
            assert task.standardisation.mean == pytest.approx(wanted.mean)
            assert task.standardisation.spread == pytest.approx(wanted.spread)

    def test_sites_get_the_weights_of_the_round_before(self, run) -> None:
        sites = Sites()
        run(sites)
        assert sites.trained == [("A", 0), ("B", 0), ("A", 1), ("B", 1)]
        assert [set(t.weights["float32.000"].tolist()) for t in sites.received] == [
            {0.0},
            {0.0},
            {7.0},
            {7.0},
        ]

    def test_best_model_is_the_one_that_measured_best(self, run) -> None:
        # Measured: 0.25 x 0.4 + 0.75 x 0.2 = 0.25 before round 0, half of it before round 1, then 9.
        progress, folder = run()
        assert (progress.best_round, progress.best_mae) == (1, pytest.approx(0.125))
        assert weight(folder / "model.safetensors") == 7.0
        assert load_checkpoint(folder / "model.safetensors").round == 1
        assert load_checkpoint(folder / "last.safetensors").round == 2

    def test_history(self, run) -> None:
        _, folder = run()
        lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        assert [line["round"] for line in lines] == [0, 1, 2]
        assert lines[0]["shares"] == {"A": 0.25, "B": 0.75}
        assert lines[0]["loss"] == {"A": 1.5, "B": 1.5}
        assert lines[1]["valid_mae"] == {"A": 0.2, "B": 0.1}
        assert lines[2]["valid_mae"] == {"A": 9.0, "B": 9.0}
        assert lines[2]["loss"] == {}
        assert lines[0]["bytes"] == 4 * 16  # 4 float32 to two sites and back
        assert list((folder / "tensorboard").iterdir())

    def test_folder_holds_two_rounds_and_nothing_half_written(self, run) -> None:
        _, folder = run(federation__rounds=4)
        assert sorted(p.name for p in (folder / "rounds").iterdir()) == ["round-00002", "round-00003"]
        assert not list(folder.rglob(".partial-*"))
        flat = json.loads((folder / "settings.json").read_text())
        assert settings_from_flat(flat) == make_settings(folder, federation__rounds=4)

    def test_order_of_nodes_does_not_matter(self, run) -> None:
        there, _ = run(Sites("ABC"), output="1")
        back, _ = run(Sites("CBA"), output="2")
        assert torch.equal(there.state["weight"], back.state["weight"])
        assert there.standardisation == back.standardisation

    def test_server_sends_the_listed_types_and_nothing_else(self, run) -> None:
        run()
        types = [message.metadata.message_type for message in run.grid.asked]
        assert types == ["query.sites"] * 2 + ["query.join"] * 2 + ["train"] * 4 + ["evaluate"] * 2
        for message in run.grid.asked:
            content = message.content
            assert set(content) == {"arrays", "values"}
            parcel = parcel_of(message)
            if message.metadata.message_type == "query.sites":
                assert parcel == Parcel({}, {})
            elif message.metadata.message_type == "query.join":
                Invitation.of(parcel)
            else:
                TrainTask.of(parcel)

    def test_weights_are_converted_once_for_all_sites(self, run, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[int] = []
        real = wire.Array
        monkeypatch.setattr(wire, "Array", lambda buffer: made.append(1) or real(buffer))
        run()
        assert len(made) == 3  # one buffer: two rounds and the last measurement


def spoil(site: str, number: int, change: Callable[[Message, Parcel], Message | None]):
    """Change what a site answers to the training of one round."""

    def tamper(message: Message, reply: Message) -> Message | None:
        if message.metadata.message_type != "train":
            return reply
        task = TrainTask.of(parcel_of(message))
        return change(message, parcel_of(reply)) if (task.site, task.round) == (site, number) else reply

    return tamper


def with_values(**values):
    return lambda message, parcel: message_of(Parcel(parcel.values | values, parcel.arrays), message)


def with_weights(**buffers):
    arrays = {name.replace("_", "."): np.asarray(buffer) for name, buffer in buffers.items()}
    return lambda message, parcel: message_of(Parcel(parcel.values, arrays), message)


def with_an_unreadable_array(message: Message, parcel: Parcel) -> Message:
    arrays = ArrayRecord({"float32.000": Array("float32", (4,), "somebody.else", b"\x00" * 16)})
    return Message(RecordDict({"arrays": arrays, "values": ConfigRecord(parcel.values)}), reply_to=message)


def with_a_further_record(message: Message, parcel: Parcel) -> Message:
    reply = message_of(parcel, message)
    reply.content["more"] = MetricRecord({"age-of-sub-1": 71.5})
    return reply


BAD = {
    "raises": (
        lambda message, _: Message(Error(100, "StoreError (reference x)"), reply_to=message),
        "StoreError",
    ),
    "never answers": (lambda *_: None, "no answer within"),
    "NaN weights": (with_weights(float32_000=np.full(4, np.nan, np.float32)), "NaN"),
    "wrong shape": (with_weights(float32_000=np.zeros(5, np.float32)), "do not fit the network"),
    "wrong dtype": (with_weights(float32_000=np.zeros(4, np.float64)), "do not fit the network"),
    "no weights": (with_weights(), "do not fit the network"),
    "more weights": (with_weights(float32_000=np.zeros(4, np.float32), a=[1.0]), "do not fit the network"),
    "another site": (with_values(site="C"), "answered for site 'C'"),
    "another round": (with_values(round=7), "round 7"),
    "NaN loss": (with_values(**{"train-loss": float("nan")}), "finite"),
    "a further value": (with_values(subject="sub-1"), "holds"),
    "unreadable array": (with_an_unreadable_array, ""),
    "a further record": (with_a_further_record, "more"),
}


class TestFailures:
    @pytest.mark.parametrize("kind", BAD)
    def test_bad_answer_is_left_out_with_its_reason_and_the_run_goes_on(self, run, kind: str) -> None:
        change, reason = BAD[kind]
        progress, _ = run(Sites("ABC"), tamper=spoil("B", 0, change))
        first = progress.history[0]
        assert set(first.failures) == {"B"}
        assert reason in first.failures["B"]
        assert set(first.loss) == {"A", "C"}
        assert progress.history[1].failures == {}
        # Round 0: (1 x 4 + 4 x -2) / 5 = -0.8. Round 1: (1 x 4 + 3 x 8 + 4 x -2) / 8 = 2.5.
        assert progress.state["weight"][0, 0].item() == pytest.approx(1.7, abs=1e-6)

    def test_too_few_answers_end_the_run_and_say_why(self, run, tmp_path: Path) -> None:
        tamper = spoil("B", 1, BAD["raises"][0])
        with pytest.raises(FederationError, match=r"round 1: 1 usable answer.*at least 2.*B: .*StoreError"):
            run(tamper=tamper)
        assert weight(tmp_path / "run" / "rounds" / "round-00000" / "model.safetensors") == 7.0

    def test_one_site_is_enough_when_so_configured(self, run) -> None:
        progress, _ = run(tamper=spoil("B", 1, BAD["raises"][0]), federation__min_sites=1)
        assert progress.state["weight"][0, 0].item() == 11.0  # 7, then A alone adds 4

    def test_missing_site_leaves_its_share_to_the_others_and_the_history_says_so(self, run) -> None:
        # Of 1, 3 and 4 subjects B's are missing: A and C count 1/5 and 4/5, and that is what is kept.
        progress, _ = run(Sites("ABC"), tamper=spoil("B", 0, BAD["raises"][0]), federation__rounds=1)
        assert progress.history[0].shares == pytest.approx({"A": 0.2, "C": 0.8})
        assert progress.state["weight"][0, 0].item() == pytest.approx((4 + 4 * -2) / 5)

    def test_last_measurement_may_fail(self, run) -> None:
        def tamper(message: Message, reply: Message) -> Message | None:
            return None if message.metadata.message_type == "evaluate" else reply

        progress, folder = run(tamper=tamper)
        assert weight(folder / "last.safetensors") == 14.0
        assert progress.best_round == 1

    def test_log_names_the_site_and_the_reason(self, run, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING):
            run(Sites("ABC"), tamper=spoil("B", 0, BAD["raises"][0]))
        assert "round 0: nothing from site B: code 100: StoreError (reference x)" in caplog.messages


class TestJoining:
    @staticmethod
    def on_join(site: str, change: Callable[[Message, Parcel], Message | None]):
        def tamper(message: Message, reply: Message) -> Message | None:
            if message.metadata.message_type != "query.join" or parcel_of(message).values["site"] != site:
                return reply
            return change(message, parcel_of(reply))

        return tamper

    def test_site_that_refuses_stays_out(self, run) -> None:
        progress, _ = run(Sites("ABC"), tamper=self.on_join("C", BAD["raises"][0]))
        assert progress.state["weight"][0, 0].item() == 14.0

    def test_too_few_sites(self, run) -> None:
        with pytest.raises(FederationError, match=r"1 site\(s\) joined \(A\), wanted at least 2"):
            run(tamper=self.on_join("B", BAD["raises"][0]))

    def test_site_served_twice(self, run) -> None:
        with pytest.raises(FederationError, match="'A' is served by two nodes"):
            run(Sites("AA"))

    @pytest.mark.parametrize(
        "change",
        [
            with_values(site="B"),
            with_values(**{"train-subjects": 0}),
            with_values(subject="sub-1"),
            with_weights(count=np.ones(2), total=np.ones(2), squares=np.ones(2)),
        ],
        ids=["another name", "no training subject", "a further value", "another scheme"],
    )
    def test_bad_report_keeps_one_site_out_not_all(self, run, change) -> None:
        progress, _ = run(Sites("ABC"), tamper=self.on_join("C", change))
        assert progress.state["weight"][0, 0].item() == 14.0

    def test_no_node(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rounds, "SETTLE_SECONDS", 0.0)
        grid = InProcessGrid(Sites().app, run_config={}, nodes=0)
        with pytest.raises(FederationError, match=r"0 site\(s\) joined \(none\), wanted at least"):
            Federation(GridPost(grid, deadline=1.0), make_settings(tmp_path)).run()


class TestResume:
    @pytest.mark.parametrize("interrupted", [1, 2])
    def test_gives_what_an_undisturbed_run_gives(self, run, interrupted: int) -> None:
        undisturbed, there = run(output="undisturbed", federation__rounds=3)
        sites = Sites()
        sites.interrupt_at = interrupted
        with pytest.raises(KeyboardInterrupt):
            run(sites, federation__rounds=3)
        sites.interrupt_at = None
        sites.trained.clear()
        resumed, here = run(sites, run__resume=True, federation__rounds=3)
        assert sites.trained == [(site, n) for n in range(interrupted, 3) for site in "AB"]
        for name in ("model", "last", "average"):
            assert weight(here / f"{name}.safetensors") == weight(there / f"{name}.safetensors")
        assert (resumed.best_round, resumed.best_mae) == (undisturbed.best_round, undisturbed.best_mae)
        assert resumed.standardisation == undisturbed.standardisation
        for one, other in zip(resumed.history, undisturbed.history, strict=True):
            assert (one.round, one.loss, one.valid_mae, one.shares) == (
                other.round, other.loss, other.valid_mae, other.shares
            )  # fmt: skip

    def test_without_resume_a_run_starts_again(self, run) -> None:
        run()
        sites = Sites()
        progress, folder = run(sites)
        assert len(sites.trained) == 4
        assert progress.state["weight"][0, 0].item() == 14.0
        assert len((folder / "history.jsonl").read_text().splitlines()) == 3

    def test_other_settings_refuse(self, run) -> None:
        run()
        with pytest.raises(CheckpointError, match="made with other settings"):
            run(run__resume=True, training__learning_rate=0.5)

    def test_where_there_is_nothing_yet_a_run_begins(self, run) -> None:
        progress, _ = run(run__resume=True)
        assert progress.state["weight"][0, 0].item() == 14.0

    def test_finished_run_only_measures_again(self, run) -> None:
        run()
        sites = Sites()
        progress, _ = run(sites, run__resume=True)
        assert sites.trained == []
        assert progress.state["weight"][0, 0].item() == 14.0
        assert [record.round for record in progress.history] == [0, 1, 2]
