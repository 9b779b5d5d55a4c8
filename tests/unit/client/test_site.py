# SPDX-License-Identifier: Apache-2.0
"""A site at work: what leaves it, what stays on its disk, and what it refuses."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import message_to_proto

from client import client_app
from client.site import Site, local_sites
from client.wire import parcel_of
from pasta_model.checkpoint import new_network
from pasta_model.data.clinical import Standardisation
from pasta_model.errors import StoreError
from pasta_model.exchange.contents import Invitation, NodeReport, Parcel, SiteReport, TrainReport, TrainTask
from pasta_model.exchange.packing import Layout, check_buffers, pack
from server.wire import GridPost
from tests.support.grid import InProcessGrid

PLAIN = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)


@pytest.fixture
def settings(tmp_path: Path, make_settings, make_store):
    """Settings of a federation of one site, A, whose store is prepared."""
    make_store()
    return make_settings(data__sites=str(tmp_path / "sites"), training__local_steps=1)


@pytest.fixture
def ask(settings):
    """Send a parcel to the real ClientApp; return the reply message itself."""

    def send(kind: str, parcel: Parcel, **changes) -> Message:
        replies: list[Message] = []
        run_config = settings.flat() | changes
        grid = InProcessGrid(
            client_app.app,
            run_config=run_config,
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


def task(settings, number: int = 0) -> TrainTask:
    return TrainTask("A", number, PLAIN, pack(new_network(settings).state_dict()))


class TestWhatLeavesTheSite:
    def test_names_of_sites(self, ask, settings) -> None:
        message = ask("query.sites", Parcel({}, {}))
        assert NodeReport.of(parcel_of(message)) == NodeReport(("A",))
        assert not [word for word in secrets(settings) if word in on_the_wire(message)]

    def test_join_sends_counts_and_sums(self, ask, settings) -> None:
        message = ask("query.join", Invitation("A").parcel())
        report = SiteReport.of(parcel_of(message))
        assert (report.site, report.train_subjects, report.valid_subjects) == ("A", 3, 1)
        entries = json.loads((Path(settings.data.sites) / "A" / "index.json").read_text())["entries"]
        ages = [e["clinical"]["age"] for e in entries if e["split"] == "train"]
        assert report.moments.count.tolist() == [3, 3, 3, 0, 0, 0]
        assert report.moments.total[0] == pytest.approx(sum(ages))
        assert report.moments.squares[0] == pytest.approx(sum(age**2 for age in ages))
        wire = on_the_wire(message)
        assert not [word for word in secrets(settings) if word in wire]
        assert set(message.content) == {"arrays", "values"}

    def test_sums_of_few_values_do_not_leave(self, ask, settings, monkeypatch) -> None:
        # Three training subjects: their sums of ages would nearly tell the ages.
        monkeypatch.setattr("client.site.MIN_VALUES", 4)
        report = SiteReport.of(parcel_of(ask("query.join", Invitation("A").parcel())))
        for part in (report.moments.count, report.moments.total, report.moments.squares):
            assert part.tolist() == [0.0] * 6

    def test_training_sends_what_is_listed_and_nothing_else(self, ask, settings) -> None:
        sent = task(settings)
        message = ask("train", sent.parcel())
        parcel = parcel_of(message)
        report = TrainReport.of(parcel)
        assert set(message.content) == {"arrays", "values"}
        assert set(parcel.values) == {"site", "round", "subjects", "train-loss", "valid-mae", "seconds"}
        assert (report.site, report.round, report.subjects) == ("A", 0, 3)
        check_buffers(report.weights, Layout.of(new_network(settings).state_dict()))
        assert any((report.weights[name] != buffer).any() for name, buffer in sent.weights.items())
        assert 0 < report.valid_mae < 3
        assert report.train_loss > 0
        assert not [word for word in secrets(settings) if word in on_the_wire(message)]

    def test_evaluation_sends_no_weights(self, ask, settings) -> None:
        report = TrainReport.of(parcel_of(ask("evaluate", task(settings, 2).parcel())))
        assert report.weights == {}
        assert (report.round, report.subjects, report.train_loss) == (2, 1, 0.0)
        trained = TrainReport.of(parcel_of(ask("train", task(settings).parcel())))
        assert report.valid_mae == trained.valid_mae  # both measure the received weights

    @pytest.mark.parametrize("kind", ["query.sites", "query.join", "train", "evaluate"])
    def test_text_of_an_error_stays_in_the_log(self, ask, settings, caplog, kind: str) -> None:
        parcels = {"query.sites": Parcel({}, {}), "query.join": Invitation("A").parcel()}
        parcel = parcels.get(kind) or task(settings).parcel()
        root = Path(settings.data.sites)
        words = secrets(settings)
        (root / "A" / "mri.npy").unlink()
        with caplog.at_level(logging.ERROR):
            message = ask(kind, parcel)
        assert message.error.code == 100
        assert message.error.reason.startswith("StoreError (reference ")
        wire = on_the_wire(message)
        assert not [word for word in words if word in wire]
        reference = message.error.reason.split("reference ")[1].split()[0]
        assert any(reference in text and str(root) in text for text in caplog.messages)

    def test_our_own_mistakes_do_not_leak_either(self, ask, settings, monkeypatch) -> None:
        def fail(*args, **kwargs):
            raise ZeroDivisionError("sub-Aada in /home/somebody")

        monkeypatch.setattr("client.site.Site.report", fail)
        wire = on_the_wire(ask("query.join", Invitation("A").parcel()))
        assert b"ZeroDivisionError" in wire
        assert b"sub-A" not in wire
        assert b"somebody" not in wire

    def test_unknown_site(self, ask) -> None:
        message = ask("query.join", Invitation("Nowhere").parcel())
        assert message.error.reason.startswith("ExchangeError (reference ")

    def test_message_with_something_else_in_it(self, ask) -> None:
        message = ask("query.join", Parcel({"site": "A", "send": "everything"}, {}))
        assert message.error.reason.startswith("ExchangeError")

    def test_weights_of_another_network(self, ask, settings) -> None:
        wrong = TrainTask("A", 0, PLAIN, {"float32.000": np.zeros(3, np.float32)})
        assert ask("train", wrong.parcel()).error.reason.startswith("ExchangeError")

    def test_standardisation_of_another_scheme(self, ask, settings) -> None:
        wrong = TrainTask("A", 0, Standardisation((1.0, 2.0), (1.0, 2.0)), task(settings).weights)
        assert ask("train", wrong.parcel()).error.reason.startswith("ExchangeError")

    def test_model_without_clinical_data(self, ask, make_settings, settings) -> None:
        plain = make_settings(**{"data.clinical": "none"})
        sent = TrainTask("A", 0, Standardisation((), ()), pack(new_network(plain).state_dict()))
        changes = {"data.clinical": "none"}
        report = SiteReport.of(parcel_of(ask("query.join", Invitation("A").parcel(), **changes)))
        assert report.moments.count.shape == (0,)
        assert TrainReport.of(parcel_of(ask("train", sent.parcel(), **changes))).subjects == 3


class TestStateOnDisk:
    """In deployment every message is a new process: two fresh sites must equal one that remembers."""

    def weights(self, report: TrainReport) -> np.ndarray:
        return np.concatenate(list(report.weights.values()))

    def second_round(self, settings, first: TrainReport, root: Path) -> TrainReport:
        site = Site(root / "A", settings)
        return site.train(TrainTask("A", 1, PLAIN, first.weights))

    def test_second_round_continues_with_the_moments_of_the_first(self, settings, monkeypatch) -> None:
        root = Path(settings.data.sites)
        first = Site(root / "A", settings).train(task(settings))
        shutil.copytree(root, root.parent / "forgetful")
        second = self.second_round(settings, first, root)

        # What AdamW does when it is never taken apart: one optimizer through both rounds.
        from client import site as module

        kept: list[torch.optim.Optimizer] = []
        real = module.make_optimizer

        def one_for_all(network, training):
            if kept:
                for group, fresh in zip(
                    kept[0].param_groups, real(network, training).param_groups, strict=True
                ):
                    for old, new in zip(group["params"], fresh["params"], strict=True):
                        kept[0].state[new] = kept[0].state.pop(old, {})
                    group["params"] = fresh["params"]
            else:
                kept.append(real(network, training))
            return kept[0]

        monkeypatch.setattr(module, "make_optimizer", one_for_all)
        monkeypatch.setattr(Site, "_restore", lambda *_: None)
        monkeypatch.setattr(Site, "_keep", lambda *_: None)
        process = Site(root / "A", settings)
        again = process.train(task(settings))
        np.testing.assert_array_equal(self.weights(again), self.weights(first))
        wanted = process.train(TrainTask("A", 1, PLAIN, first.weights))
        np.testing.assert_array_equal(self.weights(second), self.weights(wanted))
        monkeypatch.undo()

        shutil.rmtree(root.parent / "forgetful" / "A" / "state")
        forgetful = self.second_round(settings, first, root.parent / "forgetful")
        assert (self.weights(forgetful) != self.weights(second)).any()

    def test_round_repeated_by_a_resumed_server_gives_the_same(self, settings) -> None:
        root = Path(settings.data.sites)
        first = Site(root / "A", settings).train(task(settings))
        second = self.second_round(settings, first, root)
        np.testing.assert_array_equal(
            self.weights(self.second_round(settings, first, root)), self.weights(second)
        )

    def test_two_rounds_are_kept_and_a_new_run_forgets_them(self, settings) -> None:
        root = Path(settings.data.sites)
        report = Site(root / "A", settings).train(task(settings))
        for number in (1, 2):
            site = Site(root / "A", settings)
            report = site.train(TrainTask("A", number, PLAIN, report.weights))
        names = sorted(p.name for p in (root / "A" / "state").rglob("*.safetensors"))
        assert names == ["optimizer-00001.safetensors", "optimizer-00002.safetensors"]
        Site(root / "A", settings).train(task(settings))
        names = sorted(p.name for p in (root / "A" / "state").rglob("*.safetensors"))
        assert names == ["optimizer-00000.safetensors"]

    def test_runs_do_not_share_their_state(self, settings, make_settings) -> None:
        path = Path(settings.data.sites) / "A"
        other = make_settings(data__sites=settings.data.sites, run__seed=9)
        assert Site(path, settings)._state != Site(path, other)._state

    def test_name_of_a_run_does_not_lead_out_of_the_store(self, settings, make_settings) -> None:
        path = Path(settings.data.sites) / "A"
        state = None
        try:
            state = Site(path, make_settings(run__name="../../../elsewhere"))._state
        except Exception:  # noqa: BLE001  # refused in whatever way
            return
        assert path.resolve() in state.resolve().parents


class TestLocalSites:
    def test_stores_are_dealt_out_to_the_nodes(self, settings, make_store, tmp_path: Path) -> None:
        for name in "BC":
            make_store(name)
        found = [
            sorted(local_sites(settings, {"partition-id": number, "num-partitions": 2})) for number in (0, 1)
        ]
        assert found == [["A", "C"], ["B"]]

    def test_more_nodes_than_sites(self, settings) -> None:
        assert local_sites(settings, {"partition-id": 3, "num-partitions": 4}) == {}

    def test_deployed_node_names_its_own_store(self, settings, make_store, tmp_path: Path) -> None:
        make_store("B", root=tmp_path / "elsewhere")
        found = local_sites(settings, {"site-store": str(tmp_path / "elsewhere" / "B")})
        assert found == {"B": tmp_path / "elsewhere" / "B"}

    def test_nothing_there(self, make_settings, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no prepared site here"):
            local_sites(make_settings(data__sites=str(tmp_path)), {"partition-id": 0, "num-partitions": 1})

    def test_other_spacing_than_the_runs(self, settings, make_settings) -> None:
        fine = make_settings(data__sites=settings.data.sites, data__spacing=1.5)
        with pytest.raises(StoreError, match=r"prepared at 3.0 mm, wanted 1.5 mm"):
            Site(Path(settings.data.sites) / "A", fine)


def test_context_of_a_node_is_not_used_as_memory(settings) -> None:
    """What a site must remember is on its disk: Flower's state stays empty."""
    grid = InProcessGrid(client_app.app, run_config=settings.flat(), nodes=1)
    list(GridPost(grid, deadline=1.0).ask({"A": (1, Invitation("A").parcel())}, "query.join"))
    context: Context = grid._contexts[1]
    assert context.state == RecordDict({"empty": ConfigRecord()})
