# SPDX-License-Identifier: Apache-2.0
"""Held-out sites, and every site's model on every site's data, by hand."""

import json
from typing import ClassVar

import numpy as np
import pytest

from pasta_model.errors import FederationError
from server.records import RunFolder
from tests.support.sites import ADDS, Sites, message_of, parcel_of, refusing, spoil, weight


class Aiming(Sites):
    """The error of weights is how far they are from the site's own best weights."""

    AIM: ClassVar = {"A": 4.0, "B": 8.0, "C": -2.0, "D": 6.0}

    def error(self, task, weights: float) -> float:
        return abs(weights - self.AIM[task.site])


class TestHeldOut:
    def test_held_out_site_never_trains_and_is_measured(self, run) -> None:
        sites = Sites("ABC")
        progress, folder = run(sites, federation__held_out="C")
        assert {site for site, _ in sites.trained} == {"A", "B"}
        assert weight(folder / "last.safetensors") == 14.0
        assert sites.measured == [("A", 14.0), ("B", 14.0), ("C", 14.0)]
        assert set(progress.history[-1].valid_mae) == {"A", "B", "C"}
        assert all("C" not in record.shares for record in progress.history)

    def test_its_clinical_sums_and_its_error_shape_nothing(self, run) -> None:
        class Lucky(Sites):
            def error(self, task, weights: float) -> float:
                return 0.0 if task.site == "C" else super().error(task, weights)

        with_it, _ = run(Lucky("ABC"), federation__held_out="C", output="1")
        without, _ = run(Sites("AB"), output="2")
        assert with_it.standardisation == without.standardisation
        assert (with_it.best_round, with_it.best_mae) == (without.best_round, without.best_mae)

    def test_it_may_have_no_training_subject(self, run) -> None:
        def none(message, reply):
            if message.metadata.message_type != "query.join":
                return reply
            parcel = parcel_of(reply)
            if parcel.values["site"] == "C":
                parcel.values["train-subjects"] = 0
                parcel.arrays.update({name: np.zeros(3) for name in parcel.arrays})
            return message_of(parcel, message)

        progress, _ = run(Sites("ABC"), tamper=none, federation__held_out="C")
        assert "C" in progress.history[-1].valid_mae

    def test_it_does_not_count_for_the_quorum(self, run) -> None:
        with pytest.raises(FederationError, match=r"1 site\(s\) joined \(A, B\), wanted at least 2"):
            run(Sites("AB"), federation__held_out="B")

    def test_several(self, run) -> None:
        sites = Sites("ABCD")
        run(sites, federation__held_out="D, C")
        assert {site for site, _ in sites.trained} == {"A", "B"}


def matrix(folder) -> dict[str, dict[str, float]]:
    return json.loads((folder / "cross-evaluation.json").read_text())


class TestCrossEvaluation:
    def test_matrix_by_hand(self, run) -> None:
        sites = Aiming("ABC")
        _, folder = run(sites, federation__rounds=1, federation__cross_evaluation=True)
        # After one round from zero A's model is 4, B's 8, C's -2; how far is that from where each aims?
        assert matrix(folder) == {
            model: {site: abs(ADDS[model] - sites.AIM[site]) for site in "ABC"} for model in "ABC"
        }

    def test_models_are_those_of_the_last_round_not_of_the_average(self, run) -> None:
        sites = Aiming("AB")
        _, folder = run(sites, federation__rounds=2, federation__cross_evaluation=True)
        # Both received 7 in the last round: A's model is 11, B's 15.
        assert matrix(folder) == {"A": {"A": 7.0, "B": 3.0}, "B": {"A": 11.0, "B": 7.0}}
        assert weight(folder / "last.safetensors") == 14.0

    def test_held_out_sites_measure_all_models_and_have_none(self, run) -> None:
        sites = Aiming("ABC")
        _, folder = run(sites, federation__held_out="C", federation__cross_evaluation=True)
        found = matrix(folder)
        assert set(found) == {"A", "B"}
        assert all(set(row) == {"A", "B", "C"} for row in found.values())
        assert found["A"]["C"] == 13.0

    def test_site_that_missed_the_last_round_measures_all_the_same(self, run) -> None:
        sites = Aiming("ABC")
        _, folder = run(sites, tamper=spoil("C", 1, refusing), federation__cross_evaluation=True)
        found = matrix(folder)
        assert set(found) == {"A", "B"}
        assert all(set(row) == {"A", "B", "C"} for row in found.values())

    def test_it_is_off_unless_asked_for(self, run) -> None:
        _, folder = run()
        assert not (folder / "cross-evaluation.json").exists()

    def test_killed_in_the_middle_it_is_done_again(self, run, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:

            def killed(*_: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(RunFolder, "finish", killed)
            with pytest.raises(KeyboardInterrupt):
                run(Aiming("AB"), federation__cross_evaluation=True)
        _, folder = run(Aiming("AB"), federation__cross_evaluation=True, run__resume=True)
        assert matrix(folder) == {"A": {"A": 7.0, "B": 3.0}, "B": {"A": 11.0, "B": 7.0}}

    def test_the_same_command_once_more_does_not_lose_it(self, run) -> None:
        _, folder = run(Aiming("AB"), federation__cross_evaluation=True)
        before = matrix(folder)
        run(Aiming("AB"), federation__cross_evaluation=True, run__resume=True)
        assert matrix(folder) == before

    def test_updates_of_sites_do_not_stay_when_the_run_has_ended(self, run) -> None:
        _, folder = run(Aiming("AB"), federation__cross_evaluation=True)
        assert not list((folder / "rounds").glob("answers-*"))

    def test_lossy_updates(self, run) -> None:
        sites = Aiming("AB", codec="int8")
        _, folder = run(
            sites, federation__rounds=1, federation__cross_evaluation=True, exchange__uplink="int8"
        )
        assert matrix(folder)["B"]["A"] == pytest.approx(4.0, abs=0.1)
