# SPDX-License-Identifier: Apache-2.0
"""Who is at which site of a study: nobody twice, nobody lost, sites as the settings say."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pasta_model.data.manifest import DIAGNOSES, Session
from pasta_model.errors import ConfigError, ManifestError
from simulation.study.partition import by_diagnosis, by_size, by_vendor, partitioned
from simulation.study.settings import PartitionPart


def session(number: int, *, diagnosis: str = "CN", visit: int = 1, folder: Path = Path("scans")) -> Session:
    name = f"sub-{number:03d}"
    return Session(
        name, f"ses-{visit}", "here", diagnosis,
        folder / f"{name}_{visit}_T1w.nii.gz", folder / f"{name}_{visit}_pet.nii.gz",
    )  # fmt: skip


def cohort(counts: dict[str, int], *, visits: int = 1) -> list[Session]:
    found, number = [], 0
    for diagnosis, count in counts.items():
        for _ in range(count):
            number += 1
            found += [session(number, diagnosis=diagnosis, visit=v + 1) for v in range(visits)]
    return found


def shares(sessions: list[Session], places: dict[str, str]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for s in sessions:
        found.setdefault(places[s.subject], Counter())[s.diagnosis] += 1
    return found


@settings(max_examples=30, deadline=None)
@given(
    by=st.sampled_from(["diagnosis", "size"]),
    sites=st.integers(2, 6),
    persons=st.integers(6, 60),
    visits=st.integers(1, 3),
    alpha=st.sampled_from([0.05, 1.0, 100.0]),
    seed=st.integers(0, 50),
)
def test_everybody_is_at_one_site_and_no_site_is_empty(
    by: str, sites: int, persons: int, visits: int, alpha: float, seed: int
) -> None:
    third = persons // 3
    sessions = cohort({"CN": persons - 2 * third, "MCI": third, "Dementia": third}, visits=visits)
    part = PartitionPart(by=by, sites=sites, alpha=alpha)
    placed = partitioned(sessions, part, seed=seed)
    assert [s.name for s in placed] == [s.name for s in sessions]
    assert {s.site for s in placed} == {f"site-{n}" for n in range(1, sites + 1)}
    of: dict[str, set[str]] = {}
    for s in placed:
        of.setdefault(s.subject, set()).add(s.site)
    assert all(len(found) == 1 for found in of.values())


def test_a_small_alpha_gives_sites_of_few_diagnoses_and_a_large_one_equal_sites() -> None:
    sessions = cohort({"CN": 100, "MCI": 100, "Dementia": 100})

    def unevenness(alpha: float) -> float:
        found = []
        for seed in range(5):
            part = PartitionPart(by="diagnosis", sites=4, alpha=alpha)
            counts = shares(sessions, dict(by_diagnosis(sessions, part, seed=seed)))
            table = np.array([[c[d] for d in DIAGNOSES] for c in counts.values()], dtype=float)
            own = table / table.sum(axis=1, keepdims=True)
            found.append(np.abs(own - 1 / 3).mean())
        return float(np.mean(found))

    assert unevenness(0.1) > 0.25
    assert unevenness(1000.0) < 0.03


def test_sizes_follow_the_ratio_and_the_diagnoses_stay_even() -> None:
    sessions = cohort({"CN": 70, "MCI": 35, "Dementia": 70})
    part = PartitionPart(by="size", sites=3, ratio=2.0)
    counts = shares(sessions, dict(by_size(sessions, part, seed=3)))
    # 175 persons as 4 : 2 : 1
    assert [sum(counts[f"site-{n}"].values()) for n in (1, 2, 3)] == [100, 50, 25]
    for n, whole in ((1, 100), (2, 50), (3, 25)):
        assert counts[f"site-{n}"]["CN"] == pytest.approx(0.4 * whole, abs=1)
        assert counts[f"site-{n}"]["MCI"] == pytest.approx(0.2 * whole, abs=1)


def test_the_same_seed_gives_the_same_sites_and_another_one_others() -> None:
    sessions = cohort({"CN": 30, "MCI": 30, "Dementia": 30})
    part = PartitionPart(by="diagnosis", sites=3, alpha=1.0)
    first, again, other = (dict(by_diagnosis(sessions, part, seed=s)) for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_persons_worst_diagnosis_is_what_counts() -> None:
    turning = [session(1, diagnosis="CN", visit=1), session(1, diagnosis="Dementia", visit=2)]
    rest = [session(n, diagnosis="Dementia") for n in range(2, 8)]
    places = by_size([*turning, *rest], PartitionPart(by="size", sites=2, ratio=1.0), seed=0)
    assert Counter(places.values()) == {"site-1": 4, "site-2": 3}
    assert set(places) == {f"sub-{n:03d}" for n in range(1, 8)}


def test_more_sites_than_persons_are_refused() -> None:
    with pytest.raises(ConfigError, match="there are 2 persons"):
        partitioned(cohort({"CN": 2}), PartitionPart(by="size", sites=3), seed=0)


def test_vendors_are_read_beside_the_scans_whatever_their_case(tmp_path: Path) -> None:
    said = {1: "SIEMENS Healthineers", 2: "GE MEDICAL SYSTEMS", 3: "Image by philips", 4: "Shimadzu Corp."}
    sessions = [session(n, folder=tmp_path) for n in said]
    for number, s in enumerate(sessions, start=1):
        beside = s.mri if number % 2 else s.pet
        beside.with_name(beside.name.replace(".nii.gz", ".json")).write_text(
            json.dumps({"Manufacturer": said[number]})
        )
    assert list(by_vendor(sessions).values()) == ["Siemens", "GE", "Philips", "Shimadzu-Corp."]


def test_all_scans_without_a_vendor_are_named_at_once(tmp_path: Path) -> None:
    sessions = [session(n, folder=tmp_path) for n in (1, 2)]
    with pytest.raises(ManifestError, match=r"(?s)sub-001_ses-1.*sub-002_ses-1"):
        partitioned(sessions, PartitionPart(by="vendor"), seed=0)


def test_small_sites_are_pooled(tmp_path: Path) -> None:
    sessions = cohort({"CN": 40})
    part = PartitionPart(by="size", sites=4, ratio=3.0, smallest=5)  # 27, 9, 3, 1
    assert Counter(s.site for s in partitioned(sessions, part, seed=0)) == {
        "site-1": 27, "site-2": 9, "pooled": 4,
    }  # fmt: skip


def test_a_small_site_that_is_held_out_keeps_its_name() -> None:
    sessions = cohort({"CN": 40})
    part = PartitionPart(by="size", sites=4, ratio=3.0, smallest=5, held_out=("site-4",))  # 27, 9, 3, 1
    placed = partitioned(sessions, part, seed=0)
    assert Counter(s.site for s in placed) == {"site-1": 27, "site-2": 9, "pooled": 3, "site-4": 1}
    assert [s.name for s in placed] == [s.name for s in sessions]


def test_a_pool_can_be_held_out_but_not_share_its_name_with_a_held_out_site() -> None:
    places = {"alder": 6, "birch": 2, "cedar": 1}
    sessions, number = [], 0
    for site, count in places.items():
        for _ in range(count):
            number += 1
            sessions.append(replace(session(number), site=site))
    part = PartitionPart(smallest=5, held_out=("pooled",))
    assert Counter(s.site for s in partitioned(sessions, part, seed=0)) == {"alder": 6, "pooled": 3}
    sessions.append(replace(session(99), site="pooled"))
    with pytest.raises(ConfigError, match="held-out pooled: small sites are pooled as that"):
        partitioned(sessions, part, seed=0)
