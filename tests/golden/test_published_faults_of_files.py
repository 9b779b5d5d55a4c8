# SPDX-License-Identifier: Apache-2.0
"""Index of the faults of the published code (METHOD.md), 7 to 10: evaluation, files, what was missing."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from pasta_model.checkpoint import Checkpoint, load_checkpoint, new_network
from pasta_model.data.clinical import Moments, Standardisation
from pasta_model.data.grid import template
from pasta_model.data.manifest import Session
from pasta_model.data.metaroi import region_masks
from pasta_model.data.store import prepare_store
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.derivatives import synthetic_path
from pasta_model.evaluation.comparison import evaluate
from pasta_model.evaluation.scores import score
from pasta_model.evaluation.summary import summarise
from pasta_model.exchange.contents import SiteReport
from pasta_model.exchange.vectors import write_vector
from pasta_model.synthesis import Synthesiser
from server.members import Member
from server.records import REFERENCE, Progress
from server.rounds import Federation
from tests.support.standins import SMALL

ROOT = Path(__file__).parents[2]
GRID = template(3.0)
SMALLEST = {"network__shape": SMALL, "sampling__hop": 1}
USUAL = Standardisation((65.0, 0.0, 14.0, 0.0, 0.0, 0.0), (10.0,) * 6)
WHO = {"session": Session("s", "bl", "A", "CN", Path(), Path()), "method": "m"}


def test_7_every_session_is_evaluated(make_session, tmp_path: Path) -> None:
    sessions = [make_session(name, session=visit) for name in ("ann", "bob") for visit in ("bl", "m12")]
    for number, session in enumerate(sessions, start=1):
        real, path = read_volume(session.pet, unit="SUVR"), synthetic_path(tmp_path / "out", session)
        path.parent.mkdir(parents=True)
        write_volume(path, Volume(real.data + np.float32(0.1 * number), real.affine, "SUVR"))
    scores = evaluate(sessions, {"m": tmp_path / "out"}).scores
    assert [(s.subject, s.session) for s in scores] == [(s.subject, s.session) for s in sessions]
    assert [s.values["mae"] for s in scores] == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-5)
    assert summarise(scores)[0].values["mae"].value == pytest.approx(0.25, abs=1e-5)


def test_7_the_regions_error_is_averaged_in_the_region_only() -> None:
    inside = np.logical_or.reduce(list(region_masks(GRID.head).values()))
    mask, affine = np.ones(GRID.head.shape, bool), GRID.head.affine
    real = Volume(np.full(mask.shape, 1.2, np.float32), affine, "SUVR")
    for shift, wanted in ((np.where(inside, 0.0, 0.7), 0.0), (np.where(inside, 0.25, 0.0), 0.25)):
        other = Volume((real.data + shift).astype(np.float32), affine, "SUVR")
        assert score(real, other, mask=mask, **WHO).values["metaroi_error"] == pytest.approx(wanted, abs=1e-5)


def test_7_the_best_model_is_kept_not_the_last(make_settings, tmp_path: Path) -> None:
    (tmp_path / "sites" / "A").mkdir(parents=True)
    (tmp_path / "sites" / "A" / "index.json").write_text('{"site": "A"}')
    settings = make_settings(
        run__output=str(tmp_path / "run"), data__sites=str(tmp_path / "sites"), **SMALLEST
    )
    federation = Federation(None, settings)
    none = np.zeros(6)
    report = SiteReport("A", 3, 1, Moments(none, none, none))
    federation.members.joined["A"] = Member(1, report, "")
    progress = Progress(0, USUAL, "")
    for number, mae in enumerate((0.3, 0.1, 0.2)):
        progress.next_round = number
        layout, about = federation.folder.layout, federation.folder.metadata(progress, number)
        with federation.folder.completing(progress, number) as work:
            values = [np.full(size, number, np.float32) for size in federation.folder.sizes.values()]
            write_vector(work / REFERENCE, layout, values, metadata=about)
        federation._compare(progress, {"A": mae})
        federation.folder.publish_best(progress)
    kept = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert (kept.round, progress.best_round, progress.best_mae) == (1, 1, 0.1)
    assert {float(t.mean()) for t in kept.state.values()} == {1.0}


def test_8_suvr_means_the_same_in_every_volume(make_session, write_scan, tmp_path: Path) -> None:
    sessions = []
    for name, top in (("quiet", 1.6), ("loud", 6.0)):  # other extremes, 1.5 everywhere else
        pet = np.full(GRID.head.shape, 1.5)
        pet[20:30, 20:30, 20:30] = top
        sessions.append(make_session(name, pet=write_scan(tmp_path / f"{name}.nii", data=pet)))
    store = prepare_store(tmp_path / "store", sessions, spacing=3.0)
    corners = [store.slab(i, 0, 1)[1][0, 0, 0] for i in range(2)]
    assert corners == [0.0, 0.0]  # SUVR 1.5, half of the scale's 3
    assert store.slab(1, 20, 1)[1].max() == pytest.approx(3.0)  # SUVR 6 is not clipped


def test_8_training_and_synthesis_see_the_same_crop_on_the_same_scale(
    make_session, make_settings, tmp_path
) -> None:
    session = make_session("ann")
    store = prepare_store(tmp_path / "store", [session], spacing=3.0)
    settings = make_settings(**SMALLEST)
    synthesiser = Synthesiser(Checkpoint(new_network(settings).state_dict(), settings, USUAL, 1))
    source, _, _ = synthesiser._read(read_volume(session.mri), {})
    trained_on, pet = store.slab(0, 0, store.slices)
    np.testing.assert_allclose(source.numpy(), trained_on, atol=1e-3)  # the store is float16
    # And a PET that the network returns exactly comes out as the file's.
    real = read_volume(session.pet).data[GRID.slices]
    made = synthesiser._suvr(torch.from_numpy(pet), GRID)[GRID.slices]
    np.testing.assert_allclose(made, real, atol=2e-3)


@pytest.mark.parametrize("name", ["pet.nii", "pet.nii.gz"])
def test_9_nifti_keeps_origin_and_orientation(tmp_path: Path, name: str) -> None:
    affine = np.array([[1.5, 0, 0, -84.25], [0, 2, 0, -120.5], [0, 0, 3, -72.75], [0, 0, 0, 1]])
    data = np.random.default_rng(0).uniform(size=(3, 4, 5)).astype(np.float32)
    write_volume(tmp_path / name, Volume(data, affine, "SUVR"))
    found = nib.load(tmp_path / name)
    for matrix in (found.affine, found.get_sform(), found.get_qform()):
        np.testing.assert_allclose(matrix, affine, atol=1e-5)
    assert (
        found.header["sform_code"] == found.header["qform_code"] == 4
    )  # MNI; 0 would make readers ignore it
    np.testing.assert_array_equal(found.get_fdata(dtype=np.float32), data)


def test_10_no_path_of_a_home_directory_in_the_code() -> None:
    home = re.compile(r"/home/\w|/Users/\w|/root/|[A-Z]:\\+Users")
    folders = ("benchmarks", "client", "pasta_model", "server", "simulation")
    code = [
        path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".j2")
    ]
    code += [ROOT / "pyproject.toml", ROOT / "Makefile"]
    assert len(code) > 60
    assert [str(path) for path in code if home.search(path.read_text(encoding="utf-8"))] == []


def test_10_there_are_command_lines_a_roi_mask_and_tests() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    for entry in scripts.values():
        module, _, function = entry.partition(":")
        assert callable(getattr(import_module(module), function))
    commands = import_module("pasta_model.cli").app.registered_commands
    wanted = {"validate", "split", "store", "synthesize", "evaluate", "info", "import_checkpoint"}
    assert wanted <= {command.callback.__name__ for command in commands}
    assert len(region_masks(GRID.crop)) == 5
    assert min(mask.sum() for mask in region_masks(GRID.crop).values()) > 50
