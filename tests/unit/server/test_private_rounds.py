# SPDX-License-Identifier: Apache-2.0
"""Runs whose server adds noise: what is released, what it cost so far, and that no restart forgets it."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from pasta_model.errors import ConfigError, PrivacyError
from server import rounds
from server.commands.status import headline
from server.privacy import SiteNoise
from server.records import Progress, RoundRecord
from tests.support.sites import Sites, after, spoil, weight, with_arrays

SIGMA = 6.0
PRIVATE = {
    "privacy__unit": "site",
    "aggregation__shares": "equal",
    "privacy__noise_multiplier": SIGMA,
    "federation__rounds": 3,
}
ONE, TWO, THREE = (SiteNoise(SIGMA, 1.0, 1e-4).spent(number) for number in (1, 2, 3))


def nothing(count: int) -> np.ndarray:
    """In the place of noise."""
    return np.zeros(count)


def history(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]


def events(folder: Path, kind: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def test_weights_by_hand(run) -> None:
    # A's four 4s are 8 long, B's four 8s 16: clipped to 1, both are four 0.5s.
    progress, folder = run(normals=nothing, **PRIVATE)
    assert [after(folder, n) for n in (2, 3)] == pytest.approx([1.0, 1.5], abs=1e-5)
    assert progress.history[0].shares == {"A": 0.5, "B": 0.5}
    assert progress.history[0].norms == {"A": 8.0, "B": 16.0}


def test_noise_is_added_before_the_servers_optimizer(run) -> None:
    # Draws of 1 make u = 0.5 + sigma C / n = 3.5 in the first round; momentum: 0.5 x 3.5 + 3.5 in the second.
    _, folder = run(
        normals=np.ones,
        **{**PRIVATE, "federation__rounds": 2},
        aggregation__rule="fedavgm",
        aggregation__momentum=0.5,
    )
    assert [after(folder, n) for n in (1, 2)] == pytest.approx([3.5, 3.5 + 1.5 * 3.5], abs=1e-4)
    assert after(folder, 1, "momentum") == pytest.approx(3.5, abs=1e-4)


def test_clipping_comes_after_decoding(run) -> None:
    # What int8 makes of the update is what is clipped: 0.5 again, to the last bit that the grid has.
    _, folder = run(Sites("AB", codec="int8"), normals=nothing, exchange__uplink="int8", **PRIVATE)
    assert after(folder, 2) == pytest.approx(1.0, abs=1e-5)


def test_same_settings_and_seed_get_other_noise(run) -> None:
    found = [after_all(run(output=str(n), **PRIVATE)[1]) for n in range(2)]
    assert np.abs(found[0] - found[1]).min() > 1e-6


def after_all(folder: Path) -> np.ndarray:
    from pasta_model.checkpoint import load_checkpoint

    return load_checkpoint(folder / "last.safetensors").state["weight"].numpy()


def test_without_privacy_nothing_is_drawn_and_nothing_is_counted(run) -> None:
    def refuse(count: int) -> np.ndarray:
        raise AssertionError("noise was drawn")

    _, folder = run(normals=refuse)
    assert weight(folder / "last.safetensors") == 14.0
    assert {line["epsilon"] for line in history(folder)} == {None}
    assert "privacy" not in json.loads((folder / "status.json").read_text())


def test_epsilon_of_every_round_in_history_and_status(run) -> None:
    _, folder = run(**PRIVATE)
    assert [line["epsilon"] for line in history(folder)] == pytest.approx([ONE, TWO, THREE, THREE])
    status = json.loads((folder / "status.json").read_text())
    assert status["privacy"] == {
        "unit": "site",
        "spent": pytest.approx(THREE),
        "epsilon": 8.0,
        "delta": 1e-4,
    }
    said = headline(status, now=status["time"])
    assert f"privacy of every site: epsilon {THREE:.2f} of 8 spent, delta 0.0001" in said


def test_status_before_the_first_round_is_closed(run, tmp_path: Path) -> None:
    seen: list[float] = []
    sites = Sites("AB")
    sites.on_train = lambda task: seen.append(
        json.loads((tmp_path / "run" / "status.json").read_text())["privacy"]["spent"]
    )
    run(sites, **PRIVATE)
    assert seen[::2] == pytest.approx([0.0, ONE, TWO])


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize(
    ("place", "weights"),
    [
        # A draw of d moves all weights by 0.5 + 3 d. The second was for the round that was killed:
        ("close_round", [0.0, 3.5, 13.0, 25.5]),  # gone, the third is in its place
        ("publish_best", [0.0, 3.5, 10.0, 19.5]),  # kept
    ],
)
def test_round_that_is_closed_twice_is_counted_once_and_told_once(
    run, monkeypatch: pytest.MonkeyPatch, place: str, weights: list[float]
) -> None:
    owner = rounds if place == "close_round" else rounds.RunFolder
    real, draws, sites = getattr(owner, place), iter(range(1, 100)), Sites("AB")

    def killed(first, progress: Progress, *arguments, **words) -> None:
        real(first, progress, *arguments, **words)
        if progress.next_round == 2:
            raise Killed

    def start():
        return run(sites, normals=lambda count: np.full(count, next(draws)), run__resume=True, **PRIVATE)

    with monkeypatch.context() as patch:
        patch.setattr(owner, place, killed)
        with pytest.raises(Killed):
            start()
    _, folder = start()
    assert [line["epsilon"] for line in history(folder)] == pytest.approx([ONE, TWO, THREE, THREE])
    told = {value for _, _, value in sites.received} | {value for _, value in sites.measured}
    assert sorted(told) == pytest.approx(weights, abs=1e-3)


def test_long_update_is_clipped_and_nobody_is_far_out(run) -> None:
    """A yardstick of everybody's norms would let one site's data decide whether another's update counts."""
    long = with_arrays(float32_000=np.full(4, 1e6, np.float32))
    progress, folder = run(Sites("ABC"), tamper=spoil("B", 0, long), normals=nothing, **PRIVATE)
    assert progress.history[0].failures == {}
    assert progress.history[0].norms["B"] == 2e6
    # 0.5, 0.5 and C's -0.5.
    assert after(folder, 2) == pytest.approx(2 * 0.5 / 3, abs=1e-5)


