# SPDX-License-Identifier: Apache-2.0
"""Training jobs of a study: resumable, each with its own view of the stores, every method its budget."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from client.people import default_ledger
from pasta_model.checkpoint import load_checkpoint
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.errors import ConfigError
from simulation.study import training
from simulation.study.methods import METHODS, Method
from simulation.study.sections import spent_table
from simulation.study.training import LINKED, TrainJob, linked, model_of, train
from tests.unit.conftest import SMALLEST

MakeJob = Callable[..., TrainJob]


@pytest.fixture
def make_job(
    tmp_path: Path, make_store: Callable[..., SiteStore], make_settings: Callable[..., Settings]
) -> MakeJob:
    """Return a job of two sites; the pool is a third store, of both."""
    stores = {name: make_store(name).path for name in ("alder", "birch")}
    pool = make_store("pooled").path

    def make(method: str, only: str = "", **changes: bool | float | str) -> TrainJob:
        found = METHODS[method]
        quick: dict[str, bool | float | str] = {
            "network__shape": SMALLEST,
            "sampling__hop": 4,
            "run__seed": 3,
        }
        own = {k.replace(".", "__").replace("-", "_"): v for k, v in found.changes.items()}
        settings = make_settings(**(quick | own | changes))
        return TrainJob(found, settings, stores, pool, tmp_path / "runs" / found.folder, only)

    return make


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path).state)


def test_a_run_sees_the_stores_and_leaves_nothing_in_them(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("fedavg")
    train(job)
    for site, store in job.stores.items():
        assert not (store / "state").exists()
        view = job.folder / "sites" / site
        assert all((view / name).resolve() == (store / name).resolve() for name in LINKED)
        assert (view / "state").is_dir()
        assert SiteStore(view).entries == SiteStore(store).entries
    assert "not a medical device" in (job.output / "MODEL_CARD.md").read_text(encoding="utf-8")
    again = linked(job.stores, job.folder / "sites")
    assert again == {site: job.folder / "sites" / site for site in job.stores}


def test_what_is_done_is_not_done_again_and_other_settings_are_refused(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("fedavg")
    train(job)
    assert job.done
    assert job.rounds_done() == job.rounds
    monkeypatch.setattr(training, "_together", lambda job: pytest.fail("trained twice"))
    train(job)
    with pytest.raises(ConfigError, match="trained with other settings"):
        train(replace(job, settings=make_job("fedavg", training__learning_rate=5e-3).settings))
    with pytest.raises(ConfigError, match="another name"):
        train(replace(job, method=replace(job.method, name="another method")))


def test_a_pool_sees_as_many_slabs_as_all_sites_together(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Settings] = []
    monkeypatch.setattr(training, "train_alone", lambda store, settings, output: seen.append(settings))
    for name, only in (("pooled", ""), ("alone", "birch")):
        job = make_job(name, only)
        job.output.mkdir(parents=True)
        train(job)
    assert [s.total_steps for s in seen] == [2 * job.settings.total_steps, job.settings.total_steps]


def test_a_site_alone_equals_a_federation_of_it_alone(make_job: MakeJob) -> None:
    job = make_job("alone", "birch")
    train(job)
    lonely = replace(make_job("fedavg"), stores={"birch": job.stores["birch"]})
    train(lonely)
    alone, together = (weights(model_of(j, "birch")) for j in (job, lonely))
    assert all(torch.equal(alone[name], together[name]) for name in alone)
    assert (job.folder / "run" / "birch" / "history.jsonl").is_file()


def test_each_site_of_a_personalised_run_has_a_model_of_its_own(make_job: MakeJob) -> None:
    job = make_job("personalised")
    train(job)
    alder, birch = (weights(model_of(job, site)) for site in ("alder", "birch"))
    different = {name for name in alder if not torch.equal(alder[name], birch[name])}
    assert different
    assert all("norm" in name for name in different)
    assert model_of(job, "a held-out site") == job.output / "model.safetensors"


@pytest.mark.slow
def test_a_private_run_pays_at_its_own_view_of_a_site(make_job: MakeJob) -> None:
    job = make_job("private", privacy__subjects_per_step=1, federation__rounds=1)
    train(job)
    for site, store in job.stores.items():
        own = default_ledger(job.folder / "sites" / site).read_text(encoding="utf-8")
        assert '"released"' in own
        assert not default_ledger(store).exists(), "what a study spends is not spent of the site's own budget"
    told = [[cell.text for cell in row] for row in spent_table([job]).rows[0].rows]
    assert [row[:4] for row in told] == [["private", "3", site, "3"] for site in ("alder", "birch")]
    assert all(0 < float(row[4]) <= float(row[7]) == 8.0 for row in told)


def test_names_of_folders_are_plain() -> None:
    odd = Method("a/b c,d", "mean", "ablations", "")
    assert odd.folder == "a-b-c-d"
