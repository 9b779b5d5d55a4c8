# SPDX-License-Identifier: Apache-2.0
"""One twin: a person's brain, seen by the MRI and the PET scanner of a site."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from simulation.twins.anatomy import Anatomy
from simulation.twins.atrophy import Brain, build_brain
from simulation.twins.clinic import Person
from simulation.twins.fields import Floats
from simulation.twins.metabolism import metaroi_suvr, to_suvr, true_uptake
from simulation.twins.scanner import Scanner, acquire_mri, acquire_pet


@dataclass(frozen=True)
class Twin:
    """A pair of scans and what is true of them.

    Attributes
    ----------
    mri
        Skull-stripped T1, (x, y, z) in scanner units.
    pet
        FDG, (x, y, z) in SUVR.
    suvr
        MetaROI SUVR measured in `pet`.
    amplitude
        Of the disease's loss of metabolism.
    hippocampus_ml, ventricles_ml
        In MNI space.
    positions
        MNI mm of the template for every voxel, (x, y, z, 3): which structure lies where.
    lowest_jacobian
        > 0 when the deformation does not fold.
    """

    mri: Floats
    pet: Floats
    suvr: float
    amplitude: float
    hippocampus_ml: float
    ventricles_ml: float
    positions: Floats
    lowest_jacobian: float


def make_twin(person: Person, *, anatomy: Anatomy, scanner: Scanner, seed: np.random.SeedSequence) -> Twin:
    """Make the scans of a person.

    Body, metabolism and acquisition draw from streams of their own: the same seed at another spacing
    or scanner is the same person.
    """
    body, chemistry, session = (np.random.default_rng(child) for child in seed.spawn(3))
    grid = anatomy.grid
    brain = build_brain(body, person, anatomy=anatomy)
    uptake = true_uptake(chemistry, brain, suvr=person.suvr)
    t1 = _textured_t1(session, brain)
    mri = acquire_mri(session, t1, brain=brain.inside, scanner=scanner, grid=grid)
    counts = acquire_pet(session, uptake.map, brain=brain.inside, scanner=scanner, grid=grid)
    pet = to_suvr(counts, spacing=grid.spacing)
    return Twin(
        mri=mri,
        pet=pet,
        suvr=metaroi_suvr(pet, spacing=grid.spacing),
        amplitude=uptake.amplitude,
        hippocampus_ml=brain.hippocampus_ml,
        ventricles_ml=brain.ventricles_ml,
        positions=brain.positions,
        lowest_jacobian=brain.lowest_jacobian,
    )


def _textured_t1(rng: np.random.Generator, brain: Brain) -> Floats:
    """T1 map with the fine texture of real tissue, white matter 1."""
    white = rng.standard_normal(brain.grid.shape, dtype=np.float32)
    texture = ndimage.gaussian_filter(white, 0.9)
    textured: Floats = brain.maps["t1"] * (1.0 + np.float32(0.018) * texture / texture.std())
    return textured
