# SPDX-License-Identifier: Apache-2.0
"""`pasta attack`, as it is typed: figures, what they mean, exit statuses, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from opacus.optimizers import DPOptimizer
from safetensors.torch import save_file

from pasta_model.checkpoint import load_checkpoint, save_checkpoint
from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.store import SiteStore, prepare_store
from pasta_model.data.volume import Volume, write_volume
from pasta_model.privacy import mechanism

SMALLEST = "slices 5, width 8, multipliers 1, blocks 1, attention none, heads 1, groups 4, patch 4"
HEAD = template(3.0).head
GUARANTEE = "an attack that fails proves nothing; the guarantee is the ledger's"


@pytest.fixture
def site(make_store: Callable[..., SiteStore]) -> Path:
    """Three train, one validates."""
    return make_store("A").path


@pytest.fixture
def other(make_store: Callable[..., SiteStore]) -> Path:
    return make_store("B").path


@pytest.fixture
def run_file(tmp_path: Path) -> Callable[..., Path]:
    """Settings of a small private run."""

    def write(**privacy: object) -> Path:
        own = {"unit": "subject", "epsilon": 0.7, "delta": 1e-5, "slabs-per-subject": 1} | privacy
        lines = [f"{k} = {json.dumps(v)}" for k, v in own.items()]
        (tmp_path / "run.toml").write_text(
            f'[network]\nshape = "{SMALLEST}"\n[sampling]\nhop = 4\n[loss]\ncycle = false\n'
            '[training]\nlocal-steps = 2\ndtype = "float32"\nwarmup-steps = 0\n[federation]\nrounds = 2\n'
            "[privacy]\n" + "\n".join(lines) + "\n"
        )
        return tmp_path / "run.toml"

    return write


# --- Canaries -------------------------------------------------------------------------------


def test_an_honest_plan_is_audited(pasta, site, run_file, tmp_path) -> None:
    words = ("--settings", run_file(), "--canaries", 60, "--seed", 1, "--json", tmp_path / "f.json")
    said = pasta("attack", "canaries", site, *words)
    assert said.status == 0, said
    assert "Nothing leaves, so nothing is spent." in said.out
    assert "private steps: 4 of 4" in said.out
    assert "no leak was seen" in said.out
    assert GUARANTEE in said.out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert figures["lower_bound"] <= figures["claimed"] <= 0.7
    assert (figures["canaries"], figures["guesses"], figures["steps"]) == (60, 30, 4)
    assert figures["says"].endswith(GUARANTEE)
    assert not figures["caught"]


def test_without_a_seed_the_noise_is_the_systems(pasta, site, run_file) -> None:
    said = pasta("attack", "canaries", site, "--settings", run_file(), "--canaries", 20, "--rounds", 1)
    assert said.status == 0, said
    assert "audited: 1 of 2 rounds" in said.out


@pytest.mark.parametrize("seed", [("--seed", 1), ()])
def test_a_leak_is_status_1(pasta, site, run_file, tmp_path, monkeypatch, seed) -> None:
    """Without a seed the noise is that of releases; 50 of 60 coins on one side, 1e-7, would be too many."""

    def silent(self: DPOptimizer) -> None:
        for p in self.params:
            p.grad = p.summed_grad.view_as(p)

    monkeypatch.setattr(DPOptimizer if seed else mechanism._Unpredictable, "add_noise", silent)
    words = ("--settings", run_file(), "--canaries", 60, *seed, "--json", tmp_path / "f.json")
    said = pasta("attack", "canaries", site, *words)
    assert said.status == 1, said
    assert "LEAK: epsilon is at least" in said.out
    assert "do not release anything" in said.out
    assert json.loads((tmp_path / "f.json").read_text())["caught"]


def test_a_claim_that_no_audit_reaches_is_said(pasta, site, run_file) -> None:
    file = run_file(epsilon=50.0)
    said = pasta("attack", "canaries", site, "--settings", file, "--canaries", 20, "--seed", 1)
    assert said.status == 0
    assert "no leak could have been seen" in said.out


def test_canaries_that_cannot_be(pasta_refuses, site, run_file, tmp_path) -> None:
    refused = ("attack", "canaries", site, "--settings")
    assert "privacy.unit is 'none'" in pasta_refuses(*refused, run_file(unit="none"))
    assert "wanted at most those" in pasta_refuses(*refused, run_file(), "--rounds", 3)
    assert "each needs a value of its own" in pasta_refuses(*refused, run_file(), "--canaries", 10**7)
    assert "wanted less than 1 / subjects" in pasta_refuses(*refused, run_file(delta=0.9))
    wide = tmp_path / "wide.toml"
    wide.write_text('[data]\nspacing = 1.5\n[privacy]\nunit = "subject"\n')
    assert "is prepared at 3.0 mm, wanted 1.5 mm" in pasta_refuses(*refused, wide)
    assert "no prepared site here" in pasta_refuses(
        "attack", "canaries", tmp_path / "nowhere", "--settings", run_file()
    )


def test_a_site_where_nobody_trains(pasta_refuses, tmp_path, make_session, run_file) -> None:
    sessions = [make_session("sub-1", split="valid"), make_session("sub-2", split="test")]
    prepare_store(tmp_path / "V", sessions, spacing=3.0)
    said = pasta_refuses("attack", "canaries", tmp_path / "V", "--settings", run_file())
    assert "no session in split 'train'" in said


# --- Membership -----------------------------------------------------------------------------


def test_membership_beside_a_reference(pasta, model, make_model, site, other, tmp_path) -> None:
    reference = make_model("reference.safetensors", run__seed=5)
    words = ("--members", site, "--others", other, "--others-split", "train", "--slabs", 2)
    said = pasta(
        "attack", "membership", model, *words, "--reference", reference, "--json", tmp_path / "f.json"
    )
    assert said.status == 0, said
    assert "losses: 12 of 12" in said.out
    assert "a difference between scanners counts as well" in said.out
    assert "without reference models" not in said.out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["members"], figures["others"], figures["references"]) == (3, 3, 1)
    assert 0 <= figures["auc_low"] <= figures["auc"] <= figures["auc_high"] <= 1
    assert figures["tpr_at_1"] is None
    alone = pasta("attack", "membership", model, *words)
    assert "without reference models" in alone.out


def test_membership_that_cannot_be(
    pasta_refuses, model, make_model, make_store, site, other, tmp_path
) -> None:
    def refused(members: Path, *words: object, of: Path = model) -> str:
        return pasta_refuses("attack", "membership", of, "--members", members, *words)

    both = ("--others", other, "--others-split", "train")
    assert "sub-Aada: is at site A" in refused(site, "--others", site, "--others-split", "train")
    assert "found scores of 3 members and 1 others" in refused(site, "--others", site, "--slabs", 1)
    assert "no such file" in refused(site, *both, of=tmp_path / "none.safetensors")
    wide = make_model("wide.safetensors", data__spacing=1.5)
    assert "is prepared at 3.0 mm, wanted 1.5 mm" in refused(site, *both, of=wide)
    bare = make_model("bare.safetensors", data__clinical="none")
    assert "data.clinical is 'none', wanted 'adni'" in refused(site, *both, "--reference", bare)
    assert "is a folder" in refused(site, *both, "--json", tmp_path)
    assert "the loss of 3 of 3 persons" in refused(site, *both, of=_spoilt(model))
    other_network = make_model("other.safetensors", network__shape=SMALLEST.replace("width 8", "width 16"))
    _with_weights_of(model, other_network)
    assert "the weights do not fit" in refused(site, *both, of=other_network)


def _spoilt(model: Path) -> Path:
    """Save the same model with weights that are no numbers."""
    checkpoint = load_checkpoint(model)
    spoilt = {name: torch.full_like(t, torch.nan) for name, t in checkpoint.state.items()}
    save_checkpoint(model.with_name("nan.safetensors"), replace(checkpoint, state=spoilt))
    return model.with_name("nan.safetensors")


def _with_weights_of(source: Path, target: Path) -> None:
    from safetensors import safe_open

    with safe_open(target, framework="pt") as file:
        about = file.metadata()
    save_file(load_checkpoint(source).state, target, metadata=about)


# --- Memorisation ---------------------------------------------------------------------------


@pytest.fixture
def held_out(tmp_path: Path, make_session: Callable[..., Session]) -> SiteStore:
    """A site whose six subjects are tested."""
    sessions = [make_session(f"sub-H{i}", split="test", site="H") for i in range(6)]
    return prepare_store(tmp_path / "sites" / "H", sessions, spacing=3.0)


def put(folder: Path, store: SiteStore, pets: list[np.ndarray]) -> None:
    """Lay down synthetic PETs of a store's sessions, as `pasta synthesize` does."""
    for entry, pet in zip(store.entries, pets, strict=True):
        name = f"{entry.subject}_{entry.session}_space-MNI152_trc-18FFDG_desc-synthetic_pet.nii.gz"
        head = store.template.to_head((pet + 1) * 1.5)
        write_volume(folder / entry.subject / entry.session / "pet" / name, Volume(head, HEAD.affine, "SUVR"))


