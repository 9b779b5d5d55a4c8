# SPDX-License-Identifier: Apache-2.0
"""A whole federation in this process: two small sites, two rounds, real network and real files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import client.private
import client.site
from pasta_model.checkpoint import Checkpoint, load_checkpoint
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Moments, clinical_table
from pasta_model.data.store import SiteStore
from pasta_model.errors import CheckpointError, FederationError
from pasta_model.training import Place
from server.records import Progress
from server.rounds import Federation
from simulation.direct import DirectPost

ALL = {"partition-id": 0, "num-partitions": 1}  # one node that serves every site

Run = Callable[..., tuple[Path, Progress]]


@pytest.fixture
def stores(make_store: Callable[..., SiteStore]) -> list[SiteStore]:
    return [make_store("alder"), make_store("birch")]


@pytest.fixture
def run(tmp_path: Path, stores: list[SiteStore], make_settings: Callable[..., Settings]) -> Run:
    """Run a federation of both sites into a folder; the site's own state goes by the name of the run."""

    def start(name: str = "first", **changes: bool | float | str) -> tuple[Path, Progress]:
        places = {
            "run__name": name,
            "run__output": str(tmp_path / name),
            "data__sites": str(tmp_path / "sites"),
        }
        settings = make_settings(**({"training__local_steps": 1} | places | changes))
        return tmp_path / name, Federation(DirectPost(settings, ALL), settings).run()

    return start


