# SPDX-License-Identifier: Apache-2.0
"""A site's memory: in deployment every message is a new process, and any of them can be killed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from client import private as private_module
from client import site as site_module
from client.site import Site
from pasta_model.errors import CheckpointError, StaleWeightsError
from pasta_model.exchange.contents import Parcel, TrainTask
from pasta_model.exchange.vectors import digest
from tests.support.tasks import SMALL, Leader, vector


@pytest.fixture
def settings(tmp_path: Path, make_settings, make_store):
    make_store()
    return make_settings(data__sites=str(tmp_path / "sites"), **SMALL)


@pytest.fixture
def lossy(settings, make_settings):
    return make_settings(data__sites=settings.data.sites, exchange__uplink="int4", **SMALL)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rounds of every training that really happens."""
    rounds: list[int] = []
    real = private_module.train_steps

    def count(*arguments, place, **keywords):
        rounds.append(place.round)
        return real(*arguments, place=place, **keywords)

    monkeypatch.setattr(private_module, "train_steps", count)
    return rounds


def site(settings) -> Site:
    """A new process at the site."""
    return Site(Path(settings.data.sites) / "A", settings)


def files(settings) -> list[str]:
    state = Path(settings.data.sites) / "A" / "state"
    return sorted(
        str(p.relative_to(state).as_posix()).split("/", 1)[1] for p in state.rglob("*") if p.is_file()
    )


def same(one: Parcel, other: Parcel) -> bool:
    assert one.values == other.values
    assert one.arrays.keys() == other.arrays.keys()
    return all(
        one.arrays[n].dtype == other.arrays[n].dtype and np.array_equal(one.arrays[n], other.arrays[n])
        for n in one.arrays
    )


class TestTwoRounds:
    def test_second_round_continues_with_the_moments_of_the_first(self, settings, monkeypatch) -> None:
        root = Path(settings.data.sites)
        shutil.copytree(root, root.parent / "single" / "sites")
        leader = Leader(settings)
        leader.follow(site(settings).train(leader.task(0)))
        shutil.copytree(root, root.parent / "forgetful" / "sites")
        second = vector(site(settings).train(leader.task(1)), settings)

        # What AdamW does when it is never taken apart: one optimizer through both rounds.
        kept: list[torch.optim.Optimizer] = []
        real = site_module.make_optimizer

        def one_for_all(network, training):
            fresh = real(network, training)
            if not kept:
                kept.append(fresh)
                return fresh
            for group, new in zip(kept[0].param_groups, fresh.param_groups, strict=True):
                for old, parameter in zip(group["params"], new["params"], strict=True):
                    kept[0].state[parameter] = kept[0].state.pop(old, {})
                group["params"] = new["params"]
            return kept[0]

        with monkeypatch.context() as patch:
            patch.setattr(site_module, "make_optimizer", one_for_all)
            patch.setattr(site_module, "load_moments", lambda *_: None)
            other = Site(root.parent / "single" / "sites" / "A", settings)
            again = Leader(settings)
            again.follow(other.train(again.task(0)))
            wanted = vector(other.train(again.task(1)), settings)
        np.testing.assert_array_equal(second, wanted)

        (moments,) = (root.parent / "forgetful").rglob("moments.safetensors")
        monkeypatch.setattr(site_module, "load_moments", lambda *_: None)
        forgetful = Site(root.parent / "forgetful" / "sites" / "A", settings).train(leader.task(1))
        assert moments.is_file()
        assert (vector(forgetful, settings) != second).any()

    def test_what_is_on_the_disk(self, settings, lossy) -> None:
        leader = Leader(lossy)
        leader.follow(site(lossy).train(leader.task(0)))
        kept = ("answer.json", *(f"{n}.safetensors" for n in ("answer", "moments", "received", "rest")))
        assert files(lossy) == [f"round-00000/{name}" for name in kept]

    def test_two_rounds_are_kept_and_a_new_run_forgets_them(self, settings) -> None:
        leader = Leader(settings)
        for number in range(4):
            leader.follow(site(settings).train(leader.task(number)))
        assert {name.split("/")[0] for name in files(settings)} == {"round-00002", "round-00003"}
        site(settings).train(Leader(settings).task(0))
        assert {name.split("/")[0] for name in files(settings)} == {"round-00000"}

    def test_report_tells_the_last_weights_that_were_received(self, settings) -> None:
        leader = Leader(settings)
        assert site(settings).report().holds == leader.base
        leader.follow(site(settings).train(leader.task(0)))
        received = digest(leader.weights.values())
        site(settings).train(leader.task(1))
        assert site(settings).report().holds == received

    def test_steps_may_begin_at_either_of_the_two_rounds(self, settings) -> None:
        leader = Leader(settings)
        first = leader.base
        leader.follow(site(settings).train(leader.task(0)))
        step_1, second = leader.steps, digest(leader.weights.values())
        leader.follow(site(settings).train(leader.task(1)))
        target = digest(leader.weights.values())
        for base, steps in ((first, step_1 + leader.steps), (second, leader.steps)):
            task = TrainTask("A", 2, leader.task(2).standardisation, base, target, steps)
            assert site(settings).evaluate(task)
        third = TrainTask("A", 2, leader.task(2).standardisation, "f" * 64, target, leader.steps)
        with pytest.raises(StaleWeightsError, match="does not have the weights ffffffffffff"):
            site(settings).evaluate(third)

    def test_it_makes_no_difference_how_the_weights_came(self, settings) -> None:
        root = Path(settings.data.sites)
        leader = Leader(settings)
        leader.follow(site(settings).train(leader.task(0)))
        shutil.copytree(root, root.parent / "other" / "sites")
        by_step = site(settings).train(leader.task(1))
        whole = Site(root.parent / "other" / "sites" / "A", settings).train(leader.whole(1))
        np.testing.assert_array_equal(vector(by_step, settings), vector(whole, settings))


