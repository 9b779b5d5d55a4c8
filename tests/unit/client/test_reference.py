# SPDX-License-Identifier: Apache-2.0
"""What a site tells of its persons: exactly the pooled sums, once a run, over enough, where it wants to."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from flwr.app import Message
from flwr.common.serde import message_to_proto

from client import client_app
from client.answers import answer
from client.reference import contributors
from client.wire import parcel_of
from pasta_model.config import Settings
from pasta_model.data.store import SiteStore
from pasta_model.data.volume import Volume
from pasta_model.errors import CheckpointError, ExchangeError, PolicyError
from pasta_model.exchange.contents import REFERENCE, Parcel
from pasta_model.exchange.departure import check_departure
from pasta_model.exchange.reference import ReferenceReport, ReferenceTask
from pasta_model.familiarity.features import features_of_crop
from pasta_model.norms.resolution import common_resolution
from pasta_model.norms.sums import NormPerson, NormSums, scaled_age
from server.wire import GridPost
from tests.support.grid import InProcessGrid
from tests.support.guarded import POLICY
from tests.support.people import GRID, SPACING, ball, let_brains_be_balls, write_site
from tests.support.tasks import SMALL

BOTH = ["norms", "familiarity"]


@pytest.fixture(autouse=True)
def balls(monkeypatch: pytest.MonkeyPatch) -> None:
    let_brains_be_balls(monkeypatch)


@pytest.fixture
def site(tmp_path: Path) -> SiteStore:
    """Six normal persons, two with dementia, one normal of no age; one more is held out of training."""
    return write_site(tmp_path / "sites", "A", ageless=1)


@pytest.fixture
def settings(tmp_path: Path, make_settings) -> Settings:
    return make_settings(data__sites=str(tmp_path / "sites"), federation__reference="both", **SMALL)


@pytest.fixture
def ask(tmp_path: Path, settings: Settings) -> Callable[..., Parcel]:
    """Ask the site, under a policy if there is one, with other settings of the run if there are."""

    def send(what: str, *, policy: dict[str, object] | None = None, **changes: object) -> Parcel:
        node = {"site-store": str(tmp_path / "sites" / "A")}
        if policy is not None:
            path = tmp_path / "policy.toml"
            path.write_text(tomli_w.dumps({"policy": POLICY | {"reference": True} | policy}))
            node["policy"] = str(path)
        task = ReferenceTask("A", what).parcel()
        return answer(REFERENCE, task, run_config=settings.flat() | changes, node_config=node)

    return send


def train_rows(store: SiteStore, *, normal: bool) -> list[int]:
    rows = store.indices("train")
    return [
        i for i in rows if not normal or ((e := store.entries[i]).diagnosis == "CN" and e.clinical["age"])
    ]


class TestSums:
    def test_norms_are_those_of_normal_persons_who_train(self, ask, site: SiteStore) -> None:
        parcel = ask("norms")
        rows = train_rows(site, normal=True)
        x = np.array([scaled_age(site.entries[i].clinical["age"]) for i in rows])
        assert (parcel.values["site"], parcel.values["persons"], len(rows)) == ("A", 6, 6)
        assert parcel.values["age"] == pytest.approx(x.sum())
        assert parcel.values["age-squared"] == pytest.approx((x**2).sum())
        # SUVR from the store's own file, by hand: (value + 1) * 1.5, then the common resolution
        stored = np.load(site.path / "pet.npy").astype(np.float64)
        pets = [np.moveaxis((stored[i] + 1) * 1.5, 0, 2).astype(np.float32) for i in rows]
        affine, brain = GRID.crop.affine, ball(GRID.crop)
        y = np.stack([
            common_resolution(Volume(pet, affine, "SUVR"), spacing=SPACING, fwhm=8.0, brain=brain)
            for pet in pets
        ]).astype(np.float64)  # fmt: skip
        wanted = {"uptake": y.sum(0), "age_uptake": np.tensordot(x, y, 1), "uptake_squared": (y**2).sum(0)}
        for name, sums in wanted.items():
            np.testing.assert_allclose(parcel.arrays[name], sums, rtol=2e-6, atol=2e-6)
        assert 0.9 < parcel.arrays["uptake"][ball(GRID.crop, 30.0)].mean() / 6 < 1.1

    def test_familiarity_is_that_of_all_who_train(self, ask, site: SiteStore) -> None:
        parcel = ask("familiarity")
        mri = np.load(site.path / "mri.npy").astype(np.float32)
        table = np.stack([features_of_crop(mri[i], site.template) for i in train_rows(site, normal=False)])
        assert parcel.values["persons"] == 9 == len(table)
        np.testing.assert_allclose(parcel.arrays["total"], table.sum(0))
        np.testing.assert_allclose(parcel.arrays["outer"], table.T @ table)

    def test_a_person_counts_once(self, ask, site: SiteStore) -> None:
        path = site.path / "index.json"
        index = json.loads(path.read_text())
        index["entries"][1]["person"] = index["entries"][0]["person"] = "rid:1"  # a second visit
        path.write_text(json.dumps(index))
        assert contributors(SiteStore(site.path)) == {"norms": 5, "familiarity": 8}
        assert (ask("norms").values["persons"], ask("familiarity").values["persons"]) == (5, 8)

    def test_a_pet_that_does_not_cover_the_brain_is_left_out_without_a_name(
        self, ask, site: SiteStore, caplog
    ) -> None:
        for name in ("pet", "mri"):
            data = np.load(site.path / f"{name}.npy")
            data[2, 20:] = -1.0
            np.save(site.path / f"{name}.npy", data)
        with caplog.at_level(logging.WARNING):
            assert ask("norms").values["persons"] == 5
        assert "1 person(s) are not in the sums: the PET does not cover the brain" in caplog.text
        assert "sub-" not in caplog.text

    def test_sites_together_are_one_table_of_all(self, tmp_path: Path, site: SiteStore, ask) -> None:
        other = write_site(tmp_path / "sites", "B", normal=7)
        node = {"site-store": str(other.path)}
        parts = [ReferenceReport.of(ask("norms")).sums]
        task, flat = ReferenceTask("B", "norms").parcel(), {"federation.reference": "both"}
        told = answer(REFERENCE, task, run_config=flat, node_config=node)
        parts.append(ReferenceReport.of(told).sums)
        people = []
        for store in (site, other):
            for i in train_rows(store, normal=True):
                mri, pet = (np.moveaxis(part, 0, 2) for part in store.slab(i, 0, store.slices))
                pet = Volume((pet + 1) * np.float32(1.5), GRID.crop.affine, "SUVR")
                people.append(
                    NormPerson(store.entries[i].person, store.entries[i].clinical["age"], pet, mri > -1)
                )
        whole, pooled = NormSums.of(people, spacing=SPACING), NormSums.pool(parts)
        assert pooled.count == whole.count == 13
        assert pooled.age == pytest.approx(whole.age)
        np.testing.assert_allclose(pooled.uptake_squared, whole.uptake_squared, rtol=1e-6)


class TestOnce:
    @pytest.mark.parametrize("what", BOTH)
    def test_asked_again_it_tells_the_same_whatever_has_changed(
        self, ask, site: SiteStore, what: str
    ) -> None:
        first = ask(what)
        for name in ("pet", "mri"):
            np.save(site.path / f"{name}.npy", np.load(site.path / f"{name}.npy") * np.float16(0.9))
        path = site.path / "index.json"
        index = json.loads(path.read_text())
        index["entries"][0]["split"] = "test"  # one person fewer: the difference would be that person
        path.write_text(json.dumps(index))
        again = ask(what)
        assert again.values == first.values
        for name, array in first.arrays.items():
            np.testing.assert_array_equal(again.arrays[name], array)

    def test_another_run_gets_sums_of_its_own(self, ask, site: SiteStore) -> None:
        first = ask("norms")
        np.save(site.path / "pet.npy", np.load(site.path / "pet.npy") * np.float16(0.9))
        other = ask("norms", **{"run.name": "another"})
        assert not np.array_equal(first.arrays["uptake"], other.arrays["uptake"])

    def test_killed_before_it_is_kept_it_is_made_again(self, ask, site: SiteStore, monkeypatch) -> None:
        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("client.reference.write_json", killed)
            with pytest.raises(KeyboardInterrupt):
                ask("norms")
        assert not [path for path in (site.path / "state").rglob("*") if path.is_file()]
        assert ask("norms").values["persons"] == 6

    def test_damaged_memory_is_named(self, ask, site: SiteStore) -> None:
        ask("norms")
        (kept,) = (site.path / "state").rglob("answer.json")
        kept.write_text("{")
        with pytest.raises(CheckpointError, match=r"reference-norms/answer: cannot .*; remove this"):
            ask("norms")

    def test_what_is_kept_is_the_sites_own(self, ask, site: SiteStore) -> None:
        ask("norms")
        assert (site.path / "state").stat().st_mode & 0o77 == 0


class TestRefusals:
    @pytest.mark.parametrize("what", BOTH)
    @pytest.mark.parametrize("asked", ["none", "norms", "familiarity"])
    def test_a_run_that_does_not_ask_in_its_settings(self, ask, site, asked: str, what: str) -> None:
        if asked == what:
            return
        with pytest.raises(ExchangeError, match=f"sums for {what}: federation.reference of this run is"):
            ask(what, **{"federation.reference": asked})

    def test_a_site_that_is_held_out(self, ask, site) -> None:
        with pytest.raises(ExchangeError, match="site A is held out of this run"):
            ask("norms", **{"federation.held-out": "A"})

    @pytest.mark.parametrize("what", BOTH)
    def test_a_policy_that_forbids_it(self, ask, site: SiteStore, what: str) -> None:
        with pytest.raises(PolicyError, match=r"does not let them leave \(reference = true would\)"):
            ask(what, policy={"reference": False})
        assert not (site.path / "state").exists()
        assert ask(what, policy={}).values["site"] == "A"
        with pytest.raises(PolicyError, match="does not let them leave"):
            ask(what, policy={"reference": False})  # nor is what was told before told again

    @pytest.mark.parametrize(("normal", "what"), [(4, "norms"), (0, "norms"), (2, "familiarity")])
    def test_sums_over_fewer_than_five(self, ask, tmp_path: Path, normal: int, what: str) -> None:
        store = write_site(tmp_path / "sites", "A", normal=normal, ageless=0)
        with pytest.raises(PolicyError, match=r"sums over \d person\(s\) would leave; wanted at least 5"):
            ask(what)
        assert not (store.path / "state").exists()

    def test_five_are_enough(self, ask, tmp_path: Path) -> None:
        write_site(tmp_path / "sites", "A", normal=5, others=0)
        assert ask("norms").values["persons"] == ask("familiarity").values["persons"] == 5

    def test_the_policy_may_want_more_but_not_fewer(self, ask, tmp_path: Path, site) -> None:
        with pytest.raises(PolicyError, match=r"sums over 6 person\(s\) would leave; wanted at least 7"):
            ask("norms", policy={"metrics-min-subjects": 7})
        assert ask("norms", policy={"metrics-min-subjects": 6}).values["persons"] == 6
        with pytest.raises(PolicyError, match="wanted at least 7"):
            ask("norms", policy={"metrics-min-subjects": 7})  # nor what was told before
        write_site(tmp_path / "sites", "A", normal=4)
        with pytest.raises(PolicyError, match=r"sums over 4 person\(s\) would leave; wanted at least 5"):
            ask("norms", policy={"metrics-min-subjects": 1}, **{"run.name": "another"})

    def test_so_few_are_left_that_cover_the_brain(self, ask, site: SiteStore) -> None:
        for name in ("pet", "mri"):
            data = np.load(site.path / f"{name}.npy")
            data[:2, 20:] = -1.0
            np.save(site.path / f"{name}.npy", data)
        with pytest.raises(PolicyError, match=r"sums over 4 person\(s\) would leave"):
            ask("norms")
        assert not (site.path / "state").exists()


@pytest.mark.parametrize("what", BOTH)
def test_on_the_wire_it_is_exactly_of_its_type_and_holds_no_secret(settings, site, what: str) -> None:
    replies: list[Message] = []
    grid = InProcessGrid(
        client_app.app,
        run_config=settings.flat(),
        nodes=1,
        tamper=lambda _, reply: replies.append(reply) or reply,
    )
    list(GridPost(grid, deadline=1.0).ask({"A": (1, ReferenceTask("A", what).parcel())}, REFERENCE))
    (message,) = replies
    assert set(message.content) == {"arrays", "values"}
    check_departure(REFERENCE, parcel_of(message), settings)
    message.metadata.__dict__["_message_id"] = "1"
    wire = message_to_proto(message).SerializeToString()
    for word in (b"sub-A", b"/data", b".nii", str(settings.data.sites).encode()):
        assert word not in wire


def test_text_of_an_error_stays_in_the_log(settings, site: SiteStore, caplog) -> None:
    (site.path / "pet.npy").unlink()
    grid = InProcessGrid(client_app.app, run_config=settings.flat(), nodes=1)
    task = ReferenceTask("A", "norms").parcel()
    with caplog.at_level(logging.ERROR):
        ((_, said),) = GridPost(grid, deadline=1.0).ask({"A": (1, task)}, REFERENCE)
    assert said.startswith("code 100: StoreError (reference ")
    assert str(site.path) not in said
