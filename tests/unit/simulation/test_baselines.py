# SPDX-License-Identifier: Apache-2.0
"""The two baselines: the mean PET against numbers made by hand, a site alone against a bare loop."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pasta_model.checkpoint import load_checkpoint, new_translator
from pasta_model.config import Settings
from pasta_model.data.clinical import SCHEMES, Moments, clinical_table
from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.slabs import SlabLoader
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.training import Place, make_optimizer, train_steps
from simulation import workers
from simulation.baselines import alone_settings, mean_pet, train_alone
from simulation.workers import alone_rounds, train_alone_site

GRID = template(3.0)


@pytest.fixture
def flat_store(
    tmp_path: Path, make_session: Callable[..., Session], write_scan: Callable[..., Path]
) -> Callable[..., SiteStore]:
    """Prepare a site whose PETs have one SUVR each, or one in each place from left to right."""

    def make(site: str, pets: dict[str, tuple[str, float | np.ndarray]]) -> SiteStore:
        sessions = []
        for name, (split, suvr) in pets.items():
            path = tmp_path / "scans" / f"{site}-{name}_pet.nii"
            write_scan(path, data=np.broadcast_to(suvr, GRID.head.shape))
            sessions.append(make_session(f"sub-{site}{name}", split=split, site=site, pet=path))
        return prepare_store(tmp_path / "sites" / site, sessions, spacing=3.0)

    return make


def test_mean_pet_counts_every_training_session_once_and_no_other(
    flat_store: Callable[..., SiteStore],
) -> None:
    alder = flat_store("alder", {"a": ("train", 0.75), "b": ("train", 0.75), "c": ("valid", 3.0)})
    birch = flat_store("birch", {"d": ("train", 2.25), "e": ("test", 3.0)})
    mean = mean_pet([alder, birch])
    inside = mean.data[GRID.slices]
    # (0.75 + 0.75 + 2.25) / 3; the mean of the sites' means would be 1.5
    np.testing.assert_allclose(inside, 1.25, rtol=1e-6)
    assert mean.data.sum() == pytest.approx(inside.sum())
    assert mean.data[0].max() == 0.0, "nothing outside the crop"
    assert mean.unit == "SUVR"
    assert mean.data.shape == GRID.head.shape
    np.testing.assert_array_equal(mean.affine, GRID.head.affine)


def test_mean_pet_is_never_negative(flat_store: Callable[..., SiteStore]) -> None:
    left_to_right = np.where(np.arange(GRID.head.shape[0]) < 28, -0.75, 1.5)
    mean = mean_pet([flat_store("alder", {"a": ("train", left_to_right[:, None, None])})]).data
    assert (mean[:28] == 0).all()
    np.testing.assert_allclose(mean[GRID.slices][28:], 1.5)


def test_site_alone_trains_as_a_bare_loop_would(
    make_store: Callable[..., SiteStore], make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    store = make_store("alder")
    settings = make_settings(
        run__output=str(tmp_path / "federated"), federation__rounds=3, training__local_steps=1
    )
    train_alone(tmp_path / "sites" / "alder", settings, tmp_path / "alone")

    rows = [store.entries[i].clinical for i in store.indices("train")]
    scheme = SCHEMES["adni"]
    loader = SlabLoader(
        store,
        split="train",
        slab_slices=15,
        scheme=scheme,
        standardisation=Moments.of(clinical_table(rows, scheme)).standardisation(),
    )
    translator = new_translator(settings)
    optimizer = make_optimizer(translator.network, settings.training)  # one for the whole run
    for number in range(3):
        train_steps(translator, loader, optimizer, settings=settings, place=Place("alder", number))
    wanted = translator.network.state_dict()
    found = load_checkpoint(tmp_path / "alone" / "last.safetensors")
    assert found.round == 3
    assert found.state.keys() == wanted.keys()
    # Weights travel as differences: w + (w' - w) is w' but for the last bit, which Adam can make a little of.
    initial = new_translator(settings).network.state_dict()
    way, off = (
        torch.cat([(one[name] - other[name]).flatten() for name in wanted]).norm().item()
        for one, other in ((wanted, initial), (found.state, wanted))
    )
    assert way > 0.01
    assert off < 1e-3 * way
    assert not (tmp_path / "federated").exists()


def test_site_alone_differs_from_the_federation_in_nothing_that_shapes_its_steps(
    make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = make_settings(
        run__seed=11,
        federation__min_sites=3,
        federation__patience=9.0,
        federation__held_out="alder",
        federation__invited="invited.toml",
        federation__cross_evaluation=True,
        aggregation__rule="fedadam",
        aggregation__proximal_mu=0.1,
        exchange__uplink="int4",
        exchange__downlink="int8",
        exchange__personal="norms",
        exchange__frozen="mri-arm",
    )
    own = alone_settings(settings, tmp_path / "sites" / "alder", tmp_path).flat()
    changed = {name for name, value in settings.flat().items() if own[name] != value}
    federation = {"min-sites", "patience", "held-out", "invited", "cross-evaluation"}
    assert changed == {
        "run.name",
        "run.output",
        "run.resume",
        "data.sites",
        *(f"federation.{name}" for name in federation),
        # Of a federation of one these make nothing but worse copies of the site's own weights.
        *("aggregation.rule", "aggregation.proximal-mu"),
        *(f"exchange.{name}" for name in ("uplink", "downlink", "personal")),
    }
    assert own["federation.min-sites"] == 1
    assert own["exchange.frozen"] == "mri-arm"


def test_site_alone_is_not_trained_twice(
    make_store: Callable[..., SiteStore],
    make_settings: Callable[..., Settings],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_store("alder")
    store, output = tmp_path / "sites" / "alder", tmp_path / "alone" / "alder"
    assert alone_rounds([output]) == 0
    train_alone_site(store, make_settings(), output)
    assert alone_rounds([output, tmp_path / "alone" / "birch"]) == 3
    records = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    assert [sorted(record["valid_mae"]) for record in records] == [["alder"]] * 3
    monkeypatch.setattr(workers, "train_alone", None)  # a call would be a TypeError
    train_alone_site(store, make_settings(), output)