def pets_of(store: SiteStore, count: int) -> list[np.ndarray]:
    return [store.slab(i % len(store.entries), 0, store.slices)[1] for i in range(count)]


@pytest.mark.parametrize(
    ("recites", "said"), [(False, "no copying was seen"), (True, "repeats its training")]
)
def test_memorisation(pasta, site, held_out, tmp_path, recites, said) -> None:
    rng = np.random.default_rng(0)
    source = SiteStore(site) if recites else held_out
    made = [p + rng.normal(0, 0.05, p.shape).astype(np.float32) for p in pets_of(source, 6)]
    put(tmp_path / "synthetic", held_out, made)
    words = ("--real", held_out.path, "--training", site, "--json", tmp_path / "f.json")
    found = pasta("attack", "memorisation", tmp_path / "synthetic", *words)
    assert found.status == 0, found
    assert said in found.out
    assert "without the mean PET" in found.out
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["persons"], figures["trained"]) == (6, 3)
    assert (figures["near_training"] > 0.5) is recites
    assert figures["neighbours"][0]["subject"] == "sub-H0"
    assert figures["neighbours"][0]["nearest"].startswith("sub-A")


def test_memorisation_that_cannot_be(pasta_refuses, site, held_out, tmp_path) -> None:
    put(tmp_path / "synthetic", held_out, pets_of(held_out, 6))
    start = ("attack", "memorisation", tmp_path / "synthetic", "--training", site, "--real")
    assert "has no session in split 'valid'" in pasta_refuses(*start, held_out.path, "--real-split", "valid")
    assert "sub-Aada: is at site A and in the training" in pasta_refuses(
        *start, site, "--real-split", "train"
    )
    assert "1 held-out person(s)" in pasta_refuses(
        "attack",
        "memorisation",
        _lone(tmp_path, site),
        "--training",
        site,
        "--real",
        site,
        "--real-split",
        "valid",
    )
    missing = pasta_refuses(
        "attack", "memorisation", tmp_path / "no", "--training", site, "--real", held_out.path
    )
    assert missing.count("no synthetic PET here") == 6