def equal(first: Checkpoint, second: Checkpoint) -> bool:
    assert first.state.keys() == second.state.keys()
    return all(torch.equal(first.state[name], second.state[name]) for name in first.state)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def history(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def test_history_has_each_round_of_each_site_and_the_last_measurement(run: Run) -> None:
    output, progress = run()
    rounds = history(output)
    assert [record["round"] for record in rounds] == [0, 1, 2]
    for record in rounds:
        assert sorted(record["valid_mae"]) == ["alder", "birch"]
        assert record["shares"] == {"alder": 0.5, "birch": 0.5}
        assert record["failures"] == {}
    assert [sorted(record["loss"]) for record in rounds] == [["alder", "birch"]] * 2 + [[]]
    assert len(progress.history) == 3


def test_best_model_is_the_one_that_validated_best(run: Run) -> None:
    output, progress = run()
    means = [sum(record["valid_mae"].values()) / 2 for record in history(output)]
    best = min(range(3), key=means.__getitem__)
    assert (progress.best_round, progress.best_mae) == (best, pytest.approx(means[best]))
    assert load_checkpoint(output / "model.safetensors").round == best


def test_last_model_is_that_of_the_last_round_and_all_sites_shape_it(run: Run) -> None:
    output, _ = run()
    last = load_checkpoint(output / "last.safetensors")
    assert last.round == 2
    for name in ("reference", "master"):  # nothing is compressed: what the sites know is what there is
        kept = load_checkpoint(output / "rounds" / "after-00002" / f"{name}.safetensors")
        assert equal(last, kept)
    first = load_checkpoint(output / "rounds" / "after-00001" / "reference.safetensors")
    assert not equal(last, first)


def test_standardisation_is_that_of_all_training_rows_together(run: Run, stores: list[SiteStore]) -> None:
    output, _ = run()
    rows = [store.entries[i].clinical for store in stores for i in store.indices("train")]
    assert len(rows) == 6
    wanted = Moments.of(clinical_table(rows, SCHEMES["adni"])).standardisation()
    found = load_checkpoint(output / "last.safetensors").standardisation
    assert found.mean == pytest.approx(wanted.mean)
    assert found.spread == pytest.approx(wanted.spread)
    assert found.mean[0] == pytest.approx(sum(row["age"] for row in rows) / 6)


def test_same_seed_gives_the_same_weights_and_another_gives_others(run: Run) -> None:
    outputs = [run(str(n), federation__rounds=1, run__seed=seed)[0] for n, seed in enumerate((5, 5, 7))]
    first, again, other = (load_checkpoint(output / "last.safetensors") for output in outputs)
    assert equal(first, again)
    assert not equal(first, other)


@pytest.mark.parametrize("site", ["alder", "birch"])
def test_run_that_was_stopped_in_its_second_round_ends_with_the_same_weights(
    site: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = run("undisturbed", federation__rounds=3)
    train_steps = client.private.train_steps

    def stop(*arguments: object, place: Place, **keywords: object) -> float:
        if (place.site, place.round) == (site, 1):
            raise KeyboardInterrupt
        return train_steps(*arguments, place=place, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(client.private, "train_steps", stop)
        with pytest.raises(KeyboardInterrupt):
            run("stopped", federation__rounds=3)
    trained = []

    def count(*arguments: object, place: Place, **keywords: object) -> float:
        trained.append((place.round, place.site))
        return train_steps(*arguments, place=place, **keywords)

    monkeypatch.setattr(client.private, "train_steps", count)
    stopped, _ = run("stopped", federation__rounds=3, run__resume=True)
    # Round 0 is not repeated; and alder, who had answered before birch stopped, gives its answer again.
    again = [(1, "alder")] if site == "alder" else []
    assert trained == [*again, (1, "birch"), (2, "alder"), (2, "birch")]
    for name in ("last", "average", "model"):
        wanted, found = (load_checkpoint(output / f"{name}.safetensors") for output in (undisturbed, stopped))
        assert equal(wanted, found), name
        assert wanted.round == found.round
        assert wanted.standardisation == found.standardisation
    measured = [[(r["round"], r["loss"], r["valid_mae"]) for r in history(o)] for o in (undisturbed, stopped)]
    assert measured[0] == measured[1]


def test_run_that_was_stopped_before_its_last_measurement_only_measures(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, _ = run("undisturbed")
    with monkeypatch.context() as patch:
        patch.setattr(client.site.Site, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    last = undisturbed.with_name("stopped") / "last.safetensors"
    assert not last.exists()
    monkeypatch.setattr(client.private, "train_steps", None)  # training again would be a TypeError
    run("stopped", run__resume=True)
    assert equal(load_checkpoint(undisturbed / "last.safetensors"), load_checkpoint(last))


def test_run_without_resume_starts_again(run: Run) -> None:
    output, _ = run("first", federation__rounds=1)
    first = load_checkpoint(output / "last.safetensors")
    run("first", federation__rounds=1)
    assert equal(first, load_checkpoint(output / "last.safetensors"))
    assert len(history(output)) == 2
    aside = output.with_name(f"{output.name}-1")
    assert equal(first, load_checkpoint(aside / "last.safetensors")), "an earlier run is never lost"


def test_resuming_with_other_settings_is_refused(run: Run) -> None:
    run("first", federation__rounds=1)
    with pytest.raises(CheckpointError, match=r"made with other settings.*run\.resume=false"):
        run("first", federation__rounds=1, run__resume=True, training__learning_rate=0.5)


def test_site_that_fails_is_left_out_and_named_where_enough_are_left(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = client.site.Site.train

    def fail(self: client.site.Site, task: object) -> object:
        if self.store.site == "birch":
            raise FederationError("out of paper")
        return train(self, task)

    monkeypatch.setattr(client.site.Site, "train", fail)
    output, _ = run("first", federation__rounds=1, federation__min_sites=1)
    first, _ = history(output)
    assert list(first["loss"]) == ["alder"]
    assert first["failures"] == {"birch": "FederationError: out of paper"}
    with pytest.raises(
        FederationError, match=r"round 0: 1 usable answer\(s\), wanted at least 2; birch: .*out of paper"
    ):
        run("second", federation__rounds=1, federation__patience=0.0)


def test_too_few_sites_are_refused_and_the_status_says_why(run: Run, tmp_path: Path) -> None:
    with pytest.raises(FederationError, match=r"2 site\(s\) joined \(alder, birch\), wanted at least 3"):
        run("first", federation__min_sites=3)
    status = json.loads((tmp_path / "first" / "status.json").read_text())
    assert status["state"] == "failed"
    assert "wanted at least 3" in status["why"]
    assert sorted(p.name for p in (tmp_path / "first").iterdir()) == ["events.jsonl", "status.json"]
    # What is there to read is no run: the next start does not put it aside.
    run("first", federation__rounds=1)
    assert not (tmp_path / "first-1").exists()
