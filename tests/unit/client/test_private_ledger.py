# SPDX-License-Identifier: Apache-2.0
"""A site whose ledger is changed, or held by another run: nothing is trained nor told."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from client.ledger import Ledger
from client.memory import run_name
from client.people import default_ledger
from client.private import TRAINING, VALIDATION
from client.site import Site
from pasta_model.errors import FederationError, PolicyError, PrivacyError
from server.rounds import Federation
from simulation.direct import DirectPost
from tests.support.accounting import remember
from tests.support.private_site import (
    content,
    cost,
    ledger_of,
    lines,
    same,
    site,
    spent,
)
from tests.support.tasks import Leader


@pytest.fixture(autouse=True)
def each_history_is_accounted_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember(monkeypatch)


class TestChangedLedger:
    @pytest.mark.parametrize("what", ["deleted", "edited", "replaced by another site's"])
    def test_nothing_is_trained_nor_told(self, private, trained, what: str) -> None:
        settings = private(privacy__metrics="noised")
        leader = Leader(settings)
        leader.follow(site(settings).train(leader.task(0)))
        path = default_ledger(Path(settings.data.sites) / "A")
        if what == "deleted":
            shutil.rmtree(path.parent)
        elif what == "edited":
            path.write_bytes(path.read_bytes().replace(b'"steps":1', b'"steps":0'))
        else:
            other = Ledger(path.with_name("other"), site="B", witness=path.with_name("witness"))
            other.open_for(["sub-B"])
            for end in ("", ".head"):
                path.with_name("other" + end).replace(path.with_name(path.name + end))
        before = content(settings)
        asked: list[Callable[[Site], object]] = [
            lambda found: found.report(),
            lambda found: found.train(leader.task(1)),
            lambda found: found.train(leader.whole(1)),
            lambda found: found.evaluate(leader.task(1)),
        ]
        for ask in asked:
            with pytest.raises(PrivacyError, match="put it back"):
                ask(site(settings))
        assert trained == [0]
        assert content(settings) == before

    def test_round_whose_answer_stays_here_was_paid_for(self, settings, trained, monkeypatch) -> None:
        """Its moments and personal parts feed the next round, so it counts as released."""
        leader = Leader(settings)

        def stays(*_: object) -> None:
            raise PolicyError("it stays here")

        with monkeypatch.context() as patch:
            patch.setattr(Site, "_let_go", stays)
            for _ in range(2):
                with pytest.raises(PolicyError):
                    site(settings).train(leader.task(0))
        assert trained == [0], "asked again, nothing is trained"
        assert ledger_of(settings).released(run_name(settings), 0, TRAINING) == 1
        assert spent(settings) == pytest.approx(cost(settings, rounds=1), rel=1e-9)

    def test_kept_answer_does_not_leave_either(self, settings, trained) -> None:
        leader = Leader(settings)
        site(settings).train(leader.task(0))
        default_ledger(Path(settings.data.sites) / "A").unlink()
        with pytest.raises(PrivacyError, match="put it back"):
            site(settings).train(leader.task(0))


class TestTwoRunsAtOnce:
    def test_second_is_refused_and_spends_nothing(self, private, trained, tmp_path: Path) -> None:
        settings = private(
            run__output=str(tmp_path / "run"), federation__min_sites=1, federation__patience=0.0
        )
        with ledger_of(settings).alone():
            before = content(settings)
            run = Federation(DirectPost(settings, {"partition-id": 0, "num-partitions": 1}), settings)
            with pytest.raises(FederationError) as error:
                run.run()
        assert str(error.value).count("another run trains on these data now") == 1
        assert "wait until it is done" in str(error.value)
        assert trained == []
        assert content(settings) == before
        assert spent(settings) == 0

    def test_error_is_not_told_while_another_asks_the_ledger(self, private, trained) -> None:
        """Two who read the same account at once would both be told that enough is left."""
        settings = private(privacy__metrics="noised")
        with ledger_of(settings).alone(), pytest.raises(PrivacyError, match="another run trains"):
            site(settings).evaluate(Leader(settings).task(0))
        assert lines(settings, VALIDATION) == []
        site(settings).evaluate(Leader(settings).task(0))
        assert len(lines(settings, VALIDATION)) == 1

    def test_what_was_released_is_given_again_meanwhile(self, settings, trained) -> None:
        first = site(settings).train(Leader(settings).task(0))
        with ledger_of(settings).alone():
            assert same(site(settings).train(Leader(settings).task(0)), first)
