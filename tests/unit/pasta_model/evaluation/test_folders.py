# SPDX-License-Identifier: Apache-2.0
"""PETs that cannot be in SUVR: none is compared, and each is named with its session."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pasta_model.data.manifest import Session
from pasta_model.data.volume import Volume, read_volume, write_volume
from pasta_model.errors import VolumeError
from pasta_model.evaluation.folders import scaled_to_one, score_session, try_session
from pasta_model.metrics.scaling import own_range_scaled

Save = Callable[[str, np.ndarray], Path]


@pytest.fixture
def session(make_session: Callable[..., Session]) -> Session:
    return make_session("ann")


@pytest.fixture
def pet(session: Session) -> np.ndarray:
    return read_volume(session.pet).data


@pytest.fixture
def save(session: Session, tmp_path: Path) -> Save:
    def write(name: str, data: np.ndarray) -> Path:
        path = tmp_path / f"{name}.nii"
        write_volume(path, Volume(data.astype(np.float32), read_volume(session.pet).affine))
        return path

    return write


def test_a_pet_of_another_unit_is_refused_and_the_others_are_scored(
    session: Session, pet: np.ndarray, save: Save
) -> None:
    scores, lines = try_session(session, {"bq": save("bq", 8000 * pet), "ok": save("ok", pet + 0.1)})
    assert [one.method for one in scores] == ["ok"]
    (line,) = lines
    assert line.startswith("ann_bl: bq: ")
    assert "bq.nii: the PET's 99th percentile in the brain is 1" in line
    assert line.endswith("wanted 0.1 to 20: it is not in SUVR; divide it by its mean in the reference region")


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_pet_that_is_constant_in_the_brain_is_refused(
    value: float, session: Session, pet: np.ndarray, save: Save
) -> None:
    """Whatever it is outside."""
    made = save("flat", np.where(read_volume(session.mri).data > 0, value, pet + 3.0))
    scores, (line,) = try_session(session, {"flat": made})
    assert scores == []
    assert f"ann_bl: flat: {made}: the PET is constant in the brain ({value:g} in all " in line


@pytest.mark.parametrize(("gain", "why"), [(0.0, "constant in the brain"), (8000.0, "not in SUVR")])
def test_a_real_pet_that_is_none_hides_no_other_mistake(
    gain: float, why: str, session: Session, pet: np.ndarray, save: Save
) -> None:
    candidates = {"ok": save("ok", pet), "zero": save("zero", 0 * pet), "lost": Path("lost.nii")}
    write_volume(session.pet, Volume(gain * pet, read_volume(session.pet).affine))
    scores, lines = try_session(session, candidates)
    assert scores == []
    first, second, third = lines
    assert first.startswith(f"ann_bl: real PET: {session.pet}: ")
    assert why in first
    assert second.startswith("ann_bl: zero: ")
    assert third.startswith("ann_bl: lost: ")


def test_a_network_of_ours_that_collapsed_is_a_result(session: Session, pet: np.ndarray, save: Save) -> None:
    (one,) = score_session(session, {"ours": save("zero", 0 * pet)})
    assert one.values["mae"] == pytest.approx(pet[read_volume(session.mri).data > 0].mean(), rel=1e-2)
    assert one.why["mae_published"] == "the synthetic PET is constant (0): it has no range to be scaled by"
    write_volume(session.pet, Volume(0 * pet, read_volume(session.pet).affine))
    with pytest.raises(VolumeError, match=r"ann_bl: real PET: .* is constant in the brain"):
        score_session(session, {"ours": save("zero", 0 * pet)})


class TestScaledToOne:
    @pytest.fixture
    def scaled(self, pet: np.ndarray, save: Save) -> Path:
        return save("scaled", own_range_scaled(pet))

    def test_a_method_whose_pets_all_are(
        self, session: Session, pet: np.ndarray, save: Save, scaled: Path
    ) -> None:
        faint = save("faint", 0.9 * own_range_scaled(pet))
        own = {"real PET": session.pet, "theirs": scaled, "ours": session.pet}
        (line,) = scaled_to_one([own, {**own, "theirs": faint}])
        assert line.startswith(
            "theirs: no voxel of any PET is above 1 (the highest: 1), as on a scale of [0, 1]"
        )
        assert "wanted SUVR: undo the scaling, value x (high - low) + low" in line

    def test_one_pet_alone_is_a_bad_pet_and_no_scale(self, session: Session, scaled: Path) -> None:
        assert scaled_to_one([{"theirs": scaled}, {"theirs": session.pet}]) == []

    def test_real_pets_are_looked_at_too(self, session: Session, scaled: Path) -> None:
        (line,) = scaled_to_one([{"real PET": scaled, "theirs": session.pet}])
        assert line.startswith("real PET: ")

    def test_what_is_told_elsewhere_is_not_told_again(self, pet: np.ndarray, save: Save) -> None:
        assert scaled_to_one([{"lost": Path("lost.nii"), "zero": save("zero", 0 * pet)}]) == []
        assert scaled_to_one([]) == []
