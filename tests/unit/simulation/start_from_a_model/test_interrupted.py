# SPDX-License-Identifier: Apache-2.0
"""A federation that goes on from a model, although a run was killed or a site forgot it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import client.site
from client.site import Site
from client.weights import START
from pasta_model.errors import CheckpointError
from pasta_model.network.parts import members
from tests.support.starts import (
    MODELS,
    SMALL,
    Make,
    Run,
    floats,
    history,
    same,
    site_folders,
    state,
    write_model,
)


class TestResumed:
    def test_after_a_kill_it_ends_with_the_same_although_the_model_is_gone(
        self, run: Run, initial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = run("undisturbed", exchange__trained="norms, clinical")
        train = client.site.Site.train

        def stop(self: Site, task) -> object:
            if (task.site, task.round) == ("birch", 1):
                raise KeyboardInterrupt
            return train(self, task)

        with monkeypatch.context() as patch:
            patch.setattr(client.site.Site, "train", stop)
            with pytest.raises(KeyboardInterrupt):
                run("killed", exchange__trained="norms, clinical")
        (tmp_path / "initial.safetensors").unlink()
        here = run("killed", exchange__trained="norms, clinical", run__resume=True)
        for name in MODELS:
            assert same(state(here, name), state(there, name))

    def test_without_the_kept_parts_it_is_one_clear_message(self, run: Run, initial) -> None:
        output = run(exchange__trained="norms", federation__rounds=1)
        (output / "last.safetensors").unlink()
        (output / "rounds" / "start.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"start\.safetensors: not a readable"):
            run(exchange__trained="norms", federation__rounds=1, run__resume=True)


@pytest.mark.slow
class TestForgetfulSite:
    @pytest.fixture
    def disturbed(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
        """Do something to a site's folder before it is asked to train its second round."""

        def start(name: str, disturb: Callable[[Path], None], **changes: object) -> Path:
            train, done = client.site.Site.train, []

            def first(self: Site, task) -> object:
                if (task.site, task.round) == ("birch", 1) and not done:
                    done.append(task)
                    disturb(self.memory.folder)
                return train(self, task)

            monkeypatch.setattr(client.site.Site, "train", first)
            output = run(name, **changes)
            assert done
            return output

        return start

    @pytest.mark.parametrize("damage", ["removed", "torn", "other values"])
    def test_is_sent_again_what_the_model_says_of_the_rest(
        self, run: Run, disturbed, initial, damage: str
    ) -> None:
        def spoil(folder: Path) -> None:
            path = folder / START
            content = path.read_bytes()
            path.unlink()
            if damage != "removed":
                path.write_bytes(content[:-4] + (b"" if damage == "torn" else b"\0\0\0\1"))

        there = run("undisturbed", exchange__trained="norms")
        here = disturbed("disturbed", spoil, exchange__trained="norms")
        assert same(state(here), state(there)), "its moments were still there"
        whole, norms = (4 * floats(*n, of=initial) for n in (initial, members(initial, ["norms"])))
        assert history(here)[1]["bytes_down"] == {"alder": norms, "birch": norms + whole}
        assert history(here)[1]["failures"] == {}

    def test_that_lost_everything_is_sent_everything(self, disturbed, initial) -> None:
        output = disturbed("disturbed", shutil.rmtree, exchange__trained="norms")
        whole, norms = (4 * floats(*n, of=initial) for n in (initial, members(initial, ["norms"])))
        assert [r["bytes_down"]["birch"] for r in history(output)] == [whole, norms + whole, norms]
        assert all(r["failures"] == {} for r in history(output))

    def test_the_parts_outlive_old_rounds(self, run: Run, initial, settings_of: Make) -> None:
        output = run(exchange__trained="norms", federation__rounds=4)
        assert [r["bytes_down"]["alder"] for r in history(output)][1:] == [
            4 * floats(*members(initial, ["norms"]), of=initial)
        ] * 4
        for folder in site_folders(settings_of(exchange__trained="norms", federation__rounds=4)):
            assert len(list(folder.glob("round-*"))) == 2
            assert (folder / START).is_file()


@pytest.mark.slow
def test_another_model_under_the_same_name_is_not_answered_with_the_old_answer(
    run: Run, initial, tmp_path: Path, make_settings: Make
) -> None:
    """Fresh adapters are the same for every model, so what is exchanged does not tell them apart."""
    chosen = {"exchange__trained": "adapters", "network__adapter_rank": 2, "federation__rounds": 1}
    one = state(run(**chosen))
    other = write_model(tmp_path / "initial.safetensors", make_settings(run__seed=9, **SMALL), seed=8)
    two = state(run(**chosen))
    assert all(torch.equal(two[name], other[name]) for name in other)
    adapters = members(one, ["adapters"])
    assert not same({n: one[n] for n in adapters}, {n: two[n] for n in adapters})
    fresh = state(run("elsewhere", **chosen))
    assert same(two, fresh)