def _lone(tmp_path: Path, site: Path) -> Path:
    store = SiteStore(site)
    (index,) = store.indices("valid")
    store.entries = (store.entries[index],)
    put(tmp_path / "lone", store, [store.slab(index, 0, store.slices)[1]])
    return tmp_path / "lone"


# --- Inversion ------------------------------------------------------------------------------


def test_inversion(pasta, model, site, tmp_path) -> None:
    words = ("--steps", 1, "--steps", 2, "--noise-multiplier", 0.5, "--trials", 1, "--iterations", 2)
    said = pasta("attack", "inversion", site, "--model", model, *words, "--json", tmp_path / "f.json")
    assert said.status == 0, said
    assert "attack: 8 of 8" in said.out
    assert "noise 0.5" in said.out
    assert GUARANTEE in said.out
    cases = json.loads((tmp_path / "f.json").read_text())["cases"]
    assert [(c["steps"], c["noise_multiplier"], c["slabs"]) for c in cases] == [
        (1, None, 1),
        (1, 0.5, 1),
        (2, None, 2),
        (2, 0.5, 2),
    ]


def test_inversion_from_settings(pasta, run_file, site) -> None:
    words = ("--steps", 1, "--noise-multiplier", 0, "--trials", 1, "--iterations", 1)
    said = pasta("attack", "inversion", site, "--settings", run_file(), *words)
    assert said.status == 0, said


def test_inversion_that_cannot_be(pasta_refuses, model, make_model, run_file, site, tmp_path) -> None:
    start = ("attack", "inversion", site)
    assert "wanted one of them" in pasta_refuses(*start)
    assert "wanted one of them" in pasta_refuses(*start, "--model", model, "--settings", run_file())
    wide = make_model("wide.safetensors", data__spacing=1.5)
    assert "is prepared at 3.0 mm, wanted 1.5 mm" in pasta_refuses(*start, "--model", wide)
    quick = ("--steps", 1, "--trials", 1, "--iterations", 1)
    assert "an update is not finite" in pasta_refuses(*start, "--model", _spoilt(model), *quick)


# --- Stopped --------------------------------------------------------------------------------


def test_ctrl_c_keeps_nothing_and_says_so(pasta, site, run_file, tmp_path, monkeypatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pasta_model.privacy.attacks.canaries.private_steps", interrupt)
    words = ("--settings", run_file(), "--canaries", 60, "--json", tmp_path / "f.json")
    said = pasta("attack", "canaries", site, *words)
    assert said.status == 130
    assert said.err.strip().endswith("stopped; nothing was kept, the same command begins anew")
    assert not (tmp_path / "f.json").exists()