class TestAskedTwice:
    def test_same_task_same_answer_and_no_training(self, settings, trained) -> None:
        leader = Leader(settings)
        first = site(settings).train(leader.task(0))
        again = site(settings).train(leader.task(0))
        assert trained == [0]
        assert same(first, again)
        # Nor does it matter by which way the weights come.
        assert same(first, site(settings).train(leader.whole(0)))
        assert trained == [0]

    def test_lossy_answer_is_not_rounded_twice(self, lossy, trained) -> None:
        leader = Leader(lossy)
        leader.follow(site(lossy).train(leader.task(0)))
        second = site(lossy).train(leader.task(1))
        assert same(second, site(lossy).train(leader.task(1)))
        assert trained == [0, 1]

    def test_earlier_round_is_answered_as_it_was(self, settings, trained) -> None:
        """A server that was killed asks for at most the round before once more."""
        leader = Leader(settings)
        task = leader.task(0)
        first = site(settings).train(task)
        leader.follow(first)
        site(settings).train(leader.task(1))
        assert same(first, site(settings).train(task))
        assert trained == [0, 1]

    def test_other_weights_are_trained_afresh_from_the_state_before(self, lossy, trained) -> None:
        root = Path(lossy.data.sites)
        leader = Leader(lossy)
        leader.follow(site(lossy).train(leader.task(0)))
        shutil.copytree(root, root.parent / "other" / "sites")
        in_vain = site(lossy).train(leader.task(1))
        leader.weights = {n: buffer + np.float32(1e-3) for n, buffer in leader.weights.items()}
        found = site(lossy).train(leader.whole(1))
        assert trained == [0, 1, 1]
        assert not np.array_equal(vector(found, lossy), vector(in_vain, lossy))
        # A site that was never asked in vain: same moments, same rest of round 0.
        wanted = Site(root.parent / "other" / "sites" / "A", lossy).train(leader.whole(1))
        np.testing.assert_array_equal(vector(found, lossy), vector(wanted, lossy))

    def test_other_standardisation_is_another_task(self, settings, trained) -> None:
        leader = Leader(settings)
        site(settings).train(leader.task(0))
        other = leader.task(0, leader.task(0).standardisation.__class__((60.0,) + (0.0,) * 5, (9.0,) * 6))
        site(settings).train(other)
        assert trained == [0, 0]

    def test_runs_do_not_share_their_memory(self, settings, make_settings, trained) -> None:
        other = make_settings(data__sites=settings.data.sites, run__seed=9, **SMALL)
        assert site(settings).memory.folder != site(other).memory.folder
        site(settings).train(Leader(settings).task(0))
        site(other).train(Leader(other).task(0))
        assert trained == [0, 0]

    def test_name_of_a_run_does_not_lead_out_of_the_store(self, settings, make_settings) -> None:
        path = Path(settings.data.sites) / "A"
        state = None
        try:
            state = Site(path, make_settings(run__name="../../../elsewhere", **SMALL)).memory.folder
        except Exception:  # noqa: BLE001  # refused in whatever way
            return
        assert path.resolve() in state.resolve().parents


