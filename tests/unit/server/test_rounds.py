# SPDX-License-Identifier: Apache-2.0
"""Two undisturbed rounds, by hand (see `tests/support/sites.py`): weights, best model, history, messages."""

import json

import pytest
import torch

from pasta_model.checkpoint import load_checkpoint
from pasta_model.config import settings_from_flat
from pasta_model.data.clinical import Standardisation
from pasta_model.exchange.contents import Invitation, Parcel, TrainTask
from server import wire
from tests.support.sites import Sites, after, make_settings, parcel_of, weight


def test_weights_by_hand(run) -> None:
    _, folder = run()
    assert weight(folder / "last.safetensors") == 14.0
    # Moving average: 7 after the first round; then it keeps 2 / 11 of that, which is its warm-up.
    assert weight(folder / "average.safetensors") == pytest.approx(2 / 11 * 7 + 9 / 11 * 14)
    # Nothing is compressed, so the sites know the global weights exactly.
    assert after(folder, 2) == after(folder, 2, "reference") == 14.0
    assert after(folder, 1) == 7.0


def test_moving_average_by_hand_after_its_warm_up(run) -> None:
    _, folder = run(training__ema_decay=0.1)
    assert weight(folder / "average.safetensors") == pytest.approx(0.1 * 7 + 0.9 * 14)
    _, folder = run(training__ema_decay=0.3, training__local_steps=2, output="two-steps")
    assert weight(folder / "average.safetensors") == pytest.approx(0.3**2 * 7 + (1 - 0.3**2) * 14)


def test_cap_makes_the_sites_equal(run) -> None:
    _, folder = run(federation__weight_cap=0.5)
    assert weight(folder / "last.safetensors") == 12.0  # 2 rounds of (4 + 8) / 2


def test_sites_get_the_pooled_standardisation(run) -> None:
    sites = Sites()
    run(sites)
    # Ages 60, 70, 80, 90: mean 75, standard deviation sqrt(125). Sex and education do not vary.
    wanted = Standardisation((75.0, 0.0, 12.0), (125**0.5, 1.0, 1.0))
    for task in sites.tasks:
        assert task.standardisation.mean == pytest.approx(wanted.mean)
        assert task.standardisation.spread == pytest.approx(wanted.spread)


def test_sites_get_the_weights_of_the_round_before(run) -> None:
    sites = Sites()
    run(sites)
    assert sites.received == [("A", 0, 0.0), ("B", 0, 0.0), ("A", 1, 7.0), ("B", 1, 7.0)]
    assert sites.measured == [("A", 14.0), ("B", 14.0)]


def test_best_model_is_the_one_that_measured_best(run) -> None:
    # Measured: 0.25 x 0.4 + 0.75 x 0.2 = 0.25 before round 0, half of it before round 1, then 9.
    progress, folder = run()
    assert (progress.best_round, progress.best_mae) == (1, pytest.approx(0.125))
    assert weight(folder / "model.safetensors") == 7.0
    assert load_checkpoint(folder / "model.safetensors").round == 1
    assert load_checkpoint(folder / "last.safetensors").round == 2


def test_history(run) -> None:
    _, folder = run()
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [0, 1, 2]
    assert lines[0]["shares"] == {"A": 0.25, "B": 0.75}
    assert lines[0]["loss"] == {"A": 1.5, "B": 1.5}
    assert lines[0]["norms"] == {"A": 8.0, "B": 16.0}  # of four weights each
    assert lines[1]["valid_mae"] == {"A": 0.2, "B": 0.1}
    assert lines[2]["valid_mae"] == {"A": 9.0, "B": 9.0}
    assert lines[2]["loss"] == {}
    # Round 0: every site can make the first weights itself, so nothing is sent; 4 float32 come back.
    assert lines[0]["bytes_down"] == {"A": 0, "B": 0}
    assert lines[0]["bytes_up"] == {"A": 16, "B": 16}
    assert lines[1]["bytes_down"] == {"A": 16, "B": 16}
    assert [line["bytes"] for line in lines] == [32, 64, 32]


def test_folder_holds_two_rounds_and_nothing_half_written(run, tmp_path) -> None:
    _, folder = run(federation__rounds=6)
    assert sorted(p.name for p in (folder / "rounds").iterdir()) == [
        "after-00005",
        "after-00006",
        *(f"step-0000{n}.safetensors" for n in (3, 4, 5, 6)),
    ]
    assert not list(folder.rglob(".partial-*"))
    flat = json.loads((folder / "settings.json").read_text())
    assert settings_from_flat(flat) == make_settings(tmp_path, folder, federation__rounds=6)


def test_order_of_nodes_does_not_matter(run) -> None:
    there, one = run(Sites("ABC"), output="1")
    back, other = run(Sites("CBA"), output="2")
    first, second = (load_checkpoint(folder / "last.safetensors") for folder in (one, other))
    assert torch.equal(first.state["weight"], second.state["weight"])
    assert there.standardisation == back.standardisation


def test_server_sends_the_listed_types_and_nothing_else(run) -> None:
    run()
    types = [message.metadata.message_type for message in run.grid.asked]
    assert types == ["query.sites"] * 2 + ["query.join"] * 2 + ["train"] * 4 + ["evaluate"] * 2
    for message in run.grid.asked:
        assert set(message.content) == {"arrays", "values"}
        parcel = parcel_of(message)
        if message.metadata.message_type == "query.sites":
            assert parcel == Parcel({}, {})
        elif message.metadata.message_type == "query.join":
            Invitation.of(parcel)
        else:
            TrainTask.of(parcel)


def test_weights_are_converted_once_for_all_sites(run, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = wire.Array
    monkeypatch.setattr(wire, "Array", lambda buffer: made.append(1) or real(buffer))
    run(Sites("ABC"))
    assert len(made) == 2  # one buffer: round 1 and the last measurement; nothing is sent in round 0


class TestLossyDownlink:
    """With int8 the sites know the global weights to within a step; master and reference part."""

    def test_best_and_last_models_are_what_the_sites_measured(self, run) -> None:
        sites = Sites("AB", codec="int8")
        progress, folder = run(sites, exchange__uplink="int8", exchange__downlink="int8")
        assert after(folder, 2) == pytest.approx(14.0, abs=0.2)
        assert after(folder, 2, "reference") == pytest.approx(after(folder, 2), abs=0.1)
        # What is kept as best and last is what the sites were shown, to the bit.
        assert weight(folder / "model.safetensors") == sites.received[2][2]
        assert weight(folder / "last.safetensors") == sites.measured[0][1] == after(folder, 2, "reference")
        assert progress.best_round == 1

    def test_what_the_downlink_rounds_off_comes_later(self, run) -> None:
        # Each round moves the weights by the same 7; int4 cannot say 7 in one go, its errors do not add up.
        _, folder = run(Sites("AB"), federation__rounds=12, exchange__downlink="int4")
        assert after(folder, 12) == pytest.approx(12 * 7.0)
        assert after(folder, 12, "reference") == pytest.approx(12 * 7.0, abs=0.1)

    def test_codec_of_the_uplink_is_the_one_of_the_settings(self, run) -> None:
        with pytest.raises(Exception, match=r"A: sent weights as int8, wanted float32"):
            run(Sites("AB", codec="int8"))
