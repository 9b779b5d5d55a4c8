# SPDX-License-Identifier: Apache-2.0
"""The images of twins: folding, calibration, and what each kind of scan tells about the diagnosis."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pasta_model.data.grid import template
from simulation.twins.anatomy import Anatomy, load_anatomy
from simulation.twins.atrophy import build_brain
from simulation.twins.clinic import DIAGNOSES, Diagnosis, sample_person
from simulation.twins.fields import LATTICE, exponential, jacobian, sample_rows, to_grid
from simulation.twins.metabolism import COMMON_RESOLUTION, suvr_weights, true_uptake
from simulation.twins.regions import cortex_fields
from simulation.twins.scanner import sample_scanner
from simulation.twins.twin import Twin, make_twin


@pytest.fixture(scope="module")
def icbm() -> Anatomy:
    return load_anatomy("icbm152", spacing=3.0)


def twin(icbm: Anatomy, diagnosis: Diagnosis, number: int) -> Twin:
    seed = np.random.SeedSequence([5, number, DIAGNOSES.index(diagnosis)])
    person = sample_person(np.random.default_rng(seed), diagnosis=diagnosis)
    scanner = sample_scanner(np.random.default_rng([8, number % 4]))
    return make_twin(person, anatomy=icbm, scanner=scanner, seed=seed)


def test_a_constant_velocity_shifts_and_a_shift_has_jacobian_one() -> None:
    velocity = np.zeros((*LATTICE.shape, 3), np.float32)
    velocity[..., 1] = 3.0
    displacement = exponential(velocity)
    np.testing.assert_allclose(displacement, velocity, atol=1e-4)
    grid = template(3.0).head
    positions = grid.coordinates() + to_grid(displacement, grid)
    np.testing.assert_allclose(jacobian(positions, spacing=3.0), 1.0, atol=1e-4)


def test_jacobian_of_a_known_scaling() -> None:
    scaled = template(3.0).head.coordinates() * np.array([2.0, 1.0, -0.5], np.float32)
    np.testing.assert_allclose(jacobian(scaled, spacing=3.0), -1.0, rtol=1e-4)


def test_interpolation_is_exact_for_a_linear_field() -> None:
    index = np.moveaxis(np.indices((6, 7, 8)), 0, -1).astype(np.float32)
    points = np.random.default_rng(0).uniform(0, 4.9, (50, 3)).astype(np.float32)
    np.testing.assert_allclose(sample_rows(index, points), points, atol=1e-5)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from((30.0, 400.0, 1200.0)))
def test_no_deformation_folds_however_wide_the_ventricles(seed: int, gain: float) -> None:
    person = sample_person(np.random.default_rng(seed), diagnosis="Dementia")
    anatomy = load_anatomy("icbm152", spacing=3.0)
    brain = build_brain(np.random.default_rng(seed), replace(person, ventricles=gain), anatomy=anatomy)
    assert brain.lowest_jacobian > 0


def test_the_disease_widens_ventricles_and_shrinks_the_hippocampus(icbm: Anatomy) -> None:
    person = sample_person(np.random.default_rng(1), diagnosis="CN")
    mild = replace(person, atrophy=0.0, ventricles=100.0, hippocampus=(0.0, 0.0))
    severe = replace(person, atrophy=1.0, ventricles=500.0, hippocampus=(0.35, 0.35))
    before, after = (build_brain(np.random.default_rng(2), p, anatomy=icbm) for p in (mild, severe))
    assert after.ventricles_ml > 1.3 * before.ventricles_ml
    assert after.hippocampus_ml < 0.8 * before.hippocampus_ml
    assert after.maps["grey"].sum() < before.maps["grey"].sum()


@pytest.mark.parametrize("suvr", [1.0, 1.2, 1.35])
def test_the_amplitude_gives_the_wanted_suvr_at_the_common_resolution(icbm: Anatomy, suvr: float) -> None:
    person = sample_person(np.random.default_rng(3), diagnosis="MCI")
    brain = build_brain(np.random.default_rng(4), person, anatomy=icbm)
    uptake = true_uptake(np.random.default_rng(5), brain, suvr=suvr).map
    sigma = COMMON_RESOLUTION / 2.3548 / 3.0
    blurred = ndimage.gaussian_filter(uptake, sigma, mode="constant", truncate=3.0)
    metaroi, reference = suvr_weights(3.0)
    assert (metaroi * blurred).sum() / (reference * blurred).sum() == pytest.approx(suvr, abs=2e-3)


def test_the_table_of_regions_spares_and_hits_the_right_places() -> None:
    def hypometabolism(*point: float) -> float:
        return float(cortex_fields(np.array([point], np.float32))[0, 1])

    hit = [hypometabolism(*p) for p in ((0, -46, 26), (-46, -64, 37), (54, -40, -22))]
    spared = [hypometabolism(*p) for p in ((-30, -30, 60), (8, -80, 4), (30, -66, -35), (0, -27, -33))]
    assert min(hit) > 0.8
    assert max(spared) < 0.2
    mirrored = hypometabolism(-30, 20, 10), hypometabolism(30, 20, 10)
    assert mirrored[0] == pytest.approx(mirrored[1], abs=1e-6)


def test_the_same_person_at_another_spacing_has_the_same_anatomy(icbm: Anatomy) -> None:
    person = sample_person(np.random.default_rng(6), diagnosis="MCI")
    fine = load_anatomy("icbm152", spacing=1.5)
    coarse_brain, fine_brain = (
        build_brain(np.random.default_rng(7), person, anatomy=anatomy) for anatomy in (icbm, fine)
    )
    assert fine_brain.hippocampus_ml == pytest.approx(coarse_brain.hippocampus_ml, rel=0.1)
    assert fine_brain.ventricles_ml == pytest.approx(coarse_brain.ventricles_ml, rel=0.15)


@pytest.fixture(scope="module")
def twins(icbm: Anatomy) -> dict[Diagnosis, list[Twin]]:
    return {
        "CN": [twin(icbm, "CN", number) for number in range(40)],
        "MCI": [twin(icbm, "MCI", number) for number in range(20)],
        "Dementia": [twin(icbm, "Dementia", number) for number in range(40)],
    }


@pytest.mark.slow
def test_measured_suvr_lies_in_the_quoted_ranges(twins: dict[Diagnosis, list[Twin]]) -> None:
    # MetaROI SUVR about 1.30 / 1.2 / 1.07 (see test_clinic_calibration); 0.05 for a mean of 20 to 40.
    for diagnosis, low, high in (("CN", 1.25, 1.35), ("MCI", 1.14, 1.27), ("Dementia", 1.02, 1.12)):
        assert low < np.mean([t.suvr for t in twins[diagnosis]]) < high, diagnosis


@pytest.mark.slow
def test_the_hippocampus_is_as_much_smaller_as_published(twins: dict[Diagnosis, list[Twin]]) -> None:
    # Meta-analysis of Shi et al. 2009, doi:10.1002/hipo.20573: 11 to 13 % less in MCI, 23 to 24 % in
    # dementia (effect size 1.37 to 1.84); two standard errors of our small groups on either side.
    volumes = {diagnosis: np.array([t.hippocampus_ml for t in found]) for diagnosis, found in twins.items()}
    healthy = volumes["CN"].mean()
    assert 7.0 < healthy < 9.0
    assert 0.03 < 1 - volumes["MCI"].mean() / healthy < 0.21
    assert 0.17 < 1 - volumes["Dementia"].mean() / healthy < 0.31
    assert min(t.lowest_jacobian for found in twins.values() for t in found) > 0


def cross_validated_auc(scans: list[np.ndarray], diseased: np.ndarray) -> float:
    """AUC of a ridge-penalised logistic regression on coarse voxels, intensities per scan."""
    coarse = [ndimage.zoom(ndimage.gaussian_filter(s / s[s > 0].mean(), 1.5), 0.3, order=1) for s in scans]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-4, max_iter=300))
    features = np.stack(coarse).reshape(len(scans), -1)
    features = features[:, features.std(axis=0) > 1e-3]
    scores = cross_val_predict(model, features, diseased, cv=5, method="decision_function")
    return float(roc_auc_score(diseased, scores))


@pytest.mark.slow
def test_the_diagnosis_is_easier_to_read_from_the_pet_than_from_the_mri(
    twins: dict[Diagnosis, list[Twin]],
) -> None:
    both = twins["CN"] + twins["Dementia"]
    diseased = np.repeat([False, True], 40)
    pet = cross_validated_auc([t.pet for t in both], diseased)
    mri = cross_validated_auc([t.mri for t in both], diseased)
    assert pet > 0.8
    assert 0.55 < mri < pet - 0.05, (mri, pet)


@pytest.mark.slow
def test_the_mean_difference_is_the_pattern_of_the_disease(twins: dict[Diagnosis, list[Twin]]) -> None:
    mean = {diagnosis: np.mean([t.pet for t in found], axis=0) for diagnosis, found in twins.items()}
    change = mean["Dementia"] - mean["CN"]
    grid = template(3.0).head

    def at(*point: float) -> float:
        x, y, z = np.rint((np.array(point) - grid.origin) / 3.0).astype(int)
        return float(change[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2].mean())

    hit = [at(0, -50, 28), at(-46, -63, 36), at(47, -61, 36), at(-54, -42, -20), at(54, -42, -20)]
    spared = [at(-32, -28, 62), at(10, -80, 5), at(26, 3, 2), at(-28, -66, -35)]
    assert max(hit) < -0.12
    assert min(spared) > 0.5 * max(hit)