class TestKilled:
    @pytest.mark.parametrize(
        "place", ["write_vector", "train_steps", "save_moments", "encode_step", "write_answer"]
    )
    def test_no_half_round_is_left_and_the_answer_is_the_same(self, lossy, monkeypatch, place: str) -> None:
        root = Path(lossy.data.sites)
        leader = Leader(lossy)
        leader.follow(site(lossy).train(leader.task(0)))
        shutil.copytree(root, root.parent / "undisturbed" / "sites")
        before = files(lossy)

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(private_module if place == "train_steps" else site_module, place, killed)
            with pytest.raises(KeyboardInterrupt):
                site(lossy).train(leader.task(1))
        assert files(lossy) == before
        found = site(lossy).train(leader.task(1))
        wanted = Site(root.parent / "undisturbed" / "sites" / "A", lossy).train(leader.task(1))
        np.testing.assert_array_equal(vector(found, lossy), vector(wanted, lossy))

    def test_what_a_killed_process_left_half_written_goes(self, settings) -> None:
        """SIGKILL runs no cleanup; the half round is no round, and does not stay for ever."""
        half = site(settings).memory.folder / ".partial-abc"
        half.mkdir(parents=True)
        (half / "received.safetensors").write_bytes(b"half")
        assert site(settings).report().holds == Leader(settings).base
        site(settings).train(Leader(settings).task(0))
        assert not half.exists()

    def test_what_a_process_left_that_was_killed_once_its_round_was_kept_goes(self, settings) -> None:
        """No later round may come that would clear it: the last one is only answered again."""
        leader = Leader(settings)
        site(settings).train(leader.task(0))
        half = site(settings).memory.folder / ".partial-abc"
        half.mkdir()
        site(settings).train(leader.task(0))
        assert not half.exists()

    def test_damaged_answer_is_named(self, settings) -> None:
        leader = Leader(settings)
        site(settings).train(leader.task(0))
        (path,) = site(settings).memory.folder.rglob("answer.json")
        path.write_text("{")
        with pytest.raises(CheckpointError, match=r"round-00000: cannot be read.*remove this folder"):
            site(settings).train(leader.task(0))


class TestErrorFeedback:
    def test_sum_of_the_sent_updates_follows_the_sum_of_the_true_ones(self, lossy, monkeypatch) -> None:
        """The rest of every round is in the next one's update, to the bit."""
        real = site_module.encode_step
        wanted: list[np.ndarray] = []
        left: list[np.ndarray] = []

        def note(codec, differences):
            given = list(differences)
            step, rest = real(codec, given)
            wanted.append(np.concatenate([values for _, values in given]))
            left.append(np.concatenate(list(rest.values())))
            return step, rest

        monkeypatch.setattr(site_module, "encode_step", note)
        leader = Leader(lossy)
        sent = [leader.follow(site(lossy).train(leader.task(number))) for number in range(3)]
        # true[n] = sent[n] + rest[n] - rest[n - 1], so all that was ever lost is the last rest.
        asked, rests = np.array(wanted), np.array(left)
        np.testing.assert_array_equal(asked, np.array(sent) + rests)
        true = asked - np.concatenate([np.zeros_like(rests[:1]), rests[:-1]])
        lost = true.sum(axis=0) - np.array(sent).sum(axis=0)
        np.testing.assert_allclose(lost, rests[-1], atol=1e-6)
        assert np.abs(rests[-1]).max() > 0

    def test_without_a_memory_of_the_rest_the_next_update_differs(self, lossy) -> None:
        root = Path(lossy.data.sites)
        leader = Leader(lossy)
        leader.follow(site(lossy).train(leader.task(0)))
        shutil.copytree(root, root.parent / "other" / "sites")
        second = vector(site(lossy).train(leader.task(1)), lossy)
        (rest,) = (root.parent / "other").rglob("rest.safetensors")
        rest.unlink()
        without = vector(Site(root.parent / "other" / "sites" / "A", lossy).train(leader.task(1)), lossy)
        assert not np.array_equal(second, without)

    def test_nothing_is_kept_where_nothing_is_rounded(self, settings) -> None:
        site(settings).train(Leader(settings).task(0))
        assert not [name for name in files(settings) if "rest" in name]