def test_few_sites_are_warned(run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, folder = run(**PRIVATE)
    (said,) = [text for text in caplog.messages if "noise at the server" in text]
    assert (
        "the mean of 2 sites gets noise of standard deviation 6 x 1 / 2 = 3; over 4 weights it is 6" in said
    )
    assert "It will drown the mean" in said
    (event,) = events(folder, "noise")
    assert (event["sites"], event["values"], event["drowns"]) == (2, 4, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"privacy__delta": 0.5}, "privacy.delta is 0.5, wanted less than 1 / sites = 0.5"),
        ({"federation__rounds": 200}, "200 rounds at noise multiplier 6 cost epsilon"),
    ],
)
def test_impossible_privacy_is_refused_before_any_site_is_asked(
    run, tmp_path: Path, change: dict, said: str
) -> None:
    with pytest.raises(PrivacyError, match=said):
        run(**{**PRIVATE, **change})
    assert run.grid.asked == []
    assert not (tmp_path / "run").exists()


def test_unequal_weights_are_refused_before_the_run(run) -> None:
    with pytest.raises(ConfigError, match="the equal-weights rule"):
        run(**{**PRIVATE, "aggregation__shares": "subjects"})


def test_shares_may_be_equal_without_privacy_whatever_the_sites_bring(run) -> None:
    progress, folder = run(Sites("ABC"), aggregation__shares="equal", federation__weight_cap=0.1)
    assert progress.history[0].shares == pytest.approx(dict.fromkeys("ABC", 1 / 3))
    assert weight(folder / "last.safetensors") == pytest.approx(2 * (4 + 8 - 2) / 3, rel=1e-6)
    # The best model is chosen with the same shares.
    assert progress.best_mae == pytest.approx((0.4 + 0.2 + 0.1) / 3 / 2)


def test_history_from_before_there_was_privacy_can_be_read(run) -> None:
    _, folder = run(federation__rounds=1)
    (line, *_) = history(folder)
    del line["epsilon"], line["bytes"]
    assert RoundRecord(**line).epsilon is None
