# SPDX-License-Identifier: Apache-2.0
"""The people of a study: who trains, who is held out, and that nobody is both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pasta_model.data.manifest import Session, write_manifest
from pasta_model.data.store import SiteStore
from pasta_model.errors import ConfigError, ManifestError, SplitError
from simulation.study.cohort import gather, prepare, stores
from simulation.study.counts import table_of_sites
from simulation.study.settings import StudySettings

Make = Callable[..., Session]


def nothing(done: int, total: int) -> None:
    return None


@pytest.fixture
def study_of(tmp_path: Path) -> Callable[..., StudySettings]:
    """Write a table of sessions, and return a study of them."""

    def make(sessions: list[Session], **parts: Any) -> StudySettings:
        write_manifest(tmp_path / "people.tsv", sessions)
        return StudySettings.model_validate(
            {"cohort": {"manifests": [tmp_path / "people.tsv"]}, "seeds": [3], **parts}
        )

    return make


@pytest.fixture
def three_sites(make_session: Make) -> list[Session]:
    sizes = {"A": 6, "B": 5, "C": 3}
    return [
        make_session(f"sub-{site}{n}", site=site, split=None, diagnosis="CN" if n % 2 else "Dementia")
        for site, size in sizes.items()
        for n in range(size)
    ]


def test_a_held_out_site_has_no_store_and_all_its_persons_are_measured(
    tmp_path: Path, three_sites: list[Session], study_of: Callable[..., StudySettings]
) -> None:
    study = study_of(three_sites, partition={"held-out": ["C"]})
    found = gather(study, tmp_path, workers=1, progress=nothing)
    prepare(study, found, tmp_path, progress=nothing)
    assert (found.training, found.held_out) == (("A", "B"), ("C",))
    assert len(found.of("C", "test")) == 3
    assert {p.name for p in (tmp_path / "sites").iterdir()} == {"A", "B"}
    pool = SiteStore(tmp_path / "pool" / "pooled")
    assert {e.subject for e in pool.entries} == {s.subject for s in three_sites if s.site != "C"}
    trained = {e.person for s in stores(found, tmp_path).values() for e in s.entries if e.split != "test"}
    assert trained == found.seen
    assert not trained & {s.subject for s in found.measured}
    assert [row[0] for row in table_of_sites(found)] == ["A", "B", "C"]
    assert table_of_sites(found)[2] == ("C", "0", "0", "3", "1", "0", "2", "held out")


def test_splits_of_the_table_are_kept(
    tmp_path: Path, make_session: Make, study_of: Callable[..., StudySettings]
) -> None:
    given = ["train", "train", "test", "valid", "train"]
    sessions = [make_session(f"sub-{n}", split=split) for n, split in enumerate(given)]
    found = gather(study_of(sessions), tmp_path, workers=1, progress=nothing)
    assert [s.split for s in found.sessions] == given


def test_two_hospitals_numbers_are_refused_before_anybody_is_moved(
    tmp_path: Path, three_sites: list[Session], make_session: Make, study_of: Callable[..., StudySettings]
) -> None:
    study = study_of(three_sites, partition={"by": "size", "sites": 2})
    write_manifest(tmp_path / "more.tsv", [make_session("sub-A0", site="D", split=None, session="m06")])
    both = study.cohort.model_copy(update={"manifests": (*study.cohort.manifests, tmp_path / "more.tsv")})
    with pytest.raises(ManifestError, match="sub-A0: at A in"):
        gather(study.model_copy(update={"cohort": both}), tmp_path, workers=1, progress=nothing)


def test_a_held_out_site_is_not_pooled_however_small(
    tmp_path: Path, three_sites: list[Session], study_of: Callable[..., StudySettings]
) -> None:
    study = study_of(three_sites, partition={"held-out": ["C"], "smallest": 6})
    found = gather(study, tmp_path, workers=1, progress=nothing)
    assert (found.training, found.held_out) == (("A", "pooled"), ("C",))
    assert {s.subject for s in found.of("C", "test")} == {"sub-C0", "sub-C1", "sub-C2"}


def test_a_person_under_one_rid_in_two_splits_is_refused(
    tmp_path: Path, make_session: Make, study_of: Callable[..., StudySettings]
) -> None:
    sessions = [
        make_session("sub-a", rid="17", split="train"),
        make_session("sub-b", rid="0017", split="test"),
        *(make_session(f"sub-{n}", split="train") for n in range(3)),
    ]
    with pytest.raises(SplitError, match="rid:17"):
        gather(study_of(sessions), tmp_path, workers=1, progress=nothing)


@pytest.mark.parametrize(
    ("held_out", "said"),
    [(["D"], "there are A, B, C"), (["A", "B", "C"], "every site is held out")],
)
def test_sites_that_cannot_be_held_out_are_refused(
    tmp_path: Path,
    three_sites: list[Session],
    study_of: Callable[..., StudySettings],
    held_out: list[str],
    said: str,
) -> None:
    with pytest.raises(ConfigError, match=said):
        gather(study_of(three_sites, partition={"held-out": held_out}), tmp_path, workers=1, progress=nothing)


def test_a_site_where_nobody_trains_is_named(
    tmp_path: Path, make_session: Make, study_of: Callable[..., StudySettings]
) -> None:
    sessions = [
        *(make_session(f"sub-A{n}", split=split) for n, split in enumerate(("train", "valid", "test"))),
        make_session("sub-B0", site="B", split="test"),
    ]
    with pytest.raises(ConfigError, match="B: nobody trains"):
        gather(study_of(sessions), tmp_path, workers=1, progress=nothing)
