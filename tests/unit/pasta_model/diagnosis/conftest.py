# SPDX-License-Identifier: Apache-2.0
"""Cases on the 3 mm grid whose PETs, and less so MRIs, show the diagnosis."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.grid import template
from pasta_model.data.metaroi import region_masks
from pasta_model.data.volume import Volume, write_volume
from pasta_model.diagnosis.cases import Case

HEAD = template(3.0).head
LOSS = {"CN": 0.0, "MCI": 0.15, "Dementia": 0.3}  # of the MetaROI's uptake


@pytest.fixture(scope="session")
def brain() -> np.ndarray:
    centre = HEAD.coordinates() / np.array([68.0, 85.0, 65.0], np.float32)
    return np.linalg.norm(centre, axis=-1) < 1


@pytest.fixture(scope="session")
def metaroi() -> np.ndarray:
    return np.any(list(region_masks(HEAD).values()), axis=0)


@pytest.fixture
def make_case(tmp_path: Path, brain: np.ndarray, metaroi: np.ndarray) -> Callable[..., Case]:
    """Write a case's MRI, real PET and a method's PET, which shows half of the loss."""

    def make(person: str, diagnosis: str, *, session: str = "bl", methods: tuple[str, ...] = ()) -> Case:
        rng = np.random.default_rng(list(f"{person}{session}".encode()))
        folder = tmp_path / "scans" / person / session
        noise = rng.normal(0, 0.02, HEAD.shape)
        shown = {"mri": 100 * (1 + noise), "real PET": 1.2 - LOSS[diagnosis] * metaroi + noise}
        shown |= dict.fromkeys(methods, 1.2 - 0.5 * LOSS[diagnosis] * metaroi + noise)
        paths = {}
        for kind, data in shown.items():
            paths[kind] = folder / f"{kind}.nii"
            write_volume(paths[kind], Volume(np.asarray(data * brain, np.float32), HEAD.affine))
        clinical = {"age": float(rng.integers(60, 90)), "sex": float(rng.integers(2)), "education": 12.0}
        mri = paths.pop("mri")
        return Case(person, session, "A", diagnosis, mri, paths, {**clinical, "apoe4": None})

    return make


@pytest.fixture
def cases(make_case: Callable[..., Case]) -> list[Case]:
    """Four people of either diagnosis, one of them with two visits."""
    found = [make_case(f"p{n}", "CN" if n < 4 else "Dementia", methods=("half",)) for n in range(8)]
    return [*found, make_case("p7", "Dementia", session="m12", methods=("half",))]
