# SPDX-License-Identifier: Apache-2.0
"""Norms and familiarity at the end of a whole federation in one process: real sites, files and rounds."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import client.private
import client.reference
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.familiarity import model as familiarity_model
from pasta_model.familiarity.features import COUNT
from pasta_model.norms.model import Norms
from pasta_model.norms.people import people_of_store
from pasta_model.norms.sums import NormSums
from server import reference, rounds
from server.rounds import Federation
from simulation.direct import DirectPost
from tests.support.people import SPACING, let_brains_be_balls, write_site
from tests.support.tasks import SMALL

ALL = {"partition-id": 0, "num-partitions": 1}


def quantiles(mri: np.ndarray, _: object) -> np.ndarray:
    """Features of an MRI that take no time."""
    return np.quantile(mri[20:26], np.linspace(0.5, 1.0, COUNT)).astype(np.float64)


@pytest.fixture(autouse=True)
def balls(monkeypatch: pytest.MonkeyPatch) -> None:
    let_brains_be_balls(monkeypatch)
    monkeypatch.setattr(familiarity_model, "PERSONS_PER_FEATURE", 0)
    monkeypatch.setattr(client.reference, "features_of_crop", quantiles)  # quick


@pytest.fixture
def stores(tmp_path: Path) -> list[SiteStore]:
    """Three sites; `cedar` has four normal persons, too few for norms."""
    root = tmp_path / "sites"
    return [write_site(root, "alder"), write_site(root, "birch"), write_site(root, "cedar", normal=4)]


@pytest.fixture
def run(tmp_path: Path, stores, make_settings: Callable[..., Settings]) -> Callable[..., Path]:
    def start(name: str = "run", **changes: bool | float | str) -> Path:
        asked = {
            "run__name": name,
            "run__output": str(tmp_path / name),
            "data__sites": str(tmp_path / "sites"),
            "federation__rounds": 1,
            "federation__validation_slabs": 8,
            "federation__patience": 0.0,
            "federation__reference": "both",
            "run__resume": True,
        }
        settings = make_settings(**(SMALL | asked | changes))
        Federation(DirectPost(settings, ALL), settings).run()
        return tmp_path / name

    return start


def told(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def last(folder: Path) -> dict:
    return json.loads((folder / "history.jsonl").read_text().splitlines()[-1])


def content(path: Path) -> dict[str, bytes]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def test_a_run_ends_with_norms_of_all_who_may_be_in_them(run, stores) -> None:
    folder = run()
    found = Norms.load(folder / "norms.safetensors")
    people = [person for store in stores[:2] for person in people_of_store(store)]
    wanted = Norms.of(NormSums.of(people, spacing=SPACING))
    assert (found.persons, found.sites) == (12, ("alder", "birch"))
    np.testing.assert_allclose(found.level, wanted.level, atol=1e-5)
    np.testing.assert_allclose(found.spread, wanted.spread, rtol=5e-4)  # 0.02 SUVR of it, and float32
    assert last(folder)["references"] == {
        "norms": ["alder", "birch"], "familiarity": ["alder", "birch", "cedar"],
    }  # fmt: skip
    status = told(folder)
    assert status["state"] == "finished"
    assert "sums over 4 person(s) would leave" in status["references"]["norms"]["left_out"]["cedar"]
    assert status["references"]["familiarity"]["persons"] == 8 + 8 + 6
    assert (folder / "familiarity.safetensors").is_file()
    assert (folder / "last.safetensors").is_file()


def test_a_run_that_does_not_ask_has_neither(run) -> None:
    folder = run(federation__reference="none")
    assert not {"norms.safetensors", "familiarity.safetensors"} & {path.name for path in folder.iterdir()}
    assert last(folder)["references"] == {}
    assert "references" not in told(folder)


def test_norms_that_cannot_be_made_do_not_end_the_run(run) -> None:
    folder = run(federation__min_sites=3)
    assert told(folder)["state"] == "finished"
    assert "sums of 2 site(s) (alder, birch), wanted at least 3" in told(folder)["references"]["norms"]["why"]
    assert last(folder)["references"] == {"norms": [], "familiarity": ["alder", "birch", "cedar"]}


def test_a_held_out_site_contributes_nothing(run) -> None:
    folder = run(federation__held_out="birch", federation__reference="familiarity")
    assert last(folder)["references"] == {"familiarity": ["alder", "cedar"]}
    assert last(folder)["valid_mae"].keys() == {"alder", "birch", "cedar"}
    assert told(folder)["references"]["familiarity"]["left_out"] == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "name"),
    [(reference, "_write"), (reference.References, "_written"), (rounds.RunFolder, "finish")],
    ids=["before it is written", "before it is added up", "after it is written"],
)
def test_killed_after_the_last_round_it_asks_again_and_gets_the_kept_answers(
    run, stores, monkeypatch, place, name: str
) -> None:
    undisturbed = run(federation__reference="norms")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, name, killed)
        with pytest.raises(KeyboardInterrupt):
            run("killed", federation__reference="norms")
    assert not (undisturbed.with_name("killed") / "last.safetensors").exists()
    for store in stores:  # what the sites have is other now, and they make nothing anew
        path = store.path / "pet.npy"
        np.save(path, np.load(path) * np.float16(0.5))
    monkeypatch.setattr(client.reference, "people_of_store", None)
    monkeypatch.setattr(client.private, "train_steps", None)
    folder = run("killed", federation__reference="norms")
    wanted, found = (content(path / "norms.safetensors") for path in (undisturbed, folder))
    assert found == wanted
    assert last(folder)["references"] == {"norms": ["alder", "birch"]}
    assert not list(folder.rglob(".partial-*"))


def test_a_finished_run_may_be_asked_later(run) -> None:
    """Asking shapes no weights: it is the same run."""
    run(federation__reference="none")
    folder = run(federation__reference="norms")
    assert last(folder)["references"] == {"norms": ["alder", "birch"]}
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
